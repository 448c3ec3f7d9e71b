"""Heads on features of a frozen backbone: the same numbers, the same records, one computation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from mmseg_recall.comparison import features as features_module
from mmseg_recall.comparison import plan_runs, run_frozen
from mmseg_recall.comparison.features import load_features
from mmseg_recall.comparison.frozen import build_heads, logits_of, train
from mmseg_recall.comparison.plan import Plan
from mmseg_recall.comparison.record import read_record
from mmseg_recall.evaluation import Areas
from mmseg_recall.evaluation import areas as A
from mmseg_recall.literal_config import parse_config
from mmseg_recall.report.load import load_runs
from tests.tools.run import ROOT, run

from .test_real_runs import CONFIG, write_data

VIEWS = 2


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('frozen')
    write_data(folder / 'data')
    (folder / 'fcn.py').write_text(CONFIG.format(root=str(folder / 'data')))
    return folder


def plans(root: Path, *losses: str, **options) -> list[Plan]:
    return plan_runs(
        [str(root / 'fcn.py')],
        losses or ['recall'],
        losses_dir=ROOT / 'configs/_base_/losses',
        frozen=VIEWS,
        cfg_options=options,
    )


def config(plan: Plan) -> Config:
    return parse_config(plan.config, plan.config_file)


def test_a_run_leaves_the_record_of_any_other(root, tmp_path):
    out = tmp_path / 'runs'
    assert run_frozen(plans(root, 'recall', 'lovasz'), out) == {}
    record = read_record(out / 'fcn_recall_seed0.json')
    assert record['setup']['model'] == 'FCN ResNet-18, frozen'
    assert record['checkpoint'] == {'rule': 'last', 'step': 4}
    areas = Areas(**{k: np.array(v) for k, v in record['areas'].items()})
    assert areas.label.sum() == 4 * 32 * 32
    assert round(100 * A.mean(A.iou(areas)), 2) == round(record['metrics']['mIoU'], 2)
    assert len(record['image_areas']['names']) == 4
    per_class = record['per_class']
    assert {len(values) for values in per_class.values()} == {2}
    assert set(per_class) == {
        'average_precision', 'IoU', 'offsets', 'IoU_with_offsets', 'calibration_error',
        'boundary_IoU', 'object_recall', 'objects', 'first_found',
    }  # fmt: skip
    assert set(per_class['first_found']) <= {1.0, 2.0, 3.0, 4.0, None}
    assert any(per_class['first_found'])
    assert record['metrics']['mBoundaryIoU'] == np.mean(per_class['boundary_IoU'])
    runs, problems = load_runs([out])
    assert problems == []
    assert {run.loss for run in runs} == {'Recall', 'LovaszSoftmax'}
    assert len({run.setup['key'] for run in runs}) == 1


@pytest.mark.slow
def test_the_tool_prints_its_own_lines_only(root, tmp_path):
    out = tmp_path / 'runs'
    printed = run('tools/benchmark.py', root / 'fcn.py', '--frozen', '1', '--out', out)
    lines = [line.split()[0] for line in printed.splitlines()]
    assert lines == ['0', 'Features', 'Features', 'Features', 'done']


def test_a_run_is_the_same_whatever_ran_before_it_and_is_not_run_again(root, tmp_path):
    both, alone = tmp_path / 'a' / 'runs', tmp_path / 'b' / 'runs'
    run_frozen(plans(root, 'lovasz', 'recall'), both)
    run_frozen(plans(root, 'recall'), alone)
    name = 'fcn_recall_seed0.json'
    assert read_record(both / name)['areas'] == read_record(alone / name)['areas']
    before = (alone / name).read_bytes()
    run_frozen(plans(root, 'recall'), alone)
    assert (alone / name).read_bytes() == before


def test_heads_on_features_predict_what_the_whole_model_predicts(root, tmp_path):
    cfg = config(plans(root)[0])
    heads = build_heads(cfg).eval()
    torch.manual_seed(0)
    features_module.set_random_seed(0)
    whole = MODELS.build(cfg.model)
    whole.init_weights()
    whole.decode_head.load_state_dict(heads.decode_head.state_dict())
    whole.eval()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    items = load_features(cfg, 'test', tmp_path)
    assert len(items) == len(dataset) == 4
    for item, one in zip(items, dataset, strict=True):
        data = dict(inputs=[one['inputs']], data_samples=[one['data_samples']])
        (expected,) = whole.test_step(data)
        logits = logits_of(heads, item)
        torch.testing.assert_close(logits, expected.seg_logits.data, rtol=0, atol=1e-2)
        assert torch.equal(item.label.long(), one['data_samples'].gt_sem_seg.data)


def test_a_head_that_does_not_end_as_mmsegs_do_is_trained_as_well(root, tmp_path):
    cfg = config(plans(root)[0])
    model = build_heads(cfg)
    head = model.decode_head
    head.own, before = head.conv_seg, head.conv_seg.weight.clone()
    head.cls_seg = lambda features: head.own(features)
    del head.conv_seg
    assert train(model, cfg, load_features(cfg, 'train', tmp_path)) == []
    assert not torch.equal(head.own.weight, before)


def test_features_are_computed_once_and_training_images_seen_in_views(root, tmp_path, monkeypatch):
    flip = dict(type='RandomFlip', prob=0.5)
    cfg = config(plans(root)[0])
    cfg.train_dataloader.dataset.pipeline.insert(2, flip)
    first = load_features(cfg, 'train', tmp_path)
    assert len(first) == VIEWS * 4
    assert any(not torch.equal(a.label, b.label) for a, b in zip(first[:4], first[4:], strict=True))
    monkeypatch.setattr(features_module, '_compute', None)
    again = load_features(cfg, 'train', tmp_path)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.features[-1], b.features[-1]) and a.sizes == b.sizes


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b'')


def text(path: Path) -> None:
    path.write_text('no features')


def others(path: Path) -> None:
    torch.save({'made_from': '{}'}, path)


@pytest.mark.parametrize('break_', [half, empty, text, others])
def test_a_broken_file_of_features_is_named(root, tmp_path, break_):
    cfg = config(plans(root)[0])
    load_features(cfg, 'test', tmp_path)
    (path,) = tmp_path.glob('*.pt')
    break_(path)
    with pytest.raises(ValueError, match=f'{path}.*remove it'):
        load_features(cfg, 'test', tmp_path)


def test_features_of_another_config_are_refused(root, tmp_path):
    cfg = config(plans(root)[0])
    load_features(cfg, 'test', tmp_path)
    (path,) = tmp_path.glob('*.pt')
    cfg.model.backbone.depth = 34
    load_features(cfg, 'test', tmp_path)
    (other,) = set(tmp_path.glob('*.pt')) - {path}
    path.replace(other)
    with pytest.raises(ValueError, match=rf'{other}.*another config.*backbone.depth=18.*34'):
        load_features(cfg, 'test', tmp_path)


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(root, tmp_path):
    out = tmp_path / 'runs'
    good, bad = plans(root, 'ce')[0], plans(root, **{'optim_wrapper.optimizer.lr': math.inf})[0]
    failures = run_frozen([bad, good], out)
    assert list(failures) == [bad.name] and 'diverged' in failures[bad.name]
    assert read_record(out / f'{good.name}.json')['status'] == 'complete'


def test_a_loss_that_cannot_be_built_is_named_before_anything_is_trained(root, tmp_path):
    given = plans(root, 'ce', 'balanced_softmax', class_counts=[4096, 0])
    with pytest.raises(ValueError, match=r'fcn_logitadjusted.*nothing was started.*classes 1:'):
        run_frozen(given, tmp_path / 'runs')
    assert not list(tmp_path.iterdir())


def test_what_frozen_runs_do_not_have_is_refused(root, tmp_path):
    best = [plan._replace(checkpoint='best') for plan in plans(root)]
    with pytest.raises(ValueError, match=r"fcn.py: .*must be 'last', not 'best'"):
        run_frozen(best, tmp_path / 'runs')
    with pytest.raises(ValueError, match='a view or more of each image, got -1'):
        plan_runs([], losses_dir=ROOT, frozen=-1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'model.test_cfg.mode': 'slide'}, "fcn.py: .*mode is 'slide'"),
        ({'load_from': 'a.pth'}, 'load_from has no effect'),
        ({'model.decode_head.out_channels': 1}, 'a channel for each class'),
        ({'train_cfg': dict(_delete_=True, max_epochs=3)}, 'train_cfg.max_iters'),
    ],
    ids=str,
)
def test_what_needs_images_is_refused_before_anything_is_written(root, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_frozen(plans(root, **options), tmp_path / 'runs')
    assert not list(tmp_path.iterdir())
