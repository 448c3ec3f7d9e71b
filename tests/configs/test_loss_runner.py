"""swap_loss on every shape of config, and the runner built from one."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.models.losses import CrossEntropyLoss, DiceLoss
from mmseg.registry import MODELS, RUNNERS

from mmseg_recall.losses import available_losses
from mmseg_recall.models import LossRunner, swap_loss

CE = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
AUX = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)
SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=10.0)
DICE = dict(type='DiceLoss', loss_name='loss_dice', loss_weight=3.0)
RECALL = dict(type='RecallLoss')


def config(decode=CE, auxiliary=None, loss=RECALL, **more) -> Config:
    def heads(losses):
        if isinstance(losses, tuple):
            return [dict(type='FCNHead', loss_decode=x) for x in losses]
        return dict(type='FCNHead', loss_decode=losses)

    model = dict(type='EncoderDecoder', decode_head=heads(decode))
    if auxiliary is not None:
        model['auxiliary_head'] = heads(auxiliary)
    return Config(dict(model=model, loss_decode=loss, **more))


def test_keeps_each_loss_weight():
    model = swap_loss(config(CE, AUX)).model
    assert model.decode_head.loss_decode == dict(type='RecallLoss', loss_weight=1.0)
    assert model.auxiliary_head.loss_decode == dict(type='RecallLoss', loss_weight=0.4)


def test_lists_of_heads_and_losses():
    model = swap_loss(config((AUX, CE), ([SIGMOID, CE], [CE, DICE]))).model
    new = dict(type='RecallLoss', loss_weight=1.0)
    assert [h.loss_decode for h in model.decode_head] == [new | {'loss_weight': 0.4}, new]
    assert [h.loss_decode for h in model.auxiliary_head] == [[SIGMOID, new], [new, DICE]]


def test_sigmoid_stays_under_cross_entropy_too():
    model = swap_loss(config([SIGMOID, CE], loss=dict(type='CrossEntropyLoss'))).model
    assert model.decode_head.loss_decode[0] == SIGMOID


def test_arguments_of_cross_entropy_go_with_it():
    decode = dict(CE, class_weight=[1.0, 2.0], avg_non_ignore=True)
    swapped = swap_loss(config(decode, loss=dict(RECALL, momentum=0.9)))
    assert swapped.model.decode_head.loss_decode == dict(
        type='RecallLoss', momentum=0.9, loss_weight=1.0
    )


@pytest.mark.parametrize(
    ('old_name', 'kept'), [('loss_ce', {}), ('loss_main', {'loss_name': 'loss_main'})]
)
def test_loss_name_is_kept_where_it_is_not_the_default(old_name, kept):
    swapped = swap_loss(config(dict(CE, loss_name=old_name)))
    assert swapped.model.decode_head.loss_decode == dict(type='RecallLoss', loss_weight=1.0, **kept)


@pytest.mark.parametrize('decode_type', ['CrossEntropyLoss', 'mmseg.CrossEntropyLoss'])
@pytest.mark.parametrize('as_class', [False, True])
def test_type_may_have_a_scope_or_be_the_class(decode_type, as_class):
    old = dict(type=CrossEntropyLoss if as_class else decode_type)
    assert swap_loss(config(old)).model.decode_head.loss_decode.type == 'RecallLoss'


@pytest.mark.parametrize('name', [*available_losses(), 'CrossEntropyLoss'])
def test_idempotent_and_leaves_its_argument(name):
    cfg = config(CE, [SIGMOID, AUX], loss=dict(type=name), class_counts=[1, 2])
    text = cfg.pretty_text
    once = swap_loss(cfg)
    assert cfg.pretty_text == text
    assert swap_loss(once).pretty_text == once.pretty_text


def test_dumped_config_takes_new_options_of_the_loss():
    dumped = swap_loss(config())
    dumped.merge_from_dict({'loss_decode.momentum': 0.5})
    assert swap_loss(dumped).model.decode_head.loss_decode.momentum == 0.5


def test_class_counts_go_only_where_they_are_taken():
    loss = swap_loss(config(class_counts='counts.json')).model.decode_head.loss_decode
    assert 'class_counts' not in loss
    for own, expected in [({}, 'counts.json'), ({'class_counts': [1, 2]}, [1, 2])]:
        new = dict(type='InverseFrequencyLoss', **own)
        swapped = swap_loss(config(loss=new, class_counts='counts.json'))
        assert swapped.model.decode_head.loss_decode.class_counts == expected


def test_counts_of_another_data_set_are_refused_when_the_model_is_built():
    cfg = config(loss=dict(type='ClassBalancedLoss'), class_counts=[1, 2, 3])
    cfg.model.decode_head.update(in_channels=4, channels=4, num_convs=1, num_classes=5)
    with pytest.raises(ValueError, match='3 classes, num_classes is 5'):
        MODELS.build(swap_loss(cfg).model.decode_head)


def test_any_registered_loss():
    loss = swap_loss(config(loss=dict(type='DiceLoss'))).model.decode_head.loss_decode
    assert isinstance(MODELS.build(loss), DiceLoss)


SUM = [dict(RECALL, smoothing=2.0), dict(type='DiceLoss', loss_weight=0.5)]


def test_a_list_takes_the_place_of_each_cross_entropy():
    model = swap_loss(config(CE, [SIGMOID, AUX], loss=SUM)).model
    recall = dict(type='RecallLoss', smoothing=2.0, loss_weight=1.0)
    dice = dict(type='DiceLoss', loss_weight=0.5)
    assert model.decode_head.loss_decode == [recall, dice]
    auxiliary = [SIGMOID, recall | {'loss_weight': 0.4}, dice | {'loss_weight': 0.2}]
    assert model.auxiliary_head.loss_decode == auxiliary


@pytest.mark.parametrize('added', [RECALL, dict(type='CrossEntropyLoss')])
@pytest.mark.parametrize('decode', [CE, [CE, SIGMOID], [CE, CE]])
def test_a_list_is_swapped_once(added, decode):
    once = swap_loss(config(decode, AUX, loss=[added, dict(type='DiceLoss', loss_weight=0.5)]))
    assert swap_loss(once).pretty_text == once.pretty_text
    once.merge_from_dict({'loss_decode.1.smooth': 2})
    assert swap_loss(once).model.auxiliary_head.loss_decode[1].smooth == 2


@pytest.mark.parametrize(
    ('cfg', 'error', 'message'),
    [
        (config(loss=[]), ValueError, 'a list of losses of different types'),
        (config(loss=[RECALL, RECALL]), ValueError, 'a list of losses of different types'),
        (config([SIGMOID], loss=SUM), ValueError, r'replaced by RecallLoss \+ DiceLoss'),
        (config(DICE, [SIGMOID]), ValueError, 'No loss was replaced by RecallLoss'),
        (config(loss=dict(RECALL, loss_weight=2.0)), ValueError, 'each head keeps its own'),
        (config(loss=dict(type='RecalLoss')), KeyError, "'RecalLoss' is not a registered loss"),
        (Config(dict(model=dict())), KeyError, 'no top-level loss_decode'),
    ],
)
def test_errors(cfg, error, message):
    with pytest.raises(error, match=message):
        swap_loss(cfg)


def test_runner_is_registered_and_dumps_a_config_that_runs_again(tmp_path):
    assert RUNNERS.get('LossRunner') is LossRunner
    cfg = config(
        runner_type='LossRunner',
        work_dir=str(tmp_path),
        default_scope='mmseg',
        experiment_name=tmp_path.name,
        sync_bn='torch',
    )
    cfg.model = dict(
        type='EncoderDecoder',
        backbone=dict(type='ResNetV1c', depth=18, base_channels=2, stem_channels=2, init_cfg=None),
        decode_head=dict(
            type='FCNHead', in_channels=16, in_index=3, channels=4, num_classes=3, loss_decode=CE
        ),
    )
    runner = RUNNERS.build(cfg)
    assert isinstance(runner, LossRunner)
    assert isinstance(runner, Runner)
    assert type(runner.model.decode_head.loss_decode).__name__ == 'RecallLoss'
    runner.dump_config()
    (dumped,) = tmp_path.glob('*.py')
    again = Config.fromfile(dumped)
    assert again.runner_type == 'LossRunner'
    assert swap_loss(again).model == again.model


def test_a_head_that_names_no_loss_has_the_cross_entropy_of_its_class():
    head = dict(type='FCNHead')
    model = swap_loss(Config(dict(model=dict(decode_head=head), loss_decode=RECALL))).model
    assert model.decode_head.loss_decode == dict(type='RecallLoss', loss_weight=1.0)


def test_a_tuple_of_losses_is_a_list():
    cfg = config()
    cfg.model.decode_head.loss_decode = (CE, DICE)
    assert swap_loss(cfg).model.decode_head.loss_decode == [
        dict(type='RecallLoss', loss_weight=1.0),
        DICE,
    ]
