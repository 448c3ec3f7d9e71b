"""Read every file once before training, so that a bad one is found now and not in an hour."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ..datasets.labels import NotJudged, count_classes, fingerprint
from ..files import write_atomically
from ..losses import ClassCountsLoss
from ..losses.class_counts import load_class_counts


@HOOKS.register_module()
class CheckDatasetHook(Hook):
    """Check images, labels and class counts for training before the first iteration.

    Each item is loaded by the dataset's own pipeline, up to what changes ids. Image and label must
    be whole and of one size, and the label may hold only class indices and ``ignore_index``. A
    class without a pixel in the training set is warned of. The check reads every file once, with
    all cores of the main process's machine. What it found right is remembered in
    ``dataset_check.json`` in the work folder, by names, sizes and modification times of the files,
    so that a restart costs only a look at those. A dataset that does not show its labels (iterable,
    without class names, of depth) is trained on unchecked, with a warning.

    Class counts with names, of a loss or of the config, must be of the classes of the training
    set.

    Raises:
        FileNotFoundError: A file is missing, on every rank.
        ValueError: A file is damaged, a label of another size than its image, or with unknown
            ids; names the file. Class counts of other classes; names both.
        OSError: ``dataset_check.json`` cannot be written, on every rank.

    Example:
        >>> custom_hooks = [dict(type='CheckDatasetHook')]
    """

    CACHE = 'dataset_check.json'

    def before_train(self, runner: Any) -> None:
        self._check_names(runner)
        loops = [runner.train_loop] + ([runner.val_loop] if runner.val_loop is not None else [])
        errors: list[Exception | None] = [None]
        if is_main_process():
            try:
                for loop, name in zip(loops, ('training', 'validation'), strict=False):
                    cache = Path(runner.work_dir) / self.CACHE
                    found = check_dataset(loop.dataloader.dataset, cache, name)
                    if loop is runner.train_loop:
                        for message in found:
                            warnings.warn(message, stacklevel=1)
            except Exception as error:
                errors = [error]
        # The other ranks fail with the same words instead of waiting for one that is gone.
        broadcast_object_list(errors)
        if errors[0] is not None:
            raise errors[0]

    @staticmethod
    def _check_names(runner: Any) -> None:
        classes = getattr(runner.train_loop.dataloader.dataset, 'metainfo', {}).get('classes')
        if classes is None:
            return
        for module in runner.model.modules():
            if isinstance(module, ClassCountsLoss):
                module.check_names(classes)
        # What no loss has read, the test and the record of a comparison will.
        source = runner.cfg.get('class_counts')
        if source is not None and (not isinstance(source, str) or Path(source).is_file()):
            load_class_counts(source, classes)


def check_dataset(dataset: Any, cache: Path, name: str = 'training') -> list[str]:
    """Check a dataset unless ``cache`` says that these very files have been found right.

    Args:
        dataset: A dataset or a wrapper of one or several.
        cache: JSON list of fingerprints; written after a successful check.
        name: What it is for, for the messages.

    Returns:
        Warnings: what was not judged, or which class has no pixel.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, a label of another size than its image, or with unknown
            ids; names the file.
    """
    passed = _remembered(cache)
    try:
        files = fingerprint(dataset)
        if files in passed:
            return []
        count = count_classes(dataset, f'Checking {name} data')
    except NotJudged as reason:
        return [f'The {name} data are not checked: {reason}']
    write_atomically(cache, json.dumps([*passed, files]).encode())
    return [f'In the {name} data, {message}' for message in count.warnings]


def _remembered(cache: Path) -> list[str]:
    try:
        passed = json.loads(cache.read_text())
    except (OSError, ValueError, RecursionError):
        # Absent, or not what this hook has written: then nothing is known of any file.
        return []
    return passed if isinstance(passed, list) else []
