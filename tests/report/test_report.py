"""What the report says, and that it says it the same way each time."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from mmseg_recall.out_folder import MANIFEST
from mmseg_recall.report import render_report
from mmseg_recall.report.judge import Difference, judge, maybe_best
from mmseg_recall.report.load import Run, load_runs
from mmseg_recall.report.paper import PAPER_NAMES, paper_table, paper_tables
from mmseg_recall.report.questions.claims import answer
from mmseg_recall.report.questions.classes import class_table
from mmseg_recall.report.questions.frequency import answer as frequency
from mmseg_recall.report.questions.imbalance import diagnose, overall_table
from mmseg_recall.report.summary import Comparison, compare
from mmseg_recall.statistics import holm

from .page import claims_of
from .records import CLASSES, LOSSES, write_records
from .work_dirs import work_dir

DATE = '2026-11-23'


def comparison(folder: Path, **kwargs) -> Comparison:
    runs, problems = load_runs([write_records(folder, **kwargs)])
    assert problems == []
    (one,) = compare(runs)
    return one


@pytest.fixture(scope='module')
def records(tmp_path_factory) -> Path:
    return write_records(tmp_path_factory.mktemp('records'))


@pytest.fixture(scope='module')
def report(records, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('report')
    assert render_report([records], out, DATE) == []
    return out


def files(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob('*') if p.is_file() and p.name != MANIFEST]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_rendering_again_gives_the_same_bytes_apart_from_the_date(records, report, tmp_path):
    render_report([records], tmp_path, '2031-01-01')
    again, first = files(tmp_path), files(report)
    assert again.keys() == first.keys()
    for name, content in first.items():
        assert again[name].replace(b'2031-01-01', DATE.encode()) == content, name
    dated = {name for name, content in first.items() if DATE.encode() in content}
    assert dated == {'report.html', 'README.md'}


@pytest.mark.slow
def test_figures_of_a_comparison_that_is_gone_go_too(records, report, tmp_path):
    write_records(tmp_path / 'more', losses=('CE', 'Recall'), seeds=(0,), dataset='Cityscapes')
    out = tmp_path / 'out'
    render_report([records, tmp_path / 'more'], out, DATE)
    assert (out / 'figures' / 'scatter-2.svg').exists()
    (out / 'figures' / 'mine-2.svg').touch()
    render_report([records], out, DATE)
    (out / 'figures' / 'mine-2.svg').unlink()
    assert files(out) == files(report)


def test_a_folder_of_somebody_is_refused_before_the_runs_are_read(tmp_path):
    (tmp_path / 'README.md').write_text('my paper')
    with pytest.raises(FileExistsError, match=r'README\.md, which report did not make'):
        render_report([tmp_path / 'nowhere'], tmp_path, DATE)
    assert list(tmp_path.iterdir()) == [tmp_path / 'README.md']


class Page(HTMLParser):
    """Ids, links and descriptions of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.undescribed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        if 'id' in values:
            self.ids.append(values['id'])
        self.links += [values[k] for k in ('src', 'href', 'xlink:href') if k in values]
        needed = {'img': 'alt', 'svg': 'aria-label'}.get(tag)
        if needed and not values.get(needed):
            self.undescribed.append(tag)


def test_the_page_stands_alone_and_is_described(report):
    page = Page()
    text = (report / 'report.html').read_text()
    page.feed(text)
    assert page.links and all(link.startswith(('#', 'data:image/')) for link in page.links)
    assert 'url(http' not in text and '@import' not in text
    assert page.undescribed == []
    assert text.count('<svg') == 5
    assert len(page.ids) == len(set(page.ids))
    anchors = {link[1:] for link in page.links if link.startswith('#')}
    assert anchors <= set(page.ids)
    assert 'prefers-color-scheme: dark' in text


def test_markdown_shows_its_figures(report):
    shown = re.findall(r'!\[[^]]+\]\((figures/[^)]+)\)', (report / 'README.md').read_text())
    assert len(shown) == 6
    assert {str(p.relative_to(report)) for p in (report / 'figures').iterdir()} == set(shown)


def test_csv_has_every_run_and_class(report):
    rows = list(csv.DictReader((report / 'classes.csv').open()))
    assert len(rows) == len(LOSSES) * 3 * len(CLASSES)
    runs = list(csv.DictReader((report / 'runs.csv').open()))
    assert len(runs) == len(LOSSES) * 3
    recall = [r for r in rows if r['loss'] == 'Recall' and r['seed'] == '0']
    (run,) = (r for r in runs if r['loss'] == 'Recall' and r['seed'] == '0')
    mean = np.mean([float(r['Acc']) for r in recall])
    assert mean == pytest.approx(float(run['mAcc']), abs=1e-3)


