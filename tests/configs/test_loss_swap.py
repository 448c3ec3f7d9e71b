"""swap_loss on every shape of config: what is swapped, kept, refused and said."""

import logging

import pytest
from mmengine.config import Config
from mmseg.models.losses import CrossEntropyLoss, DiceLoss
from mmseg.registry import MODELS

from mmseg_recall.config import as_list
from mmseg_recall.losses import available_losses
from mmseg_recall.models import swap_loss

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
    return Config(dict(model=model, imbalance_loss=loss, **more))


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
    dumped.merge_from_dict({'imbalance_loss.momentum': 0.5})
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
    once.merge_from_dict({'imbalance_loss.1.smooth': 2})
    assert swap_loss(once).model.auxiliary_head.loss_decode[1].smooth == 2


OHEM = dict(type='OhemCrossEntropy', thres=0.9, min_kept=7, class_weight=[1.0] * 19)
FOCAL = dict(type='FocalLoss', use_sigmoid=True)


@pytest.mark.parametrize('loss', [RECALL, dict(type='InverseFrequencyLoss', class_counts=[1, 2])])
def test_mined_cross_entropy_is_swapped(loss):
    swapped = swap_loss(config([dict(OHEM, loss_weight=0.4), CE], loss=loss))
    first, second = swapped.model.decode_head.loss_decode
    assert first.type == second.type == loss['type']
    assert (first.loss_weight, second.loss_weight) == (0.4, 1.0)
    ignoring = swap_loss(config(dict(OHEM, ignore_label=0), loss=loss)).model.decode_head
    assert ignoring.loss_decode.ignore_index == 0


@pytest.mark.parametrize('decode', [DICE, FOCAL, SIGMOID, [DICE, FOCAL], (CE, DICE)])
@pytest.mark.parametrize('loss', [RECALL, [RECALL, dict(type='LovaszSoftmaxLoss')]])
def test_a_head_that_predicts_without_a_loss_to_swap_is_refused(decode, loss):
    with pytest.raises(ValueError) as caught:
        swap_loss(config(decode, AUX, loss=loss))
    last = decode[-1] if isinstance(decode, (list, tuple)) else decode
    place = 'model.decode_head.1' if isinstance(decode, tuple) else 'model.decode_head'
    assert f'{place} (FCNHead), which predicts, trains with' in str(caught.value)
    assert last['type'] in str(caught.value)
    line = str(caught.value).splitlines()[-1].strip()
    if isinstance(decode, tuple):
        assert line.startswith('model.decode_head.1.loss_decode = ')
        return
    swapped = swap_loss(with_line(config(decode, AUX, loss=loss), line)).model
    names = [one['type'] for one in as_list(loss)]
    assert [one.type for one in as_list(swapped.decode_head.loss_decode)] == names
    assert [one.type for one in as_list(swapped.auxiliary_head.loss_decode)] == names


def with_line(cfg: Config, line: str) -> Config:
    """A config with a line added in a child of it."""
    merged = Config._merge_a_into_b(Config.fromstring(line, '.py')._cfg_dict, cfg._cfg_dict)
    return Config(merged)


def test_the_line_for_the_inner_head_of_knet():
    inner = dict(type='FCNHead', loss_decode=DICE)
    head = dict(type='IterativeDecodeHead', kernel_generate_head=inner)
    cfg = Config(dict(model=dict(decode_head=head), imbalance_loss=RECALL))
    with pytest.raises(ValueError, match=r'kernel_generate_head .*trains with DiceLoss') as caught:
        swap_loss(cfg)
    cfg = with_line(cfg, str(caught.value).splitlines()[-1].strip())
    assert swap_loss(cfg).model.decode_head.kernel_generate_head.loss_decode.type == 'RecallLoss'


def test_a_list_of_which_a_head_has_one_already_is_not_half_swapped():
    with pytest.raises(ValueError, match='trains with DiceLoss'):
        swap_loss(config(DICE, loss=SUM))
    swapped = swap_loss(config([CE, DICE], loss=[RECALL, dict(type='DiceLoss')])).model
    assert [one.type for one in swapped.decode_head.loss_decode] == [
        'RecallLoss', 'DiceLoss', 'DiceLoss'
    ]  # fmt: skip


