"""Faults of data and configs that look like imbalance and are none, each with its cure."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config

from ..config import argument, as_list, heads, type_name
from ..datasets.labels import ClassCount, Item, ignore_index, parts_of, read_ids
from ..datasets.parallel import parallel_map
from ..datasets.splits import Picture, shared

LIKENESS = 0.9
"""Correlation of two thumbnails from which they are taken for frames of one scene."""


class Fault(NamedTuple):
    """What is wrong, where, and what to do."""

    what: str
    where: str
    cure: str


def of_files(errors: list[tuple[Item, Exception]]) -> Iterator[Fault]:
    """Files that cannot be read, or hold ids that are no class; one fault a kind."""
    kinds: dict[str, list[tuple[Item, str]]] = {}
    for item, error in errors:
        message = str(error).removeprefix(f'{item.name}: ')
        kind = re.sub(r"[\d/]\S*|'.*?'|\[.*?\]", '', message)
        kinds.setdefault(kind, []).append((item, message))
    cures = {
        'unknown ids': 'name the classes that are missing in metainfo, map the ids to classes or '
        'to ignore_index in the labels, or by label_map',
        'pixels, and its image': 'make image and label of one size, and check that they belong '
        'together',
        'single-channel': 'write labels as 8-bit images of ids, or load them by an own transform',
        'missing': 'put the file there, or correct data_root, data_prefix or the suffixes',
    }
    for (item, message), *others in kinds.values():
        where = f'{item.name} and {len(others)} more' if others else item.name
        cure = next((cure for word, cure in cures.items() if word in message), 'get the file again')
        yield Fault(message, where, cure)


def of_classes(count: ClassCount) -> Iterator[Fault]:
    """Classes without a pixel."""
    cure = 'see the reason; a class that is really absent: leave it out of metainfo and head'
    return (Fault(message, 'train_dataloader.dataset', cure) for message in count.warnings)


def of_heads(cfg: Config, classes: list[str], ignored: int) -> Iterator[Fault]:
    """Heads that disagree with the dataset."""
    for path, head in heads(cfg.model).items() if 'model' in cfg else ():
        number = argument(head, 'num_classes')
        outputs = argument(head, 'out_channels') or number
        if number is not None and number != len(classes):
            yield Fault(
                f'the head has {number} classes, the dataset {len(classes)}',
                f'model.{path}.num_classes',
                f'num_classes={len(classes)}, or the metainfo of the dataset',
            )
        head_ignores = argument(head, 'ignore_index')
        if head_ignores is not None and head_ignores != ignored:
            yield Fault(
                f'the head ignores {head_ignores}, the dataset {ignored}: what the dataset leaves '
                'out is trained, or a class is not',
                f'model.{path}.ignore_index',
                f'ignore_index={ignored} in the head, or in the dataset',
            )
        elif head_ignores is not None and head_ignores < len(classes):
            yield Fault(
                f'id {head_ignores} is ignored and is the class {classes[head_ignores]!r}, which '
                'is never trained',
                f'model.{path}.ignore_index',
                f'an ignore_index above {len(classes) - 1}, in head and dataset',
            )
        for loss in as_list(head.get('loss_decode', dict(type='CrossEntropyLoss'))):
            sigmoid = argument(loss, 'use_sigmoid')
            if outputs == 1 and not sigmoid and 'Cross' in type_name(loss):
                yield Fault(
                    f'one output channel with {type_name(loss)} by softmax, which is 0 for '
                    'whatever is predicted',
                    f'model.{path}.loss_decode',
                    'use_sigmoid=True, or out_channels=2',
                )


def of_transforms(items: list[Item], before: set[int], crops: set[int]) -> Iterator[Fault]:
    """Transforms after the loader that make ids which no label has."""
    if not items or not crops:
        return
    names = {type(part).__name__ for step in items[0].transforms for part in parts_of(step)}
    made = sorted(crops - before - {ignore_index(items[0].dataset)})
    if made:
        yield Fault(
            f'the transforms after the loader make ids {made[:10]}, which no label has',
            f'train_dataloader.dataset.pipeline (loaded by {", ".join(sorted(names))})',
            "resize labels with interpolation='nearest', pad and rotate them with ignore_index "
            '(seg_pad_val), and map ids where they are loaded',
        )


def of_splits(train: list[Picture], test: list[Picture], loader: str) -> Iterator[Fault]:
    """Images of an evaluation split that training shows, or the frame beside them."""
    equal = shared(train, test)
    if equal:
        yield Fault(
            f'{len(equal)} of {len(test)} images of {loader} are training images',
            f'{equal[0][0]} is {equal[0][1]}',
            'take them out of the training set, or score on others',
        )
        return
    scenes: dict[str, list[tuple[int, Picture]]] = {}
    for picture in train:
        scene, number = _scene(picture.path)
        if scene:
            scenes.setdefault(scene, []).append((number, picture))
    alike: Counter[str] = Counter()
    for picture in test:
        scene, number = _scene(picture.path)
        if scene not in scenes or len(scenes[scene]) < 2:
            continue
        nearest = min(scenes[scene], key=lambda frame: abs(frame[0] - number))[1]
        if _likeness(nearest, picture) > LIKENESS:
            alike[scene] += 1
    total = sum(alike.values())
    if total >= 0.5 * len(test):
        yield Fault(
            f'{total} of {len(test)} images of {loader} are frames beside training images, by '
            f'name and look: {", ".join(f"{name}*" for name, _ in alike.most_common(3))}',
            loader,
            'score on scenes that training never shows; these scores are of scenes seen before',
        )


def _likeness(one: Picture, other: Picture) -> float:
    if one.thumbnail is None or other.thumbnail is None:
        return 0.0
    return float((one.thumbnail * other.thumbnail).mean())


def _scene(path: str) -> tuple[str, int]:
    """A file name without the number at its end, and that number."""
    stem = os.path.splitext(os.path.basename(path))[0]
    found = re.fullmatch(r'(.*[^\d])(\d+)', stem)
    return (found[1], int(found[2])) if found else ('', 0)


def read_all(items: list[Item], description: str) -> tuple[list[Any], list[tuple[Item, Exception]]]:
    """The ids of each item, None where it cannot be read, and why."""
    errors: list[tuple[Item, Exception]] = []

    def one(item: Item) -> Any:
        try:
            return read_ids(item)
        except (OSError, ValueError) as error:
            errors.append((item, error))
            return None

    found = list(parallel_map(one, items, description, threads=True))
    order = {id(item): position for position, item in enumerate(items)}
    return found, sorted(errors, key=lambda pair: order[id(pair[0])])