def test_model_zoo_files(report):
    index = yaml.safe_load((report / 'model-index.yml').read_text())
    (name,) = index['Import']
    content = yaml.safe_load((report / name).read_text())
    assert [c['Name'] for c in content['Collections']] == ['RecallLoss']
    models = {model['Name']: model for model in content['Models']}
    assert len(models) == len(LOSSES)
    model = models['model_recall']
    assert model['Results']['Dataset'] == 'CamVid'
    assert model['Config'] == 'configs/recall/model.py'
    assert model['Metadata']['Seeds'] == [0, 1, 2]
    runs = list(csv.DictReader((report / 'runs.csv').open()))
    miou = np.mean([float(r['mIoU']) for r in runs if r['loss'] == 'Recall'])
    assert model['Results']['Metrics']['mIoU'] == pytest.approx(miou, abs=0.006)


def test_table_has_mean_interval_best_and_minority(tmp_path):
    one = comparison(tmp_path, losses=('CE', 'Recall', 'SoftIoU'))
    table = class_table(one, 'IoU', 'IoU')
    assert table.columns == ('class', 'share of pixels', 'CE', 'Recall', 'SoftIoU')
    rows = {row[0].text: row for row in table.rows}
    values = [run.per_class['IoU'][CLASSES.index('pole')] for run in one.loss('Recall').runs]
    cell = rows['pole †'][3]
    # Student's 4.303 with 2 degrees of freedom.
    half = 4.3027 * np.std(values, ddof=1) / np.sqrt(3)
    low, high = np.mean(values) - half, np.mean(values) + half
    assert cell.text == f'{np.mean(values):.1f} ({max(low, 0):.1f} to {high:.1f})'
    assert cell.mark == 'best'
    baseline = one.baseline.class_means('IoU')
    assert {name for name in rows if name.endswith('†') and 'average' not in name} == {
        f'{name} †' for name, value in zip(CLASSES, baseline, strict=True) if value < 80
    }
    minority = [i for i, value in enumerate(baseline) if value < 80]
    mean = np.mean([run.per_class['IoU'][minority].mean() for run in one.loss('CE').runs])
    assert rows['average †'][2].sort == pytest.approx(mean)
    overall = overall_table(one)
    assert overall.columns[:4] == ('loss', 'seeds', 'mean accuracy', 'mean IoU')
    assert [row[1].text for row in overall.rows] == ['3', '3', '3']
    assert all(
        re.fullmatch(r'[\d.]+ \([\d.]+ to [\d.]+\)( ≈)?', c.text) for c in overall.rows[0][2:]
    )


def test_what_may_be_the_best_is_marked(tmp_path):
    one = comparison(tmp_path, losses=('CE', 'Recall', 'SoftmaxFocal'), noise=0.001)
    twin = [
        replace(run, loss='Twin', metrics={k: v - 0.1 * run.seed for k, v in run.metrics.items()})
        for run in one.loss('Recall').runs
    ]
    (one,) = compare([*one.runs, *twin])
    assert maybe_best(one, one.losses, 'mIoU') == {'Recall', 'Twin'}
    rows = {row[0].text: row[3] for row in overall_table(one).rows}
    assert rows['Recall'].mark == 'best' and rows['Twin'].text.endswith(' ≈')
    assert not rows['CE'].text.endswith('≈')


def test_columns_that_are_equal_by_construction_are_shown_once(tmp_path):
    one = comparison(tmp_path, losses=('CE', 'Recall'))
    assert 'mIoU^C' in overall_table(one).columns
    same = [
        replace(run, metrics={**run.metrics, 'mIoU_C': run.metrics['mIoU_I']}) for run in one.runs
    ]
    table = overall_table(compare(same)[0])
    assert 'mIoU^I' in table.columns and 'mIoU^C' not in table.columns
    assert 'mIoU^C is mIoU^I: each test image has every class.' in table.note


def test_rare_common_and_frequent_classes_have_means_with_intervals(tmp_path):
    one = comparison(tmp_path, losses=('CE', 'Recall'))
    (table,) = frequency(one, []).blocks
    assert table.columns[:4] == ('loss', 'rare accuracy', 'common accuracy', 'frequent accuracy')
    assert 'rare: below 1%; frequent: from 10%' in table.note
    assert 'rare pedestrian, bicycle, pole; common car, fence;' in table.note
    values = np.mean([run.per_class['Acc'][6:].mean() for run in one.baseline.runs])
    assert table.rows[0][1].text.startswith(f'{values:.1f} (')


