"""Successive halving: the same budget for every loss, chosen on validation images, all recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_recall.comparison import plan_runs, tune
from mmseg_recall.comparison.describe import describe
from mmseg_recall.comparison.plan import Plan
from mmseg_recall.comparison.record import failed_record, write_record
from mmseg_recall.comparison.tuning import rounds
from mmseg_recall.literal_config import parse_config
from tests.report.records import record
from tests.tools.run import ROOT

from .test_real_runs import CONFIG

SCHEDULE = "\nparam_scheduler = [dict(type='PolyLR', begin=0, end=4, by_epoch=False)]\n"
RATES = [1e-3, 1e-2, 1e-1]
BEST = {'Recall': 1e-2, 'CE': 1e-1}


@pytest.fixture
def plans(tmp_path) -> list[Plan]:
    path = tmp_path / 'fcn.py'
    path.write_text(CONFIG.format(root='data') + SCHEDULE)
    losses = ROOT / 'configs/_base_/losses'
    return plan_runs([str(path)], ['ce', 'recall'], [0, 1], losses_dir=losses)


class Runs:
    """Stands in for the runner: a learning rate is the better the nearer it is to the best."""

    def __init__(self, failing: tuple[float, ...] = ()) -> None:
        self.failing = failing
        self.configs: list = []

    def __call__(self, plans: list[Plan], out: Path) -> dict[str, str]:
        for plan in plans:
            cfg = parse_config(plan.config, plan.config_file)
            self.configs.append(cfg)
            lr, label = cfg.optim_wrapper.optimizer.lr, describe(cfg)['loss']
            made = record('CE', 0)
            made['metrics']['mIoU'] = 50.0 if lr == BEST[label] else 40.0 - abs(lr - BEST[label])
            if lr in self.failing:
                made = failed_record(plan, 'training', None, 'diverged')
            write_record(out / f'{plan.name}.json', made)
        return {}


def test_each_loss_gets_its_own_learning_rate_for_the_same_budget(plans, tmp_path):
    runs = Runs()
    tuned = tune(plans, tmp_path / 'out', RATES, 120, runs)
    assert [plan.name for plan in tuned] == [plan.name for plan in plans]
    spent: dict[str, int] = {}
    for plan in tuned:
        cfg = parse_config(plan.config, plan.config_file)
        label = describe(cfg)['loss']
        assert cfg.optim_wrapper.optimizer.lr == BEST[label]
        assert cfg.train_cfg.max_iters == 4  # the run itself is as long as before
        tuning = describe(cfg)['tuning']
        assert tuning['budget'] == 120 and tuning['learning_rates'] == RATES
        assert len(tuning['trials']) == 5
        spent[label] = sum(trial['iterations'] for trial in tuning['trials'])
    assert spent == {'CE': 120, 'Recall': 120}


def test_a_trial_is_shorter_with_its_schedule_and_scored_on_validation_images(plans, tmp_path):
    runs = Runs()
    plans = [
        plan._replace(config=plan.config.replace("img_path='images'", "img_path='val'", 1))
        for plan in plans[:1]
    ]
    tune(plans, tmp_path / 'out', RATES, 120, runs)
    lengths = [(20, 3), (30, 2)]
    assert [cfg.train_cfg.max_iters for cfg in runs.configs] == [
        length for length, number in lengths for _ in range(number)
    ]
    val = parse_config(plans[0].config, 'fcn.py').val_dataloader
    for cfg in runs.configs:
        assert cfg.param_scheduler[0].end == cfg.train_cfg.max_iters
        assert cfg.test_dataloader == val and cfg.val_dataloader is None


def test_tuned_losses_are_compared_with_each_other(plans, tmp_path):
    tuned = tune(plans, tmp_path / 'out', RATES, 120, Runs())
    found = [describe(parse_config(plan.config, 'fcn.py')) for plan in tuned]
    assert len({one['key'] for one in found}) == 1
    assert len({one['loss_key'] for one in found}) == 2
    untuned = describe(parse_config(plans[0].config, 'fcn.py'))
    assert untuned['tuning'] is None and untuned['key'] != found[0]['key']


def test_a_learning_rate_that_diverges_is_not_taken(plans, tmp_path):
    tuned = tune(plans[:1], tmp_path / 'out', RATES, 120, Runs(failing=(BEST['CE'],)))
    cfg = parse_config(tuned[0].config, 'fcn.py')
    assert cfg.optim_wrapper.optimizer.lr == 1e-2
    assert [t['mIoU'] for t in cfg.tuning.trials if t['lr'] == BEST['CE']] == [None]


def test_a_loss_that_always_diverges_is_named(plans, tmp_path):
    with pytest.raises(ValueError, match=r'fcn.py, CE: every trial failed; .*diverged'):
        tune(plans, tmp_path / 'out', RATES, 120, Runs(failing=tuple(RATES)))


@pytest.mark.parametrize(
    ('candidates', 'budget', 'expected'),
    [
        (2, 100, [(2, 50)]),
        (3, 120, [(3, 20), (2, 30)]),
        (4, 600, [(4, 75), (2, 150)]),
        (9, 400, [(9, 11), (5, 20), (3, 33), (2, 50)]),
        (3, 6, [(3, 1), (2, 1)]),
    ],
)
def test_rounds_share_the_budget(candidates, budget, expected):
    assert rounds(candidates, budget) == expected


@pytest.mark.parametrize(
    ('rates', 'budget', 'message'),
    [
        (RATES, 5, 'budget of 5 is too small for one halving of 3 .* need 6'),
        (RATES, 0, 'too small'),
        ([1e-3], 100, 'two or more'),
        ([1e-3, 1e-3], 100, 'two or more'),
    ],
)
def test_what_cannot_be_halved_is_refused(plans, tmp_path, rates, budget, message):
    with pytest.raises(ValueError, match=message):
        tune(plans, tmp_path / 'out', rates, budget, Runs())


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('val_dataloader', 'None', 'fcn.py: .*no val_dataloader'),
        ('optim_wrapper', 'dict()', 'fcn.py: .*no lr to tune'),
        ('train_cfg', 'dict()', 'fcn.py: .*train_cfg.max_iters or max_epochs'),
    ],
)
def test_a_config_that_cannot_be_tuned_is_named(plans, tmp_path, key, value, message):
    plan = plans[0]._replace(config=f'{plans[0].config}\n{key} = {value}\n')
    with pytest.raises(ValueError, match=message):
        tune([plan], tmp_path / 'out', RATES, 120, Runs())
