"""The tables of the pages that people write are what the published records give."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import pytest
from scipy import stats

from mmseg_recall.report.bases import base_of
from mmseg_recall.report.judge import Difference, interval_text, judge
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions.classifiers import paper_name
from mmseg_recall.report.summary import Comparison, compare
from mmseg_recall.statistics import NOT_SETTLED

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / 'results'
COLUMNS = {'overall accuracy': 'aAcc', 'mean accuracy': 'mAcc', 'mean IoU': 'mIoU'}
SHOTS = {'all': 'top1', 'few (under 20 images)': 'few'}
ALL_SHOTS = dict(all='top1', many='many', medium='medium', few='few')
# The losses that the study shares with the comparison of three seeds.
SHARED = {'Recall', 'InverseFrequency', 'LovaszSoftmax'}

Rows = list[dict[str, str]]


def table_after(page: Path, anchor: str) -> Rows:
    """The first table after the anchor; a row is its cells by the names of the columns."""
    text = page.read_text()
    assert anchor in text, f'{page} has no {anchor!r}'
    lines = text[text.index(anchor) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('|'))
    rows = []
    for line in lines[start:]:
        if not line.startswith('|'):
            break
        rows.append([cell.strip() for cell in line.strip('|').split('|')])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def records_of(*folders: Path) -> list[dict]:
    return [json.loads(path.read_text()) for f in folders for path in sorted(f.glob('*.json'))]


def studied(name: str) -> list[dict]:
    """The study's own records of a comparison, and those that it shares with `make results`."""
    shared = RESULTS / name
    own = records_of(RESULTS / 'study' / name)
    if shared.is_dir():
        own += [r for r in records_of(shared) if r['setup']['loss'] in SHARED]
    return own


def values(records: list[dict], label: str, name: str) -> dict[int, float]:
    """By seed, of a loss as a page names it."""
    label, _, tau = label.partition(', logits adjusted, tau = ')
    name = f'tau={tau}/{name}' if tau else name
    return {
        record['seed']: record['metrics'][name]
        for record in records
        if record['setup']['loss'] == label
    }


def interval(numbers: dict[int, float]) -> str:
    """The mean and Student's interval of 95%; of one seed the mean."""
    middle, values = mean(numbers.values()), list(numbers.values())
    if len(values) == 1:
        return f'{middle:.1f}'
    half = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f'{middle:.1f} ({max(middle - half, 0):.1f} to {min(middle + half, 100):.1f})'


def seeds_named(text: str) -> list[int]:
    first, to, last = text.partition(' to ')
    return list(range(int(first), int(last) + 1)) if to else [int(s) for s in text.split(', ')]


def short(label: str) -> str:
    return 'CE' if label == 'CrossEntropyLoss' else re.sub(r'Loss$', '', label)


@pytest.mark.parametrize(
    ('page', 'anchor', 'name'),
    [
        ('results/README.md', '### CamVid', 'camvid'),
        ('results/README.md', '### Mini scenes', 'synthia-mini'),
    ],
)
def test_the_comparison_of_three_seeds(page, anchor, name):
    records = records_of(RESULTS / name)
    rows = table_after(ROOT / page, anchor)
    assert {short(row['loss']) for row in rows} == {r['setup']['loss'] for r in records}
    for row in rows:
        for column, metric_name in COLUMNS.items():
            assert row[column] == interval(values(records, short(row['loss']), metric_name)), row


@pytest.mark.parametrize(
    ('anchor', 'name'), [('### CamVid', 'camvid'), ('### Mini scenes', 'synthia-mini')]
)
def test_the_table_of_models(anchor, name):
    records = records_of(RESULTS / name)
    for row in table_after(ROOT / 'configs/recall/README.md', anchor):
        for metric_name in COLUMNS.values():
            found = values(records, short(row['Loss']), metric_name)
            assert row[metric_name] == interval(found), row


@pytest.mark.parametrize(
    ('anchor', 'name'),
    [
        ('## CamVid, validation images', 'camvid'),
        ('## Mini scenes, test images', 'synthia-mini'),
        ('## Longer training', 'camvid'),
        ('## What was tried', 'holdout'),
    ],
)
def test_the_study(anchor, name):
    rows = table_after(RESULTS / 'study' / 'README.md', anchor)
    for row in rows:
        length = row.get('iterations', '240')
        records = studied(name if length == '240' else f'{name}-{length}')
        label, crops, _ = row['loss'].partition(', crops drawn by class')
        records = [r for r in records if ('crops' in r['config_file']) == bool(crops)]
        for column, metric_name in COLUMNS.items():
            found = values(records, label, metric_name)
            assert sorted(found) == seeds_named(row.get('seeds', '0')), row
            assert row[column] == interval(found), row