def test_the_papers_orderings_hold_on_records_made_so(tmp_path):
    one = comparison(tmp_path, noise=0.001)
    claims = claims_of(answer(one, []))
    assert {claim.text: claim.outcome for claim in claims} == dict.fromkeys(
        [claim.text for claim in claims], 'supported'
    )
    assert len(claims) == 9


def change(one: Comparison, label: str, **metrics: float) -> Comparison:
    """The same comparison with metrics of one loss shifted."""

    def shifted(run: Run) -> Run:
        if run.loss != label:
            return run
        return replace(
            run, metrics={**run.metrics, **{k: run.metrics[k] + v for k, v in metrics.items()}}
        )

    return compare([shifted(run) for run in one.runs])[0]


@pytest.mark.parametrize(
    ('label', 'shift', 'refuted'),
    [
        ('ClassBalanced', {'mAcc': -40}, ['have the highest mean accuracy']),
        ('ClassBalanced', {'mIoU': 40}, ['balanced losses have the lowest']),
        ('Recall', {'mIoU': -12}, ['at most 1 point', 'lowest mean IoU']),
        (
            'SoftmaxFocal',
            {'mAcc': 3},
            ['Focal loss is within 1 point of cross-entropy in mean accuracy'],
        ),
        ('OHEM', {'mIoU': 5}, ['OHEM is below cross-entropy in mean IoU']),
    ],
)
def test_a_claim_that_does_not_hold_is_contradicted(tmp_path, label, shift, refuted):
    one = comparison(tmp_path, noise=0.001)
    claims = claims_of(answer(change(one, label, **shift), []))
    found = [claim.text for claim in claims if claim.outcome == 'contradicted']
    assert len(found) == len(refuted)
    assert all(any(words in text for text in found) for words in refuted)


def test_a_gain_within_its_interval_is_not_settled(tmp_path):
    one = comparison(tmp_path, losses=('CE', 'Recall'), noise=0.0)
    gap = one.loss('Recall').metric('mAcc').mean - one.baseline.metric('mAcc').mean
    runs = [
        replace(run, metrics={**run.metrics, 'mAcc': run.metrics['mAcc'] + (run.seed - 1) * gap})
        if run.loss == 'CE'
        else run
        for run in one.runs
    ]
    claim = claims_of(answer(compare(runs)[0], []))[3]
    assert claim.outcome == 'not settled'
    # The differences of the seeds are 2 gap, gap and 0: Student's 4.303 with 2 degrees of freedom.
    half = 4.3027 * gap / np.sqrt(3)
    assert f'({gap - half:+.2f} to {gap + half:+.2f}), 3 seeds' in claim.evidence
    assert 'To settle it: about' in claim.evidence


def test_claims_about_one_metric_are_one_family(tmp_path):
    one = comparison(tmp_path, losses=('CE', 'Recall', 'SoftmaxFocal', 'OHEM'), noise=0.02)
    base, others = one.baseline, [loss for loss in one.losses if loss.label != 'CE']
    claims = [[Difference(m, loss, base)] for m in ('mAcc', 'mIoU') for loss in others]
    judged = judge(one, claims)
    for metric in ('mAcc', 'mIoU'):
        alone = [one.difference(loss, base, metric).p_value() for loss in others]
        found = [j for j in judged if j.difference.metric == metric]
        assert [j.p for j in found] == holm(alone)
        assert {j.family for j in found} == {3}


def test_one_seed_and_missing_losses_settle_nothing(tmp_path):
    claims = claims_of(answer(comparison(tmp_path, losses=('CE', 'Recall'), seeds=(0,)), []))
    outcomes = [claim.outcome for claim in claims]
    assert outcomes[0] == outcomes[1] == 'not tested'
    assert outcomes[3] == 'not settled'
    assert 'two more seeds' in claims[3].evidence


def with_accuracy(one: Comparison, overall: float, per_class: list[float]) -> Comparison:
    def changed(run: Run) -> Run:
        metrics = {**run.metrics, 'aAcc': overall, 'mAcc': float(np.mean(per_class))}
        return replace(
            run, metrics=metrics, per_class={**run.per_class, 'Acc': np.array(per_class)}
        )

    return compare([changed(run) for run in one.runs])[0]


