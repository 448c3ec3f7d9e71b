"""Only loss and seed may differ among the runs of a comparison."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmseg_recall.comparison.describe import describe
from mmseg_recall.comparison.identity import differences, identity

CE = dict(type='CrossEntropyLoss', loss_weight=1.0)
CONFIG = dict(
    model=dict(
        type='EncoderDecoder',
        backbone=dict(type='ResNet', depth=18),
        decode_head=dict(type='FCNHead', num_classes=2, ignore_index=255, loss_decode=CE),
        auxiliary_head=[dict(type='FCNHead', loss_decode=dict(CE, loss_weight=0.4))],
    ),
    loss_decode=dict(type='RecallLoss'),
    class_counts='data/a/class_counts.json',
    train_dataloader=dict(batch_size=2),
    test_dataloader=dict(dataset=dict(type='CamVidDataset', data_root='data/camvid')),
    test_evaluator=dict(type='PerClassIoUMetric', ignore_index=255),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
    train_cfg=dict(max_iters=30),
    default_hooks=dict(checkpoint=dict(interval=10, max_keep_ckpts=2)),
    custom_hooks=[dict(type='ClassWeightHook')],
    randomness=dict(seed=0),
)


def changed(**options) -> Config:
    cfg = Config(CONFIG)
    cfg.merge_from_dict({k.replace('__', '.'): v for k, v in options.items()})
    return cfg


OTHER_RUNS = [
    dict(load_from='another.pth'),
    dict(load_from='seed10.pth', randomness__seed=1),
    dict(custom_hooks=[dict(type='ClassWeightHook'), dict(type='EMAHook')]),
    dict(logit_adjustment=dict(tau=1.0)),
    dict(test_evaluator__ignore_index=0),
    dict(model__decode_head__ignore_index=0),
    dict(model__decode_head__sampler=dict(type='OHEMPixelSampler')),
    dict(model__decode_head__dropout_ratio=0.5),
    dict(model__test_cfg=dict(mode='slide')),
    dict(model__data_preprocessor=dict(size=(32, 32))),
    dict(optim_wrapper__optimizer__lr=0.02),
    dict(optim_wrapper__loss_scale='dynamic'),
    dict(optim_wrapper__clip_grad=dict(max_norm=1)),
    dict(train_dataloader__sampler=dict(type='Other')),
    dict(test_dataloader__dataset__data_root='data/other'),
    dict(tta_model=dict(type='SegTTAModel')),
    dict(randomness__deterministic=True),
    dict(runner_type='MyRunner'),
    dict(env_cfg=dict(cudnn_benchmark=True)),
    dict(an_option_of_a_users_runner=3),
    dict(train_cfg__max_iters=60),
]


@pytest.mark.parametrize('options', OTHER_RUNS, ids=lambda options: next(iter(options)))
def test_what_is_neither_loss_nor_seed_makes_another_run(options):
    first, other = describe(changed()), describe(changed(**options))
    assert first['key'] != other['key']


def test_a_longer_training_is_of_the_same_family():
    longer = changed(train_cfg__max_iters=60, default_hooks__checkpoint__interval=20)
    assert identity(longer).family == identity(changed()).family
    assert identity(changed(**OTHER_RUNS[2])).family != identity(changed()).family


OTHER_LOSSES = [
    dict(loss_decode=dict(type='OHEMLoss', _delete_=True)),
    dict(loss_decode__momentum=0.5),
    dict(loss_decode__avg_non_ignore=True),
    dict(model__decode_head__loss_decode__loss_weight=0.5),
    dict(model__auxiliary_head=[dict(type='FCNHead', loss_decode=CE)]),
    dict(loss_decode__loss_name='loss_x'),
    dict(class_counts='data/b/class_counts.json'),
    dict(class_counts=[1, 2]),
]


@pytest.mark.parametrize('options', OTHER_LOSSES, ids=lambda options: next(iter(options)))
def test_all_that_a_config_says_of_its_losses_is_the_loss(options):
    first, other = describe(changed()), describe(changed(**options))
    assert first['key'] == other['key']
    assert first['loss_key'] != other['loss_key']


SEEDS = [
    dict(randomness__seed=1),
    dict(randomness__seed=None),
    dict(work_dir='elsewhere', launcher='none', log_level='DEBUG', resume=False),
    dict(resume=True, load_from='work_dirs/a/iter_20.pth'),
    dict(custom_imports=dict(imports=['mmseg_recall'])),
    dict(visualizer=dict(name='third try')),
    dict(runner_type='LossRunner', fused_tail=True),
    dict(test_evaluator__areas_file='areas.npz', test_evaluator__output_dir='out'),
]


@pytest.mark.parametrize('options', SEEDS, ids=lambda options: next(iter(options)))
def test_seeds_and_places_make_no_other_run(options):
    first, other = describe(changed()), describe(changed(**options))
    assert first['key'] == other['key'] and first['loss_key'] == other['loss_key']


def test_a_seed_in_load_from_is_the_seed():
    runs = [changed(randomness__seed=s, load_from=f'ce_seed{s}/epoch_1.pth') for s in (0, 1, 10)]
    assert len({identity(run).key for run in runs}) == 1


def test_a_fused_tail_is_no_other_head():
    assert identity(changed(model__decode_head__type='FusedFCNHead')) == identity(changed())


def test_a_classifier_is_compared_by_all_but_its_method():
    base = dict(CONFIG, default_scope='mmpretrain', loss_decode=None)
    base['model'] = dict(type='ImageClassifier', head=dict(type='LinearClsHead'))
    other = dict(base, model=dict(type='ImageClassifier', head=dict(type='SDNHead')))
    other['head'] = dict(type='SDNHead')
    drw = dict(base, custom_hooks=[*base['custom_hooks'], dict(type='DeferredReweightingHook')])
    ema = dict(base, custom_hooks=[*base['custom_hooks'], dict(type='EMAHook')])
    one, sdn, deferred, averaged = (identity(Config(c)) for c in (base, other, drw, ema))
    assert one.key == sdn.key == deferred.key != averaged.key
    assert len({one.loss_key, sdn.loss_key, deferred.loss_key}) == 3


def test_differences_are_told_shortly():
    counts = dict(class_counts=list(range(100)))
    first, second = differences([counts, dict(class_counts=[3])])
    assert len(first) < 60 and second == 'class_counts=[3]'


@pytest.mark.parametrize('place', ['imbalance_loss', 'model', 'optim_wrapper'])
def test_a_base_by_its_package_is_that_by_its_path(place: str) -> None:
    plain = Config({place: dict(type='A', part=dict(type='B', size=1))})
    scoped = dict(type='A', _scope_='mmseg', part=dict(type='B', size=1, _scope_='mmseg'))
    assert identity(Config({place: scoped})) == identity(plain)


ONE = dict(type='FCNHead', num_classes=2, out_channels=1)
TWO = dict(type='FCNHead', num_classes=2)


def key_of(head: dict, auxiliary: dict | None = None) -> tuple[str, str]:
    model = dict(type='EncoderDecoder', decode_head=head, auxiliary_head=auxiliary)
    found = identity(Config(dict(model=model)))
    return found.key, found.loss_key


@pytest.mark.parametrize(
    'head',
    [
        ONE,
        {**ONE, 'threshold': 0.5},
        {**ONE, 'loss_decode': dict(type='CrossEntropyLoss', use_sigmoid=True)},
        {**ONE, 'loss_decode': dict(type='RecallLoss')},
    ],
)
def test_one_channel_for_two_classes_is_compared_with_two(head: dict) -> None:
    key, loss_key = key_of(head)
    assert key == key_of(TWO)[0] and loss_key != key_of(TWO)[1]
    # An auxiliary head, and a cascade, too.
    assert key_of(TWO, head)[0] == key_of(TWO, TWO)[0]
    assert key_of([TWO, head])[0] == key_of([TWO, TWO])[0]


def test_thresholds_are_two_losses_and_the_stock_one_is_the_default() -> None:
    assert key_of(ONE) == key_of({**ONE, 'threshold': 0.3}) != key_of({**ONE, 'threshold': 0.5})
    assert key_of(TWO) == key_of({**TWO, 'out_channels': 2})
    many = {**TWO, 'num_classes': 3}
    assert key_of(many)[0] != key_of({**many, 'out_channels': 1})[0] != key_of(TWO)[0]
