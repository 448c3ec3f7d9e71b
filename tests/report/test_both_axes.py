"""CE's post-hoc curve, and which losses win on both axes and beat that curve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report import render_report
from mmseg_recall.report.blocks import Claim
from mmseg_recall.report.load import Run, load_runs
from mmseg_recall.report.questions.both_axes import answer
from mmseg_recall.report.questions.post_hoc import points_of, post_hoc_curve, post_hoc_table
from mmseg_recall.report.summary import Comparison, compare

from .page import claims_of, plots_of, verdict_of
from .records import LOSSES, OTHERS, TAUS, record

SQRT = 'InverseFrequency exponent=0.5'
# Means over seeds of mIoU, mAcc and aAcc.
MEANS = {
    'CE': (44, 50, 88),
    'Recall': (50, 64, 85),
    'InverseFrequency': (51, 70, 80),
    SQRT: (55, 74, 87),
}
# Each tau adds to CE's mIoU and mAcc: the line is at (44, 50), (52, 70), (48, 80).
CURVE = {0.5: (8, 20), 1.0: (4, 30)}


def comparison(
    means: dict[str, tuple[float, ...]] | None = None,
    noise: float = 0.05,
    seeds: int = 3,
    curve: dict[float, tuple[float, float]] = CURVE,
) -> Comparison:
    """Three seeds differ by ``noise``, the standard deviation of every loss; SQRT the other way."""
    runs = []
    for label, values in {**MEANS, **(means or {})}.items():
        for seed in range(seeds):
            iou, accuracy, overall = (
                v + noise * (seed - (seeds - 1) / 2) * (-1 if label == SQRT else 1) for v in values
            )
            metrics = {'mIoU': iou, 'mAcc': accuracy, 'aAcc': overall}
            for tau, (more_iou, more_accuracy) in (curve if label == 'CE' else {}).items():
                metrics[f'tau={tau:g}/mIoU'] = iou + more_iou
                metrics[f'tau={tau:g}/mAcc'] = accuracy + more_accuracy
                metrics[f'tau={tau:g}/aAcc'] = overall - tau
            setup = record('CE', 0)['setup']
            runs.append(Run(f'{label}{seed}', label, seed, setup, (), {}, metrics))
    (one,) = compare(runs)
    return one


def claim(one: Comparison, text: str) -> Claim:
    (found,) = (claim for claim in claims_of(answer(one, [one])) if text in claim.text)
    return found


def test_the_curve_is_a_table_with_intervals_over_seeds() -> None:
    table = post_hoc_table(comparison(noise=1.0))
    assert table.columns == ('tau', 'mean accuracy', 'mean IoU', 'overall accuracy')
    # 4.303 / sqrt(3) = 2.48
    assert [[cell.text for cell in row] for row in table.rows] == [
        ['0', '50.0 (47.5 to 52.5)', '44.0 (41.5 to 46.5)', '88.0 (85.5 to 90.5)'],
        ['0.5', '70.0 (67.5 to 72.5)', '52.0 (49.5 to 54.5)', '87.5 (85.0 to 90.0)'],
        ['1', '80.0 (77.5 to 82.5)', '48.0 (45.5 to 50.5)', '87.0 (84.5 to 89.5)'],
    ]


def test_all_points_of_the_curve_are_of_the_same_runs() -> None:
    runs = comparison(seeds=2).runs
    older = comparison(curve={}).runs
    later = [run for run in comparison(seeds=4, curve={**CURVE, 2.0: (0, 0)}).runs if run.seed > 2]
    (one,) = compare([*runs, *(run for run in older if run.seed == 2), *later])
    curve = post_hoc_curve(one)
    assert list(curve) == [0, 0.5, 1]
    assert {value.seeds for values in curve.values() for value in values.values()} == {3}
    assert one.baseline.metric('mIoU').seeds == 4


def test_a_loss_above_both_references_wins() -> None:
    one = comparison()
    assert verdict_of(answer(one, [one])).verdict == f'Yes: {SQRT}'
    found = claim(comparison(), 'wins')
    assert found.outcome == 'supported'
    # sd 0.1 over 3 seeds: 4.303 * 0.1 / sqrt(3)
    assert found.evidence == (
        'mIoU 55.00: +5.00 (+4.75 to +5.25) against Recall, +4.00 (+3.75 to +4.25) against '
        'InverseFrequency. mAcc 74.00: +10.00 (+9.75 to +10.25) against Recall, +4.00 (+3.75 to '
        '+4.25) against InverseFrequency. aAcc 87.00: -1.00 (-1.25 to -0.75) against CE.'
    )


@pytest.mark.parametrize(
    ('values', 'outcome', 'verdict', 'decides'),
    [
        ((50, 74, 87), 'contradicted', 'No loss here does', 'mIoU: .*InverseFrequency 51.00'),
        ((55, 69, 87), 'contradicted', 'No loss here does', 'mAcc: .*InverseFrequency 70.00'),
        ((55, 74, 84), 'contradicted', 'No loss here does', 'aAcc: .*CE 88.00'),
        ((51.1, 74, 87), 'not settled', 'Not settled', 'mIoU: .*To settle it: about .* more seed'),
        ((55, 74, 86.5), 'not settled', 'Not settled', 'aAcc: .*To settle it: more than 30 seeds'),
    ],
)
def test_what_decides_is_named(values, outcome: str, verdict: str, decides: str) -> None:
    one = comparison({SQRT: values})
    assert verdict_of(answer(one, [one])).verdict.startswith(verdict)
    assert claim(one, 'wins').outcome == outcome
    assert re.search(f'What decides is {decides}', claim(one, 'wins').evidence)


def test_as_many_seeds_as_differ_little_decide() -> None:
    assert claim(comparison(noise=2.0), 'wins').outcome == 'not settled'
    assert claim(comparison(noise=2.0, seeds=8), 'wins').outcome == 'not settled'
    assert claim(comparison(seeds=2), 'wins').outcome == 'not settled'
    assert claim(comparison(noise=0.01, seeds=2), 'wins').outcome == 'supported'


@pytest.mark.parametrize(
    ('values', 'outcome', 'numbers'),
    [
        ((55, 74, 87), 'supported', 'above the curve: +4.60'),
        ((48, 60, 87), 'not settled', 'above the curve: +0.00 (-0.'),
        ((47, 60, 87), 'contradicted', 'above the curve: -1.00'),
        ((53, 81, 87), 'supported', 'above the curve: +1.00'),
        ((47, 81, 87), 'not comparable', 'above the curve .* mAcc 80.00 with mIoU 48.00'),
        ((47, 49, 87), 'not comparable', 'below the curve .* mAcc 50.00 with mIoU 44.00'),
    ],
)
def test_the_curve_has_to_be_beaten(values, outcome: str, numbers: str) -> None:
    one = comparison({SQRT: values})
    found = claim(one, "not below CE's")
    assert found.outcome == outcome
    assert all(part in found.evidence for part in numbers.split(' .* '))
    named = {'supported': 'Not below the curve: ', 'not comparable': 'of mean accuracy: '}
    in_words = ' '.join(verdict_of(answer(one, [one])).sentences)
    shown = outcome in named
    assert (f'{named.get(outcome, "none. ")}{SQRT}' in in_words) == shown


def test_where_the_curve_turns_back_its_upper_branch_counts() -> None:
    curve = {0.5: (8, 20), 1.0: (2, 10)}
    upper = claim(comparison({SQRT: (55, 70, 87)}, noise=0, curve=curve), 'not below')
    assert 'curve: +3.00' in upper.evidence
    lower = claim(comparison({SQRT: (55, 60, 87)}, noise=0, curve=curve), 'not below')
    assert 'curve: +7.00' in lower.evidence


def test_one_seed_settles_nothing() -> None:
    found = claims_of(answer(comparison(seeds=1), []))
    assert {claim.outcome for claim in found} == {'not settled'}
    assert all('post-hoc curve' in claim.text for claim in found)
    assert answer(comparison(seeds=1, curve={}), []) is None
    runs = comparison({'Dice': (50, 70, 87)}).runs
    (one,) = compare([run for run in runs if run.loss != SQRT or run.seed == 0])
    assert claim(one, f'{SQRT} wins').outcome == 'not settled'
    assert 'two more seeds' in claim(one, f'{SQRT} wins').evidence


def test_without_a_curve_the_page_says_so() -> None:
    found = answer(comparison(curve={}), [])
    assert len(claims_of(found)) == 1
    assert verdict_of(found).sentences[-1] == 'CE was not tested with post-hoc logit adjustment.'
    assert post_hoc_table(comparison(curve={})) is None


@pytest.mark.parametrize('missing', ['CE', 'Recall', 'InverseFrequency', SQRT])
def test_who_wins_is_asked_only_where_it_can_be_answered(missing: str) -> None:
    means = {'OHEM': (44, 50, 88)}
    runs = [run for run in comparison(means, curve={}).runs if run.loss != missing]
    assert answer(compare(runs)[0], []) is None


@pytest.mark.parametrize('missing', ['Recall', 'InverseFrequency', SQRT])
def test_what_is_free_has_to_be_beaten_whatever_else_was_run(missing: str) -> None:
    runs = [run for run in comparison({'OHEM': (44, 50, 88)}).runs if run.loss != missing]
    found = answer(compare(runs)[0], [])
    assert found.title == 'Does a loss beat what is free?'
    claims = claims_of(found)
    assert {claim.text.partition(' is not below')[0] for claim in claims} == (
        {'Recall', 'InverseFrequency', SQRT, 'OHEM'} - {missing}
    )
    above = {c.text.partition(' is not below')[0] for c in claims if c.outcome == 'supported'}
    assert above == {'Recall', SQRT} - {missing}
    assert all(label in verdict_of(found).verdict for label in above)


def render(folder: Path, taus: tuple[float, ...], losses: tuple[str, ...]) -> dict[str, str]:
    for loss in losses:
        for seed in (0, 1):
            one = record(loss, seed, panel=False, taus=taus)
            write_record(folder / f'{one["name"]}.json', one)
    assert render_report([folder], folder / 'out', '2026-01-01') == []
    files = (folder / 'out' / name for name in ('report.html', 'README.md'))
    return {path.name: path.read_text() for path in files}


@pytest.mark.slow
def test_both_pages_have_the_curve_and_the_question(tmp_path: Path) -> None:
    pages = render(tmp_path, TAUS, (*LOSSES, *OTHERS))
    runs, _ = load_runs([tmp_path])
    (one,) = compare(runs)
    found = answer(one, [one])
    assert len(claims_of(found)) == 2 * (len(LOSSES) + len(OTHERS) - 3)
    for text in pages.values():
        text = text.replace('&#39;', "'").replace('\\', '')
        for words in ('Post-hoc logit adjustment of CE', 'Does a loss win on both axes?'):
            assert words in text
        assert verdict_of(found).verdict in text
        assert all(claim.evidence in text for claim in claims_of(found))
    figure = (tmp_path / 'out' / 'figures' / 'scatter-1.svg').read_text()
    assert 'CE, logits adjusted' in figure
    first, last = (points_of(post_hoc_curve(one))[i] for i in (0, -1))
    assert f'{first[1]:.1f} and {first[0]:.1f} to {last[1]:.1f} and {last[0]:.1f}' in (
        plots_of(one)['scatter'].alt
    )


def test_neither_page_has_them_without_the_curve_and_a_new_loss(tmp_path: Path) -> None:
    for text in render(tmp_path, (), tuple(loss for loss in LOSSES if loss != 'Dice')).values():
        for words in ('Post-hoc', 'post hoc', 'both axes'):
            assert words not in text
    assert 'adjusted' not in (tmp_path / 'out' / 'figures' / 'scatter-1.svg').read_text()