@pytest.mark.parametrize(
    ('overall', 'per_class', 'verdict'),
    [
        (90, [98, 97, 96, 90, 85, 60, 40, 20, 10], 'Yes'),
        (97, [98, 97, 96, 95, 95, 92, 91, 90, 90], 'Too easy'),
        (70, [80, 75, 70, 60, 50, 30, 20, 10, 5], 'Too difficult'),
        (85, [90, 88, 86, 84, 82, 80, 78, 77, 75], 'No'),
        (85, [20, 95, 95, 20, 10, 95, 90, 95, 92], 'Difficult classes rather than rare'),
    ],
)
def test_diagnosis(tmp_path, overall, per_class, verdict):
    one = comparison(tmp_path, losses=('CE', 'Recall'), seeds=(0,))
    diagnosis = diagnose(with_accuracy(one, overall, per_class))
    assert diagnosis.verdict.startswith(verdict)
    text = ' '.join(diagnosis.sentences)
    assert f'overall accuracy is {overall:.1f}' in text
    assert f'{overall - np.mean(per_class):.1f} points' in text


def test_diagnosis_names_the_classes_and_what_to_try(tmp_path):
    diagnosis = diagnose(comparison(tmp_path, losses=('CE', 'Recall', 'ClassBalanced')))
    text = ' '.join(diagnosis.sentences)
    assert re.search(r'pole [\d.]+ \(0\.3% of pixels\), bicycle', text)
    # ClassBalanced gains more accuracy, but costs IoU.
    assert 'Try Recall first' in text


def test_diagnosis_without_a_baseline_says_so(tmp_path):
    assert diagnose(comparison(tmp_path, losses=('Recall',))).verdict.startswith('Unknown')


def test_the_papers_averages_agree_where_its_rows_are_whole():
    tables = paper_tables()
    synthia = tables['SynthiaSeqs']
    for metric in ('Acc', 'IoU'):
        for name, row in synthia.values[metric].items():
            mean = np.mean([row[c] for c in synthia.minority])
            assert row['ave.'] == pytest.approx(mean, abs=0.03), (metric, name)
    cityscapes = tables['Cityscapes']
    assert 'light' not in cityscapes.values['Acc']['CE']
    lost = [(3, 'CE'), (3, 'SoftIOU'), (4, 'Balanced')]
    for count, name in lost:
        assert len(cityscapes.values['IoU'][name]) == 9 - count
    assert set(synthia.values['Acc']) <= set(PAPER_NAMES.values())


def test_the_papers_numbers_stand_beside_ours_only_on_its_data_sets(tmp_path):
    one = comparison(tmp_path / 'a', losses=('CE', 'Recall'), seeds=(0,), dataset='SynthiaSeqs')
    assert paper_table(one).title.startswith('Table 2')
    render_report([tmp_path / 'a'], tmp_path / 'out', DATE)
    text = (tmp_path / 'out' / 'report.html').read_text()
    assert 'Recall: paper' in text and '<td data-sort="87.37" class="paper">87.37</td>' in text
    other = comparison(tmp_path / 'b', losses=('CE',), seeds=(0,))
    assert paper_table(other) is None
    mini = replace(one.runs[0], setup={**one.setup, 'data_root': 'synthia-mini'})
    assert paper_table(compare([mini])[0]) is None


def test_work_directories_of_stock_mmseg_render(tmp_path):
    work_dir(tmp_path / 'runs' / 'ce')
    work_dir(tmp_path / 'runs' / 'dice', loss='DiceLoss')
    work_dir(tmp_path / 'runs' / 'lovasz', loss='LovaszLoss', tested=True)
    (tmp_path / 'runs' / 'empty').mkdir()
    (problem,) = render_report([tmp_path / 'runs'], tmp_path / 'out', DATE)
    assert 'empty work directory' in problem
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert 'empty work directory' in page
    for text in ('Dice', 'Lovasz', 'boat', 'last validation (iteration 200)'):
        assert text in page


def test_nothing_to_report_is_an_error_that_says_why(tmp_path):
    with pytest.raises(ValueError, match='No run to report on'):
        render_report([tmp_path], tmp_path / 'out', DATE)


def test_comparisons_that_read_the_same_are_told_apart_by_their_configs(records):
    runs, _ = load_runs([records])
    (one,) = compare(runs)
    others = [
        replace(run, setup={**run.setup, 'key': 'other'}, config_file='configs/ce/holdout.py')
        for run in runs
    ]
    assert {c.title for c in compare([*runs, *others])} == {
        f'{one.title} (model)',
        f'{one.title} (holdout)',
    }
