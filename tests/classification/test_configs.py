"""Every config builds the method that its folder names, and takes an optimiser step."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmpretrain.registry import DATASETS
from PIL import Image

from mmseg_recall.classification.head_runner import HeadRunner, swap_head

CONFIGS = Path(__file__).parents[2] / 'configs/classification'
LEAVES = sorted(p.relative_to(CONFIGS) for p in CONFIGS.glob('[!_]*/*.py'))
LARGE = {'resnet152_places-lt.py', 'resnet50_inaturalist2018.py'}
DIGITS = 'resnet_digits-lt.py'
ELPV = ('resnet_elpv.py', 'resnet_elpv-lt.py')
# Head, its loss, and the loss of the classifier that does not train the feature.
METHODS = {
    'ce': ('LinearClsHead', 'CrossEntropyLoss', None),
    'focal': ('LinearClsHead', 'SoftmaxFocalLoss', None),
    'focal_drw': ('LinearClsHead', 'WeightedFocalLoss', None),
    'ldam': ('CosineClsHead', 'LDAMLoss', None),
    'bbn': ('BBNHead', 'CrossEntropyLoss', None),
    'ldam_drw': ('CosineClsHead', 'LDAMLoss', None),
    'sdn_ce': ('SDNHead', 'CrossEntropyLoss', 'ClassBalancedLoss'),
    'sdn_recall': ('SDNHead', 'RecallLoss', 'ClassBalancedLoss'),
    'tau_norm': ('TauNormalizedHead', None, None),
    'lws': ('LWSHead', 'InverseFrequencyLoss', None),
}
POST_HOC = {'tau_norm', 'lws'}
DEFERRED = {'focal_drw', 'ldam_drw'}


def write_tree(cfg: Config, root: Path) -> None:
    """Four images, their annotations in both forms, and class counts."""
    generator = np.random.default_rng(0)
    for index in range(4):
        pixels = generator.integers(256, size=(48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f'{index}.jpg')
    for name in ('Places_LT_train.txt', 'Places_LT_val.txt', 'Places_LT_test.txt'):
        (root / name).write_text(''.join(f'{i}.jpg {i % 3}\n' for i in range(4)))
    content = dict(
        images=[dict(id=i, file_name=f'{i}.jpg') for i in range(4)],
        annotations=[dict(image_id=i, category_id=i % 3) for i in range(4)],
    )
    for name in ('train2018.json', 'val2018.json'):
        (root / name).write_text(json.dumps(content))
    counts = dict(pixels=list(range(1, cfg.model.head.num_classes + 1)))
    (root / 'class_counts.json').write_text(json.dumps(counts))


def shrink(cfg: Config, root: Path) -> None:
    """One epoch of one batch of the tree at ``root``, through a network of few channels."""
    cfg.work_dir = str(root / 'work')
    cfg.experiment_name = root.name
    # In the log's file only: the losses of a first step may be anything.
    cfg.log_level = 'WARNING'
    cfg.model.backbone.update(init_cfg=None, base_channels=4, stem_channels=4)
    cfg.model.head.in_channels = 128
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.class_counts = str(root / 'class_counts.json')
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.data_root = str(root)
        for transform in loader.dataset.pipeline:
            for key, size in (('scale', 32), ('crop_size', 32)):
                if key in transform:
                    transform[key] = size
        if split != 'train':
            cfg[f'{split}_evaluator'].class_counts = cfg.class_counts


def train(cfg: Config) -> HeadRunner:
    torch.manual_seed(0)
    runner = RUNNERS.build(cfg)
    runner.model.init_weights()  # which training would do
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    assert all(torch.isfinite(parameter).all() for parameter in runner.model.parameters())
    # A running recall is NaN until its class is seen, and equals nothing.
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert any(k.startswith('head.') for k in changed)
    runner.changed = changed
    return runner


def test_every_data_set_has_its_methods() -> None:
    for method in METHODS:
        names = {leaf.name for leaf in LEAVES if leaf.parent.name == method}
        small = {DIGITS, *ELPV}
        assert names == (small if method in POST_HOC else {*LARGE, *small})
    assert len(LEAVES) == 8 * 5 + 2 * 3


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_a_leaf_is_a_base_list_and_at_most_one_setting(leaf: Path) -> None:
    base, *more = ast.parse((CONFIGS / leaf).read_text()).body
    assert [target.id for target in base.targets] == ['_base_']
    assert len(more) == (leaf.parent.name in DEFERRED | POST_HOC)


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf.name in LARGE], ids=str)
def test_one_step_of_a_large_config(leaf: Path, tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / leaf)
    write_tree(cfg, tmp_path)
    shrink(cfg, tmp_path)
    runner = train(cfg)
    head, (kind, loss, classifier) = runner.model.head, METHODS[leaf.parent.name]
    assert type(head).__name__ == kind
    trains_feature = head.feature_head if classifier else head
    assert type(trains_feature.loss_module).__name__ == loss
    if classifier:
        assert type(head.loss_module).__name__ == classifier
    assert head.num_classes == len(runner.train_dataloader.dataset.metainfo['classes'])
    assert any(k.startswith('backbone.layer4') for k in runner.changed)
    hooks = [type(hook).__name__ for hook in runner.hooks]
    assert ('DeferredReweightingHook' in hooks) == (leaf.parent.name in DEFERRED)
    assert ('CumulativeLearningHook' in hooks) == (leaf.parent.name == 'bbn')


@pytest.mark.parametrize('method', sorted(set(METHODS) - {'tau_norm'}))
def test_one_epoch_of_the_digits(method: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / method / DIGITS)
    cfg.update(work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='WARNING')
    cfg.model.backbone.update(base_channels=4, stem_channels=4)
    cfg.model.head.in_channels = 16
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    runner = train(cfg)
    assert type(runner.model.head).__name__ == METHODS[method][0]
    if method == 'lws':
        assert runner.changed == {'head.scale'}


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf.name in ELPV], ids=str)
def test_one_epoch_of_the_solar_cells(leaf: Path, tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / leaf)
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), cfg.class_counts)
    for name, split in (('train', labels), ('val', range(8)), ('test', range(8))):
        features = generator.random((len(split), 8, 8, 3), dtype=np.float32)
        np.savez(tmp_path / f'{name}.npz', features=features, labels=np.array(split))
    cfg.update(work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='WARNING')
    cfg.data_root = str(tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        if loader:
            loader.dataset.get('dataset', loader.dataset).data_root = str(tmp_path)
    cfg.model.backbone.update(in_channels=3, base_channels=4, stem_channels=4)
    cfg.model.head.in_channels = 4
    if leaf.parent.name == 'tau_norm':
        assert 0 <= RUNNERS.build(cfg).test()['accuracy/top1'] <= 100
        return
    cfg.train_dataloader.batch_size = 512
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    runner = train(cfg)
    assert type(runner.model.head).__name__ == METHODS[leaf.parent.name][0]
    counted = np.bincount(runner.train_dataloader.dataset.get_gt_labels())
    assert counted.tolist() == cfg.class_counts


def test_nothing_of_tau_norm_is_trained(tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / 'tau_norm' / DIGITS)
    cfg.update(work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='WARNING')
    runner = RUNNERS.build(cfg)
    assert runner._train_dataloader is None
    metrics = runner.test()
    assert 0 <= metrics['accuracy/top1'] <= 100
    assert runner.model.head.tau == 0.7


def test_the_class_counts_of_the_digits_are_those_of_its_training_set() -> None:
    cfg = Config.fromfile(CONFIGS / 'ce' / DIGITS)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.class_counts == cfg.class_counts


def test_schedules_follow_the_paper() -> None:
    for leaf in LEAVES:
        if leaf.name in LARGE:
            cfg = Config.fromfile(CONFIGS / leaf)
            optimizer = cfg.optim_wrapper.optimizer
            places = leaf.name.endswith('places-lt.py')
            assert (optimizer.type, optimizer.lr) == ('SGD', 0.005 if places else 0.01)
            assert cfg.train_dataloader.batch_size == 128
            assert cfg.model.backbone.depth == (152 if places else 50)
            begins = [hook.begin for hook in cfg.get('custom_hooks', []) if 'begin' in hook]
            deferred = leaf.parent.name in DEFERRED
            assert begins == ([int(0.8 * cfg.train_cfg.max_epochs)] if deferred else [])


def test_swapping_again_changes_nothing_and_leaves_its_argument() -> None:
    for leaf in LEAVES:
        cfg = Config.fromfile(CONFIGS / leaf)
        text = cfg.pretty_text
        once = swap_head(cfg)
        assert cfg.pretty_text == text
        assert swap_head(once).pretty_text == once.pretty_text


def test_what_is_no_loss_stays() -> None:
    init_cfg = dict(type='Normal', layer='Linear', std=0.01)
    head = dict(type='LinearClsHead', init_cfg=init_cfg, loss=dict(type='LDAMLoss'))
    model = dict(head=dict(type='LinearClsHead', num_classes=2, in_channels=4))
    swapped = swap_head(Config(dict(model=model, head=head, class_counts=[9, 1]))).model.head
    assert swapped.init_cfg == init_cfg
    assert swapped.loss.class_counts == [9, 1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(head=dict(loss=dict(type='RecalLoss'))), "'RecalLoss' in head is not a registered"),
        (dict(model=dict()), 'both must be there'),
    ],
)
def test_errors_of_swapping(change: dict, message: str) -> None:
    base = dict(model=dict(head=dict(type='LinearClsHead')), head=dict(type='LinearClsHead'))
    with pytest.raises(KeyError, match=message):
        swap_head(Config({**base, **change}))
