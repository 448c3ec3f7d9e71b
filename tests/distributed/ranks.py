"""Processes that stay and form process groups: one start serves every test across ranks."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_recall.stack import find_stack

TIMEOUT = timedelta(minutes=5)
WORLD_SIZES = [1, 2, pytest.param(4, marks=pytest.mark.slow)]


class Ranks:
    """A pool of processes, of which the first ``world_size`` become ranks of a gloo group."""

    def __init__(self, folder: Path) -> None:
        # Not fork: a copy of a process whose OpenCV or OpenMP has started threads deadlocks.
        methods = multiprocessing.get_all_start_methods()
        self.context = multiprocessing.get_context(
            'forkserver' if 'forkserver' in methods else 'spawn'
        )
        if 'forkserver' in methods:
            self.context.set_forkserver_preload([__name__, 'mmseg_recall', 'mmengine.runner'])
        self.folder = folder
        self.groups = 0
        self.connections: list[Any] = []

    def run(self, world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``function(*args)`` returns on each rank of a new group; all of it is pickled."""
        for rank in range(len(self.connections), world_size):
            here, there = self.context.Pipe()
            # Not daemons, which may not have the children that reading a dataset starts.
            self.context.Process(target=_serve, args=(rank, there, str(self.folder))).start()
            there.close()
            self.connections.append(here)
        self.groups += 1
        store = f'file://{self.folder}/group{self.groups}'
        connections = self.connections[:world_size]
        for connection in connections:
            connection.send_bytes(pickle.dumps((world_size, store, function, args)))
        answers = []
        for rank, connection in enumerate(connections):
            assert connection.poll(2 * TIMEOUT.seconds), f'rank {rank} of {world_size} hangs'
            try:
                answers.append(pickle.loads(connection.recv_bytes()))
            except EOFError:
                answers.append(('its process has died', None))
        errors = [f'rank {r}: {error}' for r, (error, _) in enumerate(answers) if error]
        assert not errors, '\n'.join(errors)
        return [result for _, result in answers]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


def _serve(rank: int, connection: Any, folder: str) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    if find_stack():
        from mmengine.registry import init_default_scope

        init_default_scope('mmseg')
    # Never freed: in torch 2.4 that waits for a thread of the group with the interpreter locked.
    groups = []
    while True:
        try:
            world_size, store, function, args = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        # As a launcher gives them.
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
        dist.init_process_group(
            'gloo', init_method=store, rank=rank, world_size=world_size, timeout=TIMEOUT
        )
        groups.append(dist.group.WORLD)
        error, result = '', None
        try:
            result = function(*args)
        except Exception:
            error = traceback.format_exc()
        # Ranks that wait for one that has failed are told so by the closed connection.
        dist.destroy_process_group()
        connection.send_bytes(pickle.dumps((error, result)))


class Collectives(TorchDispatchMode):
    """Records the number of elements that each collective operation is given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if operator.namespace in ('c10d', '_c10d_functional'):
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            self.sizes.append(sum(tensor.numel() for tensor in tensors))
        return operator(*args, **(kwargs or {}))
