"""A comparison of classifiers from the plan to the record: names, groups, post-hoc ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_recall.comparison import benchmark
from mmseg_recall.comparison.describe import describe
from mmseg_recall.comparison.plan import Plan, plan_runs
from mmseg_recall.comparison.record import read_record, write_record
from mmseg_recall.comparison.tuning import tune
from mmseg_recall.literal_config import parse_config
from tests.report import records

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/classification'
METHODS = {
    'ce': 'CE',
    'focal': 'SoftmaxFocal',
    'focal_drw': 'WeightedFocal-DRW',
    'ldam': 'LDAM',
    'ldam_drw': 'LDAM-DRW',
    'bbn': 'BBN',
    'sdn_ce': 'SDN (CE)',
    'sdn_recall': 'SDN (Recall momentum=0.9 smoothing=1.0)',
    'tau_norm': 'tau-norm tau=0.7',
    'lws': 'LWS',
}


def plan(*methods: str, data: str = 'digits-lt', **options):
    configs = [str(CONFIGS / method / f'resnet_{data}.py') for method in methods]
    losses_dir = ROOT / 'configs/_base_/losses'
    return plan_runs(configs, seeds=[3], losses_dir=losses_dir, **options)


def test_methods_have_the_names_of_the_tables_and_are_compared() -> None:
    plans = plan(*METHODS)
    described = [describe(Config.fromstring(one.config, '.py')) for one in plans]
    assert [one['loss'] for one in described] == list(METHODS.values())
    assert {one['task'] for one in described} == {'classification'}
    trained = described[:8]
    assert len({one['key'] for one in trained}) == 1
    assert {one['schedule'] for one in trained} == {'40 epochs, batch 32'}
    assert plans[7].name == 'resnet_digits-lt_sdn-recall-momentum-0.9-smoothing-1.0_seed3'


def test_a_post_hoc_classifier_belongs_to_the_training_it_starts_from(tmp_path: Path) -> None:
    (ce,) = plan('ce')
    cfg = Config.fromstring(ce.config, '.py')
    path = tmp_path / 'ce_seed3' / 'epoch_40.pth'
    path.parent.mkdir()
    torch.save(dict(state_dict={}, meta=dict(cfg=cfg.pretty_text)), path)
    load_from = str(tmp_path / 'ce_seed{seed}' / 'epoch_40.pth')
    for one in plan('tau_norm', 'lws', cfg_options=dict(load_from=load_from)):
        post_hoc = Config.fromstring(one.config, '.py')
        assert post_hoc.load_from == str(path)
        trained, described = describe(cfg), describe(post_hoc)
        assert described['loss_key'] != trained['loss_key']
        own = {name: trained[name] for name in ('loss', 'loss_key')}
        assert {**described, **own} == trained
        post_hoc.param_scheduler = [dict(type='LinearLR')]
        assert describe(post_hoc)['loss_key'] != described['loss_key']


def test_each_method_gets_its_own_learning_rate_for_as_many_epochs(tmp_path: Path) -> None:
    best = {'LWS': 0.3, 'LDAM-DRW': 0.03}
    trials: list[Config] = []

    def train(plans: list[Plan], out: Path) -> dict[str, str]:
        for one in plans:
            cfg = parse_config(one.config, one.name)
            trials.append(cfg)
            lr, label = cfg.optim_wrapper.optimizer.lr, describe(cfg)['loss']
            made = records.record('CE', 0)
            made['metrics'] = {'top1': 50.0 - abs(lr - best.get(label, 0.1))}
            write_record(out / f'{one.name}.json', made)
        return {}

    methods = [method for method in METHODS if method != 'tau_norm']
    plans = plan(*methods, data='elpv')
    before = {one.name: parse_config(one.config, one.name) for one in plans}
    tuned = tune(plans, tmp_path / 'out', [0.03, 0.1, 0.3], 12, train)
    described = [describe(parse_config(one.config, one.name)) for one in tuned]
    for one, found in zip(tuned, described, strict=True):
        cfg, untuned = parse_config(one.config, one.name), before[one.name]
        assert cfg.optim_wrapper.optimizer.lr == best.get(found['loss'], 0.1)
        assert cfg.train_cfg == untuned.train_cfg
        assert found['tuning']['budget'] == 12 == sum(t['epochs'] for t in cfg.tuning.trials)
        assert {'top1'} < set(cfg.tuning.trials[0])
    assert len({found['key'] for found in described[:-1]}) == 1
    assert len(trials) == 5 * len(methods)
    for cfg in trials:
        epochs = cfg.train_cfg.max_epochs
        assert epochs in (2, 3)
        assert (cfg.param_scheduler.T_max, cfg.param_scheduler.end) == (epochs, epochs)
        assert cfg.test_dataloader.dataset.ann_file == 'val.npz'
        # Deferred by 6 of 8 epochs, and by that share of fewer.
        begins = [hook.begin for hook in cfg.get('custom_hooks') or [] if 'begin' in hook]
        assert begins in ([], [{2: 1, 3: 2}[epochs]])


def test_losses_cannot_be_put_into_a_classifier() -> None:
    with pytest.raises(ValueError, match=r'ce/resnet_digits-lt\.py is a config of mmpretrain'):
        plan('ce', losses=['recall'])


def test_an_untrained_classifier_without_a_checkpoint_is_a_failed_run(tmp_path: Path) -> None:
    (one,) = plan('tau_norm')
    failures = benchmark.run_all([one], tmp_path)
    assert 'trains nothing and names no checkpoint' in failures[one.name]


@pytest.mark.slow
def test_a_trained_and_a_post_hoc_classifier_are_recorded(tmp_path: Path) -> None:
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
    small = {'model.backbone.base_channels': 4, 'model.backbone.stem_channels': 4}
    small['model.head.in_channels'] = 16
    (ce,) = plan('ce', cfg_options={**options, **small})
    assert benchmark.run_all([ce], tmp_path) == {}
    load_from = str(tmp_path / 'resnet_digits-lt_ce_seed{seed}' / 'epoch_1.pth')
    (tau,) = plan('tau_norm', cfg_options={**small, 'load_from': load_from})
    assert benchmark.run_all([tau], tmp_path) == {}
    first, second = (read_record(tmp_path / f'{one.name}.json') for one in (ce, tau))
    for record in (first, second):
        assert record['status'] == 'complete'
        assert record['images'] == 500 == sum(record['areas']['label'])
        assert record['training_pixels'][0] == 124
        assert record['panel'] == []
        top1 = 100 * sum(record['areas']['intersect']) / 500
        assert record['metrics']['top1'] == pytest.approx(top1)
    assert first['setup']['key'] == second['setup']['key']
    assert second['seconds_per_iteration'] is None
    assert first['seconds_per_iteration'] > 0
