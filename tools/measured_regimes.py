"""Write the table of measured regimes that tools/diagnose.py compares with, from run records."""

import argparse
import json
from pathlib import Path
from typing import Any

from mmseg_recall.diagnosis.advice import METRICS, REGIMES
from mmseg_recall.diagnosis.measure import gini
from mmseg_recall.files import write_atomically
from mmseg_recall.report.bases import base_of
from mmseg_recall.report.judge import Difference, judge
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.summary import Comparison, Loss, compare
from mmseg_recall.statistics import Estimate

IMAGES = {'CamVid': 367, 'MagneticTile': 806, 'NeuSeg': 2904, 'SynthiaSeqs': 224}
"""Images for training of the datasets of the records."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folders', nargs='+', type=Path, help='folders of records')
    parser.add_argument('--out', type=Path, default=REGIMES)
    args = parser.parse_args()
    runs, problems = load_runs(args.folders)
    if problems:
        parser.exit(1, '\n'.join(problems) + '\n')
    table = [regime(one) for one in compare(runs) if one.baseline and len(one.losses) > 1]
    table.sort(key=lambda one: one['name'])
    write_atomically(args.out, (json.dumps(table, indent=1) + '\n').encode())
    print(args.out)


def regime(comparison: Comparison) -> dict[str, Any]:
    """The data of a comparison, and what each loss with a base gained over cross-entropy."""
    pixels, setup = comparison.runs[0].pixels, comparison.setup
    others = [loss for loss in comparison.losses if loss is not comparison.baseline]
    return dict(
        name=comparison.title,
        classes=len(pixels),
        rarest=float(f'{pixels.min() / pixels.sum():.3g}'),
        gini=round(gini(pixels), 3),
        epochs=round(setup['iterations'] * setup['batch_size'] / IMAGES[setup['dataset']], 2),
        gains=[one for loss in others if base_of(loss) for one in gains(comparison, loss)],
    )


def gains(comparison: Comparison, loss: Loss) -> list[dict[str, Any]]:
    """What a loss gained, judged among the others, as the report does; nothing of one seed."""
    others = [one for one in comparison.losses if one is not comparison.baseline]
    judged = judge(comparison, [[Difference('mIoU', one, comparison.baseline)] for one in others])
    outcome = next(j.outcome for j in judged if j.difference.first is loss)
    found = {name: comparison.difference(loss, comparison.baseline, name) for name in METRICS}
    if found['mIoU'].seeds < 2:
        return []
    shown = {name: interval(one) for name, one in found.items()}
    seeds = found['mIoU'].seeds
    return [dict(loss=loss.label, base=base_of(loss), seeds=seeds, outcome=outcome, **shown)]


def interval(found: Estimate) -> list[float]:
    """Mean and both ends of the interval of 95%."""
    return [round(value, 2) for value in (found.mean, *found.interval())]


if __name__ == '__main__':
    main()
