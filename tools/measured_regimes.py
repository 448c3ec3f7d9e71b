"""Write the table of measured regimes that tools/diagnose.py compares with, from run records."""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mmseg_recall.comparison.record import read_record
from mmseg_recall.config import loss_name
from mmseg_recall.diagnosis.advice import REGIMES
from mmseg_recall.diagnosis.measure import gini
from mmseg_recall.files import write_atomically
from mmseg_recall.report.bases import bases

METRICS = ('mIoU', 'mAcc', 'aAcc')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folders', nargs='+', type=Path, help='folders of records')
    parser.add_argument('--out', type=Path, default=REGIMES)
    args = parser.parse_args()
    records = [read_record(path) for folder in args.folders for path in folder.glob('*.json')]
    table = regimes([r for r in records if r['status'] == 'complete' and r['training_pixels']])
    write_atomically(args.out, (json.dumps(table, indent=1) + '\n').encode())
    print(args.out)


def regimes(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each dataset and schedule with cross-entropy and another loss."""
    # Of several bases with one loss the recommended one, which comes first.
    labels = {loss_name(*losses): name for name, losses in reversed(bases().items())}
    found: dict[tuple[str, str, str], dict[str, dict[int, dict[str, Any]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for record in records:
        setup = record['setup']
        place = setup['dataset'], setup['model'], setup['schedule']
        found[place][setup['loss']][record['seed']] = record
    table = []
    for (dataset, model, schedule), losses in sorted(found.items()):
        baseline = losses.pop('CE', None)
        if not baseline or not losses:
            continue
        one = next(iter(baseline.values()))
        pixels = np.array(one['training_pixels'])
        images = IMAGES[dataset]
        table.append(
            dict(
                name=f'{dataset}, {model}, {schedule}',
                classes=len(pixels),
                rarest=float(f'{pixels.min() / pixels.sum():.3g}'),
                gini=round(gini(pixels), 3),
                epochs=round(one['setup']['iterations'] * one['setup']['batch_size'] / images, 2),
                gains=[
                    gain(label, labels[label], runs, baseline)
                    for label, runs in sorted(losses.items())
                    if label in labels and len(runs.keys() & baseline.keys()) > 1
                ],
            )
        )
    return table


IMAGES = {'CamVid': 367, 'NeuSeg': 2904, 'SynthiaSeqs': 224}
"""Images for training of the datasets of the records."""


def gain(
    label: str, base: str, runs: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """Mean and standard deviation over seeds of what a loss gained."""
    seeds = sorted(runs.keys() & baseline.keys())

    def differences(metric: str) -> list[float]:
        return [runs[s]['metrics'][metric] - baseline[s]['metrics'][metric] for s in seeds]

    return dict(
        loss=label,
        base=base,
        seeds=len(seeds),
        **{
            metric: [round(f(differences(metric)), 2) for f in (statistics.mean, statistics.stdev)]
            for metric in METRICS
        },
    )


if __name__ == '__main__':
    main()