REGIMES = {
    'Steel': 'frozen-neu_seg-600',
    'after a quarter': 'frozen-neu_seg',
    'test drives of CamVid': 'frozen-camvid',
    'Magnetic tiles': 'frozen-magnetic_tile',
    'validation drive': 'camvid-schedule',
    'without statistics': 'camvid',
    'Rendered scenes': 'synthia-mini',
}


@cache
def compared(place: str) -> Comparison:
    shared = [
        path
        for name in ('recall', 'inversefrequency', 'lovaszsoftmax')
        for path in (RESULTS / place).glob(f'*_{name}_seed*.json')
    ]
    (comparison,) = compare(load_runs([RESULTS / 'study' / place, *sorted(shared)])[0])
    return comparison


def texts(comparison: Comparison, differences: list[Difference]) -> list[str]:
    """As the pages print them: bold is what holds after Holm's correction over them."""
    printed = []
    for one in judge(comparison, [[difference] for difference in differences]):
        text = interval_text(one.estimate, 1)
        printed.append(text if one.outcome == NOT_SETTLED else f'**{text}**')
    return printed


def judged(place: str, metric: str) -> dict[str, tuple[str, str]]:
    """The mean of each base in a metric, and what it gains, as the pages print them."""
    comparison = compared(place)
    base = comparison.baseline
    losses = [
        loss
        for loss in comparison.losses
        if loss is not base and all(metric in run.metrics for run in loss.runs)
    ]
    gains = texts(comparison, [Difference(metric, loss, base) for loss in losses])
    return {
        base_of(loss): (f'{comparison.estimate(loss, metric).mean:.1f}', gain)
        for loss, gain in zip(losses, gains, strict=True)
    }


def test_which_loss_is_what_the_report_says():
    place, seen = '', set()
    for row in table_after(ROOT / 'README.md', '## Which loss?'):
        place = next((name for words, name in REGIMES.items() if words in row['data']), place)
        seen.add(place)
        (file,) = re.findall(r'`(\w+\.py)`', row['take'])
        for column, metric in COLUMNS.items():
            assert row[column] == judged(place, metric)[file][1], row
    assert seen == set(REGIMES.values())


FROZEN = {
    'square root of inverse frequency': 'inverse_frequency_sqrt.py',
    'the square root, moving to CE': 'inverse_frequency_sqrt_to_ce.py',
    'the square root, plus Lovasz': 'inverse_frequency_sqrt_lovasz.py',
    'the square root, moving to CE, plus Lovasz': 'recommended.py',
    'RecallLoss': 'recall.py',
}
POINT = ('mIoU_as_is', 'mIoU_with_offsets', 'mAP')
BEYOND = ('mObjectRecall', 'mBoundaryIoU', 'mCalibrationError')


@pytest.mark.parametrize(
    ('anchor', 'place', 'metrics'),
    [
        ('### Steel\n', 'frozen-neu_seg-600', ('mIoU', 'mAcc', 'aAcc')),
        ('After 150 iterations:', 'frozen-neu_seg', ('mIoU', 'mAcc', 'aAcc')),
        ('After 2,400 iterations:', 'frozen-neu_seg-2400', ('mIoU', 'mAcc', 'aAcc')),
        ('### CamVid, official test images', 'frozen-camvid', ('mIoU', 'mAcc', 'aAcc')),
        ('After 300 iterations:', 'frozen-camvid-300', ('mIoU', 'mAcc', 'aAcc')),
        ('### Magnetic tiles\n', 'frozen-magnetic_tile', ('mIoU', 'mAcc', 'aAcc')),
        ('### Steel, both sides with offsets', 'frozen-neu_seg-600', POINT),
        ('### CamVid, both sides with offsets', 'frozen-camvid', POINT),
        ('### Magnetic tiles, both sides with offsets', 'frozen-magnetic_tile', POINT),
        ('### Steel, beyond means', 'frozen-neu_seg-600', BEYOND),
        ('### CamVid, beyond means', 'frozen-camvid', BEYOND),
        ('### Magnetic tiles, beyond means', 'frozen-magnetic_tile', BEYOND),
    ],
)
def test_the_study_on_frozen_features(anchor, place, metrics):
    text = (RESULTS / 'study' / 'frozen.md').read_text()
    lines = text[text.index(anchor) :].partition('|:--')[2].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    rows = rows[: next(i for i, row in enumerate(rows) if len(row) == 1)]
    assert [row[0] for row in rows[1:]] and {row[0] for row in rows[1:]} == set(FROZEN)
    for k, metric in enumerate(metrics):
        gains = judged(place, metric)
        for row in rows[1:]:
            assert tuple(row[1 + 2 * k : 3 + 2 * k]) == gains[FROZEN[row[0]]], (row, metric)


