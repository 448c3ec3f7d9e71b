"""Every leaf config is a bare `_base_` list, builds a runner and takes an optimiser step."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmseg_recall.comparison.describe import loss_label
from mmseg_recall.config import as_list
from mmseg_recall.datasets.class_statistics import write_class_statistics
from mmseg_recall.losses import available_losses
from mmseg_recall.report.paper import PAPER_NAMES

from .trees import shrink, write_tree

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(p.relative_to(CONFIGS) for p in CONFIGS.glob('[!_]*/*.py'))
LOSS_BASES = sorted((CONFIGS / '_base_/losses').glob('*.py'))
# The data sets on which the paper found no gain, and the losses to show it with.
LIMITATION_LEAVES = {'deeplabv3_r18_ade20k.py', 'deeplabv3_r18_virtual-kitti.py'}
LIMITATION_LOSSES = {'ce', 'recall', 'class_balanced', 'focal'}


@pytest.fixture(scope='session')
def trees(tmp_path_factory):
    """A function from a config to the root of a tiny tree of its dataset."""
    roots: dict[str, Path] = {}

    def tree(cfg: Config) -> Path:
        name = cfg.data_root
        if name not in roots:
            roots[name] = tmp_path_factory.mktemp('tree')
            write_tree(cfg, roots[name])
        return roots[name]

    return tree


def test_every_loss_has_the_same_leaves_but_for_the_limitation_experiments():
    leaves = {leaf.parent.name: set() for leaf in LEAVES}
    for leaf in LEAVES:
        leaves[leaf.parent.name].add(leaf.name)
    # The others have a base to add to any config: the paper's tables have no row for them.
    labels = {path.stem: loss_label(Config.fromfile(path)) for path in LOSS_BASES}
    assert {labels[name] for name in leaves} == set(PAPER_NAMES)
    assert len({frozenset(names - LIMITATION_LEAVES) for names in leaves.values()}) == 1
    for loss, names in leaves.items():
        assert names & LIMITATION_LEAVES == (
            LIMITATION_LEAVES if loss in LIMITATION_LOSSES else set()
        )
    assert len(LEAVES) == 48 + 8


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_leaf_is_a_bare_base_list(leaf):
    (statement,) = ast.parse((CONFIGS / leaf).read_text()).body
    assert [target.id for target in statement.targets] == ['_base_']


@pytest.mark.parametrize('path', LOSS_BASES, ids=lambda p: p.stem)
def test_loss_base_has_one_setting(path):
    cfg = Config.fromfile(path)
    # The import is added when a config is read: no base can collide with a user's own.
    assert set(Config._file2dict(str(path))[0]) == {'imbalance_loss'}
    losses = as_list(cfg.imbalance_loss)
    assert {loss.type for loss in losses} <= {'CrossEntropyLoss', *available_losses()}


def marked(leaf: Path) -> object:
    """A model and dataset with each loss is slow; with one, and each loss with one, fast."""
    slow = leaf.parent.name != 'recall' and leaf.name != 'deeplabv3_r18_synthia-mini.py'
    return pytest.param(leaf, marks=pytest.mark.slow if slow else (), id=str(leaf))


@pytest.mark.parametrize('leaf', [marked(leaf) for leaf in LEAVES])
def test_one_optimiser_step(leaf, trees, tmp_path):
    cfg = Config.fromfile(CONFIGS / leaf)
    shrink(cfg, trees(cfg), tmp_path)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg.pop(key)
    cfg.default_hooks.checkpoint = None  # up to 700 MB each, 17 GB in all
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    head = runner.model.decode_head
    assert type(head.loss_decode).__name__ == cfg.imbalance_loss.type
    assert head.num_classes == len(runner.train_dataloader.dataset.metainfo['classes'])
    before = head.conv_seg.weight.detach().clone()
    runner.train()
    after = head.conv_seg.weight.detach()
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)
    assert runner.message_hub.get_scalar('train/loss').current() > 0


@pytest.mark.slow
@pytest.mark.parametrize('leaf', sorted({p for p in LEAVES if p.match('recall/*_r18_*')}), ids=str)
def test_with_flips(leaf, trees, tmp_path):
    """As test.py --tta does it."""
    cfg = Config.fromfile(CONFIGS / leaf)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    shrink(cfg, trees(cfg), tmp_path)
    cfg.model.test_cfg.mode = 'whole'
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model
    runner = Runner.from_cfg(cfg)
    assert 0 <= runner.test()['mIoU'] <= 100


@pytest.mark.parametrize('name', sorted(LIMITATION_LEAVES))
def test_class_statistics_feed_the_class_balanced_loss(name, trees, tmp_path):
    cfg = Config.fromfile(CONFIGS / 'class_balanced' / name)
    root = trees(cfg)
    shrink(cfg, root, tmp_path / 'work')
    cfg.class_counts = str(tmp_path / 'class_counts.json')
    write_class_statistics(cfg)
    pixels = json.loads(Path(cfg.class_counts).read_text())['pixels']
    labels = root / cfg.train_dataloader.dataset.data_prefix.seg_map_path
    in_files = np.concatenate([np.asarray(Image.open(path)).ravel() for path in labels.iterdir()])
    # ADE20K's files count the classes from 1, and 0 is none.
    first = 1 if name == 'deeplabv3_r18_ade20k.py' else 0
    assert pixels == [int((in_files == first + index).sum()) for index in range(len(pixels))]
    # Drawn at random from many classes: some are in the tree, and of ADE20K's some are not.
    assert (0 in pixels) == (len(pixels) == 150)
    loss = Runner.from_cfg(cfg).model.decode_head.loss_decode
    torch.testing.assert_close(loss.weight > 0, torch.tensor(pixels) > 0)


# End of the leaf's name: learning rate, iterations, input size. The paper states the first two
# rows; of the others it says only that the network is the same.
SCHEDULES = {
    '_synthia': (1e-3, 100_000, (384, 768)),
    '_cityscapes': (1e-4, 90_000, (769, 769)),
    '_virtual-kitti': (1e-3, 100_000, (375, 1242)),
    '_ade20k': (1e-4, 90_000, (512, 512)),
}


def says_how_it_is_tested_with_flips(cfg):
    # A model_wrapper_cfg would win over find_unused_parameters.
    return cfg.tta_pipeline[-1].type == 'TestTimeAug' and 'model_wrapper_cfg' not in cfg


def test_every_dataset_says_how_it_is_tested_with_flips():
    for path in CONFIGS.glob('_base_/datasets/*.py'):
        assert says_how_it_is_tested_with_flips(Config.fromfile(path)), path


def test_schedules_follow_the_paper():
    for leaf in LEAVES:
        cfg = Config.fromfile(CONFIGS / leaf)
        assert says_how_it_is_tested_with_flips(cfg), leaf
        assert cfg.randomness.seed == 1337
        assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
        ending = next((end for end in SCHEDULES if leaf.stem.endswith(end)), None)
        if ending:
            lr, iterations, size = SCHEDULES[ending]
            assert cfg.optim_wrapper.optimizer == dict(type='Adam', lr=lr)
            assert cfg.train_cfg.max_iters == iterations
            assert cfg.train_cfg.val_interval == 5000
            assert cfg.train_dataloader.batch_size == 6
            assert 'param_scheduler' not in cfg
            assert cfg.model.data_preprocessor.size == size