def test_each_head_has_a_line_in_the_report():
    report = []
    weighted = dict(CE, class_weight=[1.0, 2.0])
    swap_loss(config(([weighted, DICE], SIGMOID, AUX), ([SIGMOID, AUX], FOCAL)), report)
    assert [line for _, line in report] == [
        'model.decode_head.0.loss_decode.0: CrossEntropyLoss -> RecallLoss (class_weight dropped)',
        'model.decode_head.0.loss_decode.1: DiceLoss is kept: it is no cross-entropy of the pixels',
        'model.decode_head.1.loss_decode: CrossEntropyLoss is kept: its sigmoids score each class '
        'alone, which no softmax loss can stand in for',
        'model.decode_head.2.loss_decode: CrossEntropyLoss -> RecallLoss',
        'model.auxiliary_head.0.loss_decode.0: CrossEntropyLoss is kept: its sigmoids score each '
        'class alone, which no softmax loss can stand in for',
        'model.auxiliary_head.0.loss_decode.1: CrossEntropyLoss -> RecallLoss',
        'model.auxiliary_head.1.loss_decode: FocalLoss is kept: it is no cross-entropy of the '
        'pixels',
    ]
    warned = [line.split(':')[0] for level, line in report if level == logging.WARNING]
    assert warned == ['model.decode_head.1.loss_decode', 'model.auxiliary_head.0.loss_decode.0']


@pytest.mark.parametrize('options', [dict(out_channels=1), dict(out_channels=1, threshold=0.5)])
def test_a_head_of_one_channel_is_swapped(options):
    cfg = config(dict(SIGMOID, loss_weight=1.0))
    cfg.model.decode_head.update(num_classes=2, **options)
    swapped = swap_loss(cfg).model.decode_head.loss_decode
    assert swapped == dict(type='RecallLoss', loss_weight=1.0, use_sigmoid=True)
    assert swap_loss(swap_loss(cfg)).model == swap_loss(cfg).model
    cfg.imbalance_loss = dict(type='LovaszLoss')
    with pytest.raises(ValueError, match='LovaszLoss does not take the one channel'):
        swap_loss(cfg)


@pytest.mark.parametrize(
    ('loss', 'error', 'message'),
    [
        (dict(type='Misspelt'), KeyError, r"decode_head.loss_decode.1: 'Misspelt' is not a regis"),
        (dict(type='no.such.Thing'), KeyError, r"loss_decode.1: 'no.such.Thing' is not a"),
        (dict(loss_weight=1.0), ValueError, r'decode_head.loss_decode.1 has no type'),
        ('DiceLoss', ValueError, r'decode_head.loss_decode.1 has no type: DiceLoss'),
    ],
)
def test_a_loss_that_is_none_is_named_with_its_place(loss, error, message):
    with pytest.raises(error, match=message):
        swap_loss(config([CE, loss]))


@pytest.mark.parametrize(
    ('cfg', 'error', 'message'),
    [
        (config(loss=[]), ValueError, 'a list of losses of different types'),
        (config(loss=[RECALL, RECALL]), ValueError, 'a list of losses of different types'),
        (config(loss=dict(RECALL, loss_weight=2.0)), ValueError, 'each head keeps its own'),
        (config(loss=dict(type='RecalLoss')), KeyError, "'RecalLoss' is not a registered loss"),
        (config(loss=dict(momentum=0.5)), ValueError, 'imbalance_loss has no type'),
    ],
)
def test_errors(cfg, error, message):
    with pytest.raises(error, match=message):
        swap_loss(cfg)


def test_a_head_that_names_no_loss_has_the_cross_entropy_of_its_class():
    head = dict(type='FCNHead')
    model = swap_loss(Config(dict(model=dict(decode_head=head), imbalance_loss=RECALL))).model
    assert model.decode_head.loss_decode == dict(type='RecallLoss', loss_weight=1.0)


def test_a_tuple_of_losses_is_a_list():
    cfg = config()
    cfg.model.decode_head.loss_decode = (CE, DICE)
    assert swap_loss(cfg).model.decode_head.loss_decode == [
        dict(type='RecallLoss', loss_weight=1.0),
        DICE,
    ]


@pytest.mark.parametrize(
    ('schedule', 'filled'),
    [
        (dict(kind='linear'), dict(kind='linear', until=80)),
        (dict(begin=3, until=9), dict(begin=3, until=9)),
        (dict(kind='step', begin=3), dict(kind='step', begin=3)),
    ],
    ids=str,
)
@pytest.mark.parametrize('several', [False, True])
def test_a_schedule_of_weights_ends_with_the_training(schedule, filled, several):
    new = dict(RECALL, schedule=schedule)
    cfg = config(loss=[new, DICE] if several else new, train_cfg=dict(max_iters=80))
    swapped = swap_loss(cfg)
    loss = as_list(swapped.model.decode_head.loss_decode)[0]
    assert loss.schedule == filled
    assert as_list(cfg.imbalance_loss)[0].schedule == schedule
    MODELS.build(loss)
    assert as_list(swap_loss(swapped).model.decode_head.loss_decode)[0].schedule == filled


def test_a_schedule_needs_a_length_that_is_counted_in_iterations():
    loss = dict(RECALL, schedule=dict(kind='linear'))
    swapped = swap_loss(config(loss=loss, train_cfg=dict(max_epochs=80)))
    with pytest.raises(ValueError, match=r'schedule.until, .*train_cfg.max_iters'):
        MODELS.build(swapped.model.decode_head.loss_decode)