PLACES = {
    'steel': 'frozen-neu_seg-600',
    'steel, 150 iterations': 'frozen-neu_seg',
    'steel, 2,400 iterations': 'frozen-neu_seg-2400',
    'CamVid': 'frozen-camvid',
    'CamVid, 300 iterations': 'frozen-camvid-300',
    'magnetic tiles': 'frozen-magnetic_tile',
}


def test_the_losses_among_themselves():
    rows = table_after(RESULTS / 'study' / 'frozen.md', '### The losses among themselves')
    assert {row['in'] for row in rows} == set(COLUMNS)
    for metric in COLUMNS:
        chosen = [row for row in rows if row['in'] == metric]
        for column, place in PLACES.items():
            comparison = compared(place)
            known = {base_of(loss): loss for loss in comparison.losses}
            differences = [
                Difference(COLUMNS[metric], known[FROZEN[row['loss']]], known[FROZEN[row['above']]])
                for row in chosen
            ]
            assert [row[column] for row in chosen] == texts(comparison, differences), metric


def test_weights_that_stay_turn_with_the_length():
    text = ' '.join((ROOT / 'README.md').read_text().split())
    short, long = (judged(f'frozen-neu_seg{n}', 'mIoU')['recall.py'][1] for n in ('', '-600'))
    assert f'{short} from cross-entropy after 150 iterations' in text
    assert f'{long.strip("*")} after 600' in text


def test_how_far_cross_entropy_has_come():
    means = [
        mean(values(studied(f'frozen-neu_seg-{length}'), 'CE', 'mIoU').values())
        for length in (600, 1200, 2400, 4800)
    ]
    said = '{:.1f} after 600 iterations, {:.1f} after 1,200, {:.1f} after 2,400 and {:.1f} after 4'
    text = ' '.join((RESULTS / 'study' / 'frozen.md').read_text().split())
    assert f'{said.format(*means)},800' in text


def test_what_offsets_gain_cross_entropy():
    gains = []
    for name in ('neu_seg-600', 'camvid', 'magnetic_tile'):
        metrics = [r['metrics'] for r in studied(f'frozen-{name}') if r['setup']['loss'] == 'CE']
        gained = [m['mIoU_with_offsets'] - m['mIoU_as_is'] for m in metrics]
        half = stats.t.ppf(0.975, len(gained) - 1) * stats.sem(gained)
        ends = mean(gained) - half, mean(gained) + half
        gains.append(f'{mean(gained):.1f} ({ends[0]:.1f} to {ends[1]:.1f})')
    text = ' '.join((ROOT / 'README.md').read_text().split())
    assert f'gain {gains[0]}, {gains[1]} and {gains[2]} points of mean IoU' in text


@pytest.mark.parametrize(
    ('anchor', 'name', 'columns'),
    [
        ('## Classification', 'digits-lt', SHOTS),
        ('### Solar cells', 'elpv', ALL_SHOTS),
        ('Each with a learning rate of its own', 'elpv-tuned', ALL_SHOTS),
    ],
)
def test_the_classifiers(anchor, name, columns):
    records = records_of(RESULTS / 'classification' / name)
    rows = table_after(RESULTS / 'README.md', anchor)
    labels = {r['setup']['loss'] for r in records}
    for row in rows:
        (label,) = (
            name for name in labels if paper_name(name) == row['method'].replace('focal', 'Focal')
        )
        for column, metric_name in columns.items():
            assert row[column] == interval(values(records, label, metric_name)), row
    assert len(rows) == len(labels)


def test_the_options_of_sdn_recall():
    classification = RESULTS / 'classification'
    records = records_of(classification / 'digits-lt', classification / 'sdn-recall-options')
    rows = table_after(ROOT / 'docs' / 'classification.md', '| SDN (Recall) |')
    assert len(rows) == 4
    for row in rows:
        momentum, smoothing = re.findall(r'=([\d.]+)', row['SDN (Recall)'])
        label = f'SDN (Recall momentum={float(momentum)} smoothing={float(smoothing)})'
        for column, metric_name in SHOTS.items():
            found = values(records, label, metric_name)
            assert sorted(found) == [0, 1, 2, 3, 4]
            assert row[column] == interval(found), row
