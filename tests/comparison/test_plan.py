"""Which runs are planned, and what their configs hold."""

import os
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_recall.comparison.describe import describe, loss_label
from mmseg_recall.comparison.plan import plan_runs, run_name
from mmseg_recall.config import type_name

ROOT = Path(__file__).parents[2]
LOSSES = ROOT / 'configs' / '_base_' / 'losses'
CONFIG = str(ROOT / 'configs' / 'ce' / 'deeplabv3_r18_camvid.py')


def plan(*args, **kwargs):
    return plan_runs(*args, losses_dir=LOSSES, **kwargs)


def parsed(one) -> Config:
    return Config.fromstring(one.config, '.py')


def test_every_loss_of_a_seed_comes_before_the_next_seed():
    plans = plan([CONFIG], ['recall', 'ce'], [3, 1])
    assert [one.name for one in plans] == [
        'deeplabv3_r18_camvid_recall_seed3',
        'deeplabv3_r18_camvid_ce_seed3',
        'deeplabv3_r18_camvid_recall_seed1',
        'deeplabv3_r18_camvid_ce_seed1',
    ]
    assert [parsed(one).randomness.seed for one in plans] == [3, 3, 1, 1]
    assert [parsed(one).imbalance_loss.type for one in plans[:2]] == [
        'RecallLoss',
        'CrossEntropyLoss',
    ]


def test_configs_keep_their_own_loss():
    configs = [str(ROOT / 'configs' / loss / 'deeplabv3_r18_camvid.py') for loss in ('ce', 'focal')]
    labels = [loss_label(parsed(one)) for one in plan(configs)]
    assert labels == ['CE', 'SoftmaxFocal']


def test_a_registered_loss_and_a_file_take_part_with_no_code(tmp_path):
    base = tmp_path / 'tversky.py'
    base.write_text("imbalance_loss = dict(type='TverskyLoss', alpha=0.7)\n")
    dice, tversky = plan([CONFIG], ['DiceLoss', str(base)])
    assert parsed(dice).imbalance_loss == dict(type='DiceLoss')
    assert tversky.name == 'deeplabv3_r18_camvid_tversky-alpha-0.7_seed0'


def test_the_config_of_a_run_is_whole_and_names_no_machine():
    cfg = parsed(*plan([CONFIG], cfg_options={'train_cfg.max_iters': 7}))
    assert cfg.train_cfg.max_iters == 7
    assert cfg.test_evaluator.type == 'PerClassIoUMetric'
    assert cfg.val_evaluator.type == 'IoUMetric'
    assert [hook.type for hook in cfg.custom_hooks][-1] == 'ClassWeightHook'
    assert 'mmseg_recall' in cfg.custom_imports.imports
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == 2
    assert str(ROOT) not in cfg.dump()


def test_runs_that_differ_in_loss_and_seed_only_have_the_same_key():
    plans = plan([CONFIG], ['recall', 'DiceLoss'], [0, 1])
    more = plan([CONFIG], ['recall'], cfg_options={'train_cfg.max_iters': 7})
    described = [describe(parsed(one)) for one in [*plans, *more]]
    keys = [one['key'] for one in described]
    assert len(set(keys[:4])) == 1
    assert keys[4] != keys[0]
    # A longer training is of the same family, another batch size is not.
    other = plan([CONFIG], ['recall'], cfg_options={'train_dataloader.batch_size': 3})
    families = [one['family'] for one in [*described, *map(describe, map(parsed, other))]]
    assert len(set(families[:5])) == 1
    assert families[5] != families[0]


@pytest.mark.parametrize(
    ('loss', 'label'),
    [
        (dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4), 'CE'),
        (dict(type='CrossEntropyLoss', use_sigmoid=True), 'BinaryCE'),
        (dict(type='SoftmaxFocalLoss', gamma=2.0), 'SoftmaxFocal gamma=2.0'),
        (dict(type='InverseFrequencyLoss', class_counts=[1, 2]), 'InverseFrequency'),
        ([dict(type='CrossEntropyLoss'), dict(type='DiceLoss')], 'CE + Dice'),
    ],
)
def test_label(loss, label):
    in_head = dict(model=dict(decode_head=dict(loss_decode=loss)))
    assert loss_label(Config(in_head)) == label
    assert loss_label(Config(dict(**in_head, imbalance_loss=dict(type='RecallLoss')))) == 'Recall'


