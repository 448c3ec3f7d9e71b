"""What becomes of every config that ships with the installed mmseg, given a loss base.

    python -m tests.configs.stock_configs

prints how many are swapped in the head that predicts, and how many are refused with which sentence.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import mmseg
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_recall.config import heads, losses, predicting_path
from mmseg_recall.losses import RecallLoss
from mmseg_recall.models import rewrite

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


def outcome(path: Path) -> str:
    """Swap the losses of a config and build those of all heads; what came of it.

    Raises:
        ValueError: A refusal with a sentence that is not in the table.
        AssertionError: Swapped, but not in the head that predicts.
    """
    # Some import what no test needs, such as mmdet.
    cfg = Config.fromfile(path, import_custom_modules=False)
    cfg.imbalance_loss = dict(type='RecallLoss')
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
    assert any(type(loss) is RecallLoss for loss in built[predicting_path(model)]), path
    return MIXED if any(level > 20 for level, _ in report) else SWAPPED


def main() -> None:
    """Print the table."""
    counts = Counter(outcome(path) for path in stock_configs())
    print(f'| {sum(counts.values())} configs | |\n|:--|--:|')
    for name, count in counts.most_common():
        print(f'| {name} | {count} |')


if __name__ == '__main__':
    main()
