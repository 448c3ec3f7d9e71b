"""Read every file once before training, so that a bad one is found now and not in an hour."""

from __future__ import annotations

import json
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ..datasets.files import write_atomically
from ..datasets.labels import check_samples, fingerprint
from ..losses import ClassCountsLoss


@HOOKS.register_module()
class CheckDatasetHook(Hook):
    """Check images, labels and class counts for training before the first iteration.

    Both files must be whole and of one size, and the label may hold only class indices and
    ``ignore_index``. The check reads every file once, with all cores of the main process's
    machine. What it found right is remembered in ``dataset_check.json`` in the work folder, by
    names, sizes and modification times of the files, so that a restart costs only a look at
    those.

    A file of class counts that a loss was given must name the classes of the training set.

    Raises:
        FileNotFoundError: A file is missing, on every rank.
        ValueError: A file is damaged, a label of another size than its image, or with unknown
            ids; names the file. Class counts of other classes; names both.
        OSError: ``dataset_check.json`` cannot be written, on every rank.

    Example:
        >>> custom_hooks = [dict(type='CheckDatasetHook')]
    """

    CACHE = 'dataset_check.json'

    def before_train(self, runner) -> None:
        for module in runner.model.modules():
            if isinstance(module, ClassCountsLoss):
                module.check_names(runner.train_loop.dataloader.dataset.metainfo['classes'])
        loops = [runner.train_loop] + ([runner.val_loop] if runner.val_loop is not None else [])
        errors: list[Exception | None] = [None]
        if is_main_process():
            try:
                for loop in loops:
                    check_dataset(loop.dataloader.dataset, Path(runner.work_dir) / self.CACHE)
            except Exception as error:
                errors = [error]
        # The other ranks fail with the same words instead of waiting for one that is gone.
        broadcast_object_list(errors)
        if errors[0] is not None:
            raise errors[0]


def check_dataset(dataset, cache: Path) -> None:
    """Check a dataset unless ``cache`` says that these very files have been found right.

    Args:
        dataset: See :func:`mmseg_recall.datasets.labels.label_sources`.
        cache: JSON list of fingerprints; written after a successful check.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, a label of another size than its image, or with unknown
            ids; names the file.
    """
    passed = _remembered(cache)
    files = fingerprint(dataset)
    if files not in passed:
        check_samples(dataset)
        write_atomically(cache, json.dumps([*passed, files]).encode())


def _remembered(cache: Path) -> list[str]:
    try:
        passed = json.loads(cache.read_text())
    except (OSError, ValueError, RecursionError):
        # Absent, or not what this hook has written: then nothing is known of any file.
        return []
    return passed if isinstance(passed, list) else []
