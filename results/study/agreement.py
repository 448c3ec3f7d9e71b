"""Do heads on frozen features order the losses as trainings of the whole model do?

python results/study/agreement.py FROZEN... --with WHOLE...
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap, spearmanr

from mmseg_recall.comparison.record import read_record

METRICS = ('mIoU', 'mAcc', 'aAcc')


def means(folders: list[Path], metric: str) -> dict[str, float]:
    """Mean over the seeds of each loss."""
    found = defaultdict(list)
    for path in (path for folder in folders for path in folder.glob('*.json')):
        record = read_record(path)
        if record['status'] == 'complete':
            found[record['setup']['loss']].append(record['metrics'][metric])
    return {loss: statistics.mean(values) for loss, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('frozen', nargs='+', type=Path, help='folders of records')
    parser.add_argument('--with', dest='whole', nargs='+', type=Path, required=True)
    args = parser.parse_args()
    for metric in METRICS:
        frozen, whole = means(args.frozen, metric), means(args.whole, metric)
        losses = sorted(frozen.keys() & whole.keys())
        pairs = [frozen[loss] for loss in losses], [whole[loss] for loss in losses]
        low, high = bootstrap(
            pairs,
            lambda one, other: spearmanr(one, other).statistic,
            paired=True,
            vectorized=False,
            method='percentile',
            rng=np.random.default_rng(0),
        ).confidence_interval
        rank = spearmanr(*pairs).statistic
        print(f'{metric}: {rank:.2f} ({low:.2f} to {high:.2f}), {len(losses)} losses')


if __name__ == '__main__':
    main()
