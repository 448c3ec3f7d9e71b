"""What is read from a config: heads, losses, labels, datasets."""

import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS

from mmseg_recall.comparison.describe import loss_label
from mmseg_recall.config import datasets, needs_class_counts
from mmseg_recall.losses import InverseFrequencyLoss
from mmseg_recall.models import swap_loss


def knet(loss: dict, stages: int = 1) -> Config:
    inner = dict(type='FCNHead', loss_decode=loss)
    heads = [dict(type='IterativeDecodeHead', kernel_generate_head=inner)] * stages
    return Config(dict(model=dict(decode_head=heads if stages > 1 else heads[0])))


@pytest.mark.parametrize('stages', [1, 2])
def test_knets_of_two_inner_losses_have_two_labels(stages):
    assert loss_label(knet(dict(type='CrossEntropyLoss'), stages)) == 'CE'
    assert loss_label(knet(dict(type='RecallLoss', momentum=0.5), stages)) == 'Recall momentum=0.5'
    both = [dict(type=CrossEntropyLoss), dict(type='mmseg.DiceLoss', loss_weight=3.0)]
    assert loss_label(knet(both, stages)) == 'CE + Dice'


class Renamed(InverseFrequencyLoss):
    """A user's subclass, which hands on what it is given."""

    def __init__(self, **kwargs):
        super().__init__(exponent=0.5, **kwargs)


class Fixed(InverseFrequencyLoss):
    """One that brings its counts along."""

    def __init__(self, loss_weight=1.0):
        super().__init__(class_counts=[1, 3], loss_weight=loss_weight)


class Foreign(CrossEntropyLoss):
    """One that is not made from ours."""

    def __init__(self, class_counts, **kwargs):
        super().__init__(**kwargs)
        self.class_counts = class_counts


@pytest.mark.parametrize(('loss', 'needs'), [(Renamed, True), (Fixed, False), (Foreign, True)])
@pytest.mark.parametrize('as_class', [False, True])
def test_a_loss_of_ones_own_is_given_its_counts(loss, needs, as_class, monkeypatch):
    monkeypatch.setitem(MODELS._module_dict, loss.__name__, loss)
    new = dict(type=loss if as_class else loss.__name__)
    assert needs_class_counts(new) == needs
    head = dict(type='FCNHead', num_classes=2, loss_decode=dict(type='CrossEntropyLoss'))
    cfg = Config(dict(model=dict(decode_head=head), loss_decode=new, class_counts=[1, 3]))
    swapped = swap_loss(cfg).model.decode_head.loss_decode
    assert swapped.get('class_counts') == ([1, 3] if needs else None)
    MODELS.build(swapped)


def test_datasets_in_wrappers():
    leaf = dict(type='CamVidDataset')
    wrapped = dict(
        type=RepeatDataset, times=2, dataset=dict(type=ConcatDataset, datasets=[leaf] * 2)
    )
    assert list(datasets(leaf)) == [leaf]
    assert list(datasets(wrapped)) == [leaf, leaf]
    assert list(datasets(dict(type='MultiImageMixDataset', dataset=wrapped))) == [leaf, leaf]
