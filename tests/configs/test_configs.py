"""Every leaf config is a bare `_base_` list, builds a runner and takes an optimiser step."""

import ast
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import RUNNERS

from mmseg_recall.losses import available_losses

from .trees import shrink, write_tree

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(p.relative_to(CONFIGS) for p in CONFIGS.glob('[!_]*/*.py'))
LOSS_BASES = sorted((CONFIGS / '_base_/losses').glob('*.py'))


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


def test_every_loss_has_the_same_leaves():
    leaves = {leaf.parent.name: set() for leaf in LEAVES}
    for leaf in LEAVES:
        leaves[leaf.parent.name].add(leaf.name)
    # The metric-weighted losses are there for Table 1's analysis, not to be trained at length.
    assert set(leaves) == {p.stem for p in LOSS_BASES} - {'metric_weighted'}
    assert len(set(map(frozenset, leaves.values()))) == 1
    assert len(LEAVES) == 48


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_leaf_is_a_bare_base_list(leaf):
    (statement,) = ast.parse((CONFIGS / leaf).read_text()).body
    assert [target.id for target in statement.targets] == ['_base_']


@pytest.mark.parametrize('path', LOSS_BASES, ids=lambda p: p.stem)
def test_loss_base_has_three_settings(path):
    cfg = Config.fromfile(path)
    assert set(cfg.keys()) == {'custom_imports', 'runner_type', 'loss_decode'}
    assert cfg.loss_decode.type in {'CrossEntropyLoss', *available_losses()}


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_one_optimiser_step(leaf, trees, tmp_path):
    cfg = Config.fromfile(CONFIGS / leaf)
    shrink(cfg, trees(cfg), tmp_path)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg.pop(key)
    torch.manual_seed(0)
    runner = RUNNERS.build(cfg)
    head = runner.model.decode_head
    assert type(head.loss_decode).__name__ == cfg.loss_decode.type
    assert head.num_classes == len(runner.train_dataloader.dataset.metainfo['classes'])
    before = head.conv_seg.weight.detach().clone()
    runner.train()
    after = head.conv_seg.weight.detach()
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)
    assert runner.message_hub.get_scalar('train/loss').current() > 0


def test_schedules_follow_the_paper():
    for leaf in LEAVES:
        cfg = Config.fromfile(CONFIGS / leaf)
        assert cfg.randomness.seed == 1337
        assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
        if leaf.stem.endswith(('_synthia', '_cityscapes')):
            synthia = leaf.stem.endswith('_synthia')
            assert cfg.optim_wrapper.optimizer == dict(type='Adam', lr=1e-3 if synthia else 1e-4)
            assert cfg.train_cfg.max_iters == (100_000 if synthia else 90_000)
            assert cfg.train_cfg.val_interval == 5000
            assert cfg.train_dataloader.batch_size == 6
            assert 'param_scheduler' not in cfg
            assert cfg.model.data_preprocessor.size == ((384, 768) if synthia else (769, 769))