def test_an_unknown_loss_is_named_with_what_there_is():
    with pytest.raises(ValueError, match=r"No loss 'recal'.*focal.*recall"):
        plan([CONFIG], ['recal'])


def test_two_runs_of_one_name_are_refused(tmp_path):
    base = tmp_path / 'other.py'
    base.write_text("imbalance_loss = dict(type='RecallLoss', loss_name='loss_other')\n")
    with pytest.raises(ValueError, match='Two runs would have the name'):
        plan([CONFIG], ['recall', str(base)])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'test_evaluator.type': 'CityscapesMetric'}, 'no IoUMetric'),
        ({'default_hooks.checkpoint': None}, 'no checkpoint hook'),
    ],
)
def test_a_config_without_a_result_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan([CONFIG], cfg_options=options)


def test_the_best_checkpoint_needs_save_best():
    with pytest.raises(ValueError, match='save_best'):
        options = {'default_hooks.checkpoint.save_best': None}
        plan([CONFIG], checkpoint='best', cfg_options=options)


def test_a_label_longer_than_a_file_name_is_cut_and_stays_its_own(tmp_path):
    losses = []
    for last in (3, 4):
        base = tmp_path / f'{last}.py'
        counts = list(range(200))
        base.write_text(f"imbalance_loss = dict(type='RecallLoss', an_option={[*counts, last]})\n")
        losses.append(str(base))
    first, second = (one.name for one in plan([CONFIG], losses))
    assert first != second
    # Of NAME.json under its temporary name.
    assert max(len(f'.{name}.json.1234567.tmp'.encode()) for name in (first, second)) < 255
    assert first.startswith('deeplabv3_r18_camvid_recall') and first.endswith('_seed0')


@pytest.mark.parametrize('stem', ['größe' * 40, '\udcff' * 100, 'a' * 240])
def test_a_long_name_of_a_config_is_cut(stem):
    name = run_name(stem, 'CE', 12)
    assert len(os.fsencode(name)) < 200 and name.endswith('_seed12')


def test_a_config_of_mmpretrain_needs_mmpretrain(tmp_path, monkeypatch):
    def missing():
        raise ImportError("needs onedl-mmpretrain; pip install 'onedl-mmpretrain'")

    monkeypatch.setattr('mmseg_recall.comparison.plan.check_mmpretrain', missing)
    config = tmp_path / 'cls.py'
    config.write_text("default_scope = 'mmpretrain'\n")
    with pytest.raises(ImportError, match=r'cls\.py: needs onedl.*pip install'):
        plan([str(config)])


def test_an_import_that_fails_is_named(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(
        "custom_imports = dict(imports=['no_such_module_at_all'], allow_failed_imports=False)\n"
    )
    with pytest.raises(ImportError, match=r'mine\.py: .*no_such_module_at_all'):
        plan([str(config)])


def test_a_config_that_names_classes_is_planned(tmp_path):
    """As a pure-Python config does, or one that is made in a notebook."""
    path = tmp_path / 'pure.py'
    lines = [
        'from mmengine.hooks import CheckpointHook',
        'from mmseg.evaluation import IoUMetric',
        'from mmseg.models import CrossEntropyLoss, FCNHead',
        'from mmseg_recall.hooks import ClassWeightHook',
        'model = dict(decode_head=dict(type=FCNHead, loss_decode=dict(type=CrossEntropyLoss)))',
        'default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))',
        'custom_hooks = [dict(type=ClassWeightHook)]',
        "test_evaluator = [dict(type=IoUMetric, iou_metrics=['mIoU'])]",
    ]
    path.write_text('\n'.join(lines))
    for cfg in map(parsed, plan([str(path)], ['recall', 'ce'])):
        assert cfg.test_evaluator[0].type == 'PerClassIoUMetric'
        assert type_name(cfg.model.decode_head) == 'FCNHead'
        assert len(cfg.custom_hooks) == 1
