"""What becomes of every config that ships with the installed mmseg, given a loss base.

    python -m tests.configs.stock_configs [BASE]

prints for `recall`, or another of configs/_base_/losses, how many are swapped in the head that
predicts, and how many are refused with which sentence.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path

import mmseg
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_recall.config import argument, as_list, heads, losses, predicting_path
from mmseg_recall.models import rewrite

BASES = Path(__file__).parents[2] / 'configs/_base_/losses'

CONFIGS = Path(mmseg.__path__[0]) / '.mim/configs'
SWAPPED = 'swapped in the head that predicts'
MIXED = f'{SWAPPED}; a cross-entropy of pixels stays beside it, with a warning'
REFUSALS = {
    'classifies queries': 'refused: the head classifies queries, not pixels',
    'predicts depth': 'refused: the head predicts depth',
    'its sigmoids score each class alone': 'refused: sigmoids of several classes',
    'is no cross-entropy of the pixels': 'refused: the head has no cross-entropy',
}


def stock_configs() -> list[Path]:
    """The configs that name a model; not the bases."""
    return sorted(CONFIGS.glob('[!_]*/*.py'))


def outcome(path: Path, base: str = 'recall') -> str:
    """Swap the losses of a config for those of a base and build all heads'; what came of it.

    Raises:
        ValueError: A refusal with a sentence that is not in the table.
        AssertionError: Swapped, but not in the head that predicts.
    """
    # Some import what no test needs, such as mmdet.
    cfg = Config.fromfile(path, import_custom_modules=False)
    cfg.imbalance_loss = Config.fromfile(BASES / f'{base}.py').imbalance_loss
    stock = heads(cfg.model)
    if stock:
        number = argument(stock[predicting_path(cfg.model)], 'num_classes')
        cfg.class_counts = [1] * (number or 1)
    report: list[tuple[int, str]] = []
    try:
        model = rewrite(cfg, report).model
    except ValueError as error:
        for sentence, refusal in REFUSALS.items():
            if sentence in str(error):
                return refusal
        raise
    built = {
        place: [MODELS.build(loss) for loss in losses(head)] for place, head in heads(model).items()
    }
    found = {type(loss).__name__ for loss in built[predicting_path(model)]}
    assert found >= {loss['type'] for loss in as_list(cfg.imbalance_loss)}, path
    return MIXED if any(level > 20 for level, _ in report) else SWAPPED


def main() -> None:
    """Print the table."""
    counts = Counter(map(partial(outcome, base=[*sys.argv, 'recall'][1]), stock_configs()))
    print(f'| {sum(counts.values())} configs | |\n|:--|--:|')
    for name, count in counts.most_common():
        print(f'| {name} | {count} |')


if __name__ == '__main__':
    main()
