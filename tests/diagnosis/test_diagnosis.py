"""Broken datasets and configs are named rightly, healthy ones are not accused."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_recall.config import heads
from mmseg_recall.diagnosis import as_json, as_markdown, diagnose, measure
from mmseg_recall.diagnosis.advice import nearest_regime, regimes, worth_trying
from mmseg_recall.diagnosis.checkpoint import HeldOut, KeptPixels, _fitted, as_options, free_gain
from mmseg_recall.diagnosis.measure import chance_in_batch, gini
from mmseg_recall.functional import log_prior
from tests.datasets import stubs
from tests.tools.run import ROOT, run

CLASSES = ('road', 'car', 'pole', 'sky')
SIZE = 32, 48


def label(seed: int) -> np.ndarray:
    """Half road, a quarter sky; a car and a pole in a place of their own."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(SIZE, np.uint8)
    ids[:8] = 3
    row, column = rng.integers(8, 20), rng.integers(0, 30)
    ids[row : row + 8, column : column + 14] = 1
    ids[8:20, rng.integers(0, 48)] = 2
    return ids


def write_split(root: Path, split: str, number: int, seed: int) -> None:
    for index in range(number):
        ids = label(seed + index)
        noise = np.random.default_rng(seed + index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        stubs.write(root / f'images/{split}/{split}{index:03d}x.png', noise)
        stubs.write(root / f'annotations/{split}/{split}{index:03d}x.png', ids)


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(measure, 'CROPS', 200)
    init_default_scope('mmseg')
    for seed, (split, number) in enumerate(dict(train=8, val=3, test=3).items()):
        write_split(tmp_path, split, number, 100 * seed)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomCrop', crop_size=(24, 32)),
        dict(type='PackSegInputs'),
    ]

    def loader(split: str, transforms: list) -> dict:
        dataset = stubs.dataset(
            'BaseSegDataset', tmp_path, split, img_suffix='.png', metainfo=dict(classes=CLASSES)
        )
        return dict(batch_size=2, dataset={**dataset, 'pipeline': transforms})

    head = dict(
        type='FCNHead', in_channels=8, channels=8, num_classes=4,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False),
    )  # fmt: skip
    return Config(
        dict(
            model=dict(type='EncoderDecoder', decode_head=head, auxiliary_head=dict(head)),
            train_dataloader=loader('train', pipeline),
            val_dataloader=loader('val', stubs.PIPELINE),
            test_dataloader=loader('test', stubs.PIPELINE),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=100),
        )
    )


def train(cfg: Config) -> ConfigDict:
    return cfg.train_dataloader.dataset


def labels(cfg: Config, split: str = 'train') -> list[Path]:
    return sorted((Path(train(cfg).data_root) / 'annotations' / split).iterdir())


def images(cfg: Config, split: str = 'train') -> list[Path]:
    return sorted((Path(train(cfg).data_root) / 'images' / split).iterdir())


def each_label(cfg: Config, change: Any, split: str = 'train') -> None:
    for path in labels(cfg, split):
        stubs.write(path, change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def masks(cfg: Config) -> None:
    each_label(cfg, lambda ids: np.where(ids == 1, 255, 0).astype(np.uint8))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=('road', 'car'))
    for head in heads(cfg.model).values():
        head.num_classes = 2


def reduce_two(cfg: Config) -> None:
    masks(cfg)
    each_label(cfg, lambda ids: ids // 255)
    train(cfg).reduce_zero_label = True


def pad_with_a_class(cfg: Config) -> None:
    train(cfg).pipeline.insert(3, dict(type='RandomRotate', prob=1.0, degree=45, seg_pad_val=77))


def copy_images(cfg: Config, split: str = 'val') -> None:
    for source, target in zip(images(cfg), images(cfg, split), strict=False):
        target.write_bytes(source.read_bytes())


def reencode_images(cfg: Config) -> None:
    for source, target in zip(images(cfg), images(cfg, 'test'), strict=False):
        pixels = cv2.imread(str(source))
        target.write_bytes(cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1])


def drive(cfg: Config) -> None:
    """Frames of one drive, every other of which is for training."""
    view = cv2.resize(np.random.default_rng(9).integers(0, 256, (4, 6, 3), np.uint8), SIZE[::-1])
    number = 0
    for split in ('train', 'val'):
        for index, (image, ids) in enumerate(
            zip(images(cfg, split), labels(cfg, split), strict=True)
        ):
            number = 2 * index + (split == 'val')
            name = f'0016E5_{number:05d}.png'
            stubs.write(image.with_name(name), np.clip(view.astype(int) + number, 0, 255))
            ids.rename(ids.with_name(name))
            image.unlink()


def set_head(cfg: Config, **options: Any) -> None:
    for head in heads(cfg.model).values():
        head.update(options)


def with_one_channel(cfg: Config) -> None:
    for split in ('train', 'val', 'test'):
        each_label(cfg, lambda ids: ids % 2, split)
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=('road', 'car'))
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    set_head(cfg, num_classes=2, out_channels=1, loss_decode=loss)


def one_channel_by_softmax(cfg: Config) -> None:
    with_one_channel(cfg)
    # Said, because a head's config keeps what an update does not name.
    set_head(cfg, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False))


BROKEN: dict[str, tuple[Any, str, str]] = {
    # name: what is done, words of the fault, words of the place or the cure
    'masks of 0 and 255': (masks, "'car' (1), which cannot be learnt", 'train_dataloader'),
    'masks and their reason': (masks, 'masks of 0 and 255 must be mapped', 'train_dataloader'),
    'reduce_zero_label of two': (reduce_two, 'reduce_zero_label turns 0 into 255', 'train_dat'),
    'ids from 1': (
        lambda cfg: each_label(cfg, lambda ids: np.minimum(ids + 1, 3)),
        'If the ids of the labels begin at 1', 'train_dataloader',
    ),
    'ids beyond the classes': (
        lambda cfg: each_label(cfg, lambda ids: ids + 1), 'unknown ids [4]', 'train000x.png and 7',
    ),
    'one file of another convention': (
        lambda cfg: stubs.write(labels(cfg)[3], np.full(SIZE, 7, np.uint8)),
        'unknown ids [7]', 'train003x.png',
    ),
    'ids of a validation label': (
        lambda cfg: each_label(cfg, lambda ids: ids + 9, 'val'), 'unknown ids', 'val000x.png',
    ),
    'a class that is absent': (
        lambda cfg: each_label(cfg, lambda ids: np.where(ids == 2, 0, ids)),
        "'pole' (2)", 'metainfo',
    ),
    'classes of another dataset': (
        lambda cfg: train(cfg).update(metainfo=dict(classes=(*CLASSES, 'tram'))), "'tram' (4)", '',
    ),
    'too few outputs': (
        lambda cfg: set_head(cfg, num_classes=3), 'has 3 classes, the dataset 4', 'num_classes=4',
    ),
    'too many outputs in one head': (
        lambda cfg: cfg.model.auxiliary_head.update(num_classes=19),
        'has 19 classes, the dataset 4', 'model.auxiliary_head',
    ),
    'ignore_index of the head': (
        lambda cfg: set_head(cfg, ignore_index=0), 'ignores 0, the dataset 255', 'ignore_index=255',
    ),
    'ignore_index of the dataset': (
        lambda cfg: train(cfg).update(ignore_index=254), 'ignores 255, the dataset 254', 'model.',
    ),
    'a class that is ignored': (
        lambda cfg: (set_head(cfg, ignore_index=3), train(cfg).update(ignore_index=3)),
        "is the class 'sky', which is never trained", 'ignore_index above 3',
    ),
    'one channel by softmax': (
        one_channel_by_softmax,
        'one output channel with CrossEntropyLoss by softmax', 'use_sigmoid=True, or out_chan',
    ),
    'a truncated label': (lambda cfg: stubs.truncated(labels(cfg)[2]), 'truncated', 'train002x'),
    'a truncated image': (lambda cfg: stubs.truncated(images(cfg)[2]), 'truncated', 'get the file'),
    'an empty image': (lambda cfg: stubs.empty(images(cfg)[1]), '0 bytes', 'get the file'),
    'a label lost': (lambda cfg: stubs.missing(labels(cfg)[0]), 'missing', 'put the file there'),
    'a label of another size': (
        lambda cfg: stubs.write(labels(cfg)[4], np.zeros((8, 8), np.uint8)),
        '8x8 pixels, and its image 48x32', 'train004x.png',
    ),
    'labels in colour': (
        lambda cfg: each_label(cfg, lambda ids: np.stack([ids] * 3, -1)),
        'single-channel ids, not 3 channels', '8-bit images of ids',
    ),
    'labels of 16 bits': (
        lambda cfg: each_label(cfg, lambda ids: ids.astype(np.uint16) * 300),
        'expected 8-bit single-channel ids, and found', '8-bit images of ids',
    ),
    'a rotation that pads': (pad_with_a_class, 'make ids [77], which no label has', 'seg_pad_val'),
    'validation on training images': (copy_images, '3 of 3 images of val_dataloader', 'x.png is'),
    'test on training images, encoded again': (
        reencode_images, '3 of 3 images of test_dataloader are training images', 'take them out',
    ),
    'validation on the training set': (
        lambda cfg: cfg.val_dataloader.dataset.update(
            data_prefix=dict(img_path='images/train', seg_map_path='annotations/train')
        ),
        '8 of 8 images of val_dataloader are training images', 'score on others',
    ),
    'frames of one drive': (drive, '3 of 3 images of val_dataloader are frames beside', '0016E5_*'),
    'no test images': (
        lambda cfg: cfg.test_dataloader.dataset.update(img_suffix='.tif'),
        'no image with a name of its suffix', 'test_dataloader',
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', BROKEN)
def test_a_fault_is_named_with_its_place_and_cure(cfg: Config, kind: str) -> None:
    spoil, what, elsewhere = BROKEN[kind]
    spoil(cfg)
    found = diagnose(cfg).faults
    assert any(
        what in fault.what and elsewhere in f'{fault.where} {fault.cure} {fault.what}'
        for fault in found
    ), found
    # Nothing but what was broken is accused; masks and 16 bits lose a class as well.
    assert len(found) <= 3


def as_it_is(cfg: Config) -> None:
    pass


def with_ignored_pixels(cfg: Config) -> None:
    each_label(cfg, lambda ids: np.where(ids == 2, ids, np.pad(ids[1:-1], ((1, 1), (0, 0)),
               constant_values=255)))  # fmt: skip


def with_reduced_labels(cfg: Config) -> None:
    for split in ('train', 'val', 'test'):
        each_label(cfg, lambda ids: ids + 1, split)
        cfg[f'{split}_dataloader'].dataset.reduce_zero_label = True


def with_a_rotation(cfg: Config) -> None:
    train(cfg).pipeline.insert(2, dict(type='RandomRotate', prob=1.0, degree=20))


def repeated(cfg: Config) -> None:
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=train(cfg))


@pytest.mark.parametrize(
    'change',
    [
        as_it_is,
        with_ignored_pixels,
        with_reduced_labels,
        with_one_channel,
        with_a_rotation,
        repeated,
    ],
)
def test_a_healthy_config_is_not_accused(cfg: Config, change: Any) -> None:
    change(cfg)
    assert diagnose(cfg).faults == []


def test_the_chance_of_a_class_is_what_batches_show(cfg: Config) -> None:
    """As a training log would say: batches of the loader that show the class, of all."""
    found = diagnose(cfg)
    from mmengine.runner import Runner

    loader = Runner.build_dataloader(
        dict(
            **{**cfg.train_dataloader, 'num_workers': 0},
            sampler=dict(type='InfiniteSampler', shuffle=True),
        ),
        seed=0,
    )
    shown = np.zeros(4)
    for _, batch in zip(range(1000), loader, strict=False):
        ids = {
            int(c)
            for sample in batch['data_samples']
            for c in sample.gt_sem_seg.data.unique()
            if c < 4
        }
        shown[list(ids)] += 1
    predicted = np.array([row.chance for row in found.classes])
    np.testing.assert_allclose(predicted, shown / 1000, rtol=0.1)
    assert found.classes[2].steps == pytest.approx(1 / predicted[2])


def test_shares_and_objects_are_counted(cfg: Config) -> None:
    train(cfg).pipeline.pop(2)  # whole images
    found = diagnose(cfg)
    ids = np.stack([cv2.imread(str(path), -1) for path in labels(cfg)])
    for c, row in enumerate(found.classes):
        assert row.pixels == pytest.approx((ids == c).mean())
        assert row.images == (ids == c).any(axis=(1, 2)).mean()
    car = found.classes[1]
    assert car.objects >= 8 and car.chance == 1


def test_imbalance_is_not_the_problem_of_equal_classes(cfg: Config) -> None:
    each_label(cfg, lambda ids: np.indices(SIZE).sum(0).astype(np.uint8) // 8 % 4)
    found = diagnose(cfg)
    assert 'Imbalance is not your problem' in found.verdict
    assert found.regime is None and found.advice == []
    assert 'Imbalance is not your problem' not in diagnose_rare(cfg).verdict


def diagnose_rare(cfg: Config) -> Any:
    each_label(
        cfg, lambda ids: np.where(np.indices(SIZE).sum(0) == 40, 3, ids % 3).astype(np.uint8)
    )
    return diagnose(cfg)


def test_a_class_that_few_batches_show_is_named(cfg: Config) -> None:
    cfg.train_cfg.max_iters = 8
    assert 'Fewer than 10 batches of the 8 will show road' in diagnose(cfg).verdict


def test_the_nearest_regime_is_itself() -> None:
    for regime in regimes():
        assert nearest_regime(regime.rarest, regime.gini, regime.epochs) == (regime, True)
        assert not nearest_regime(regime.rarest / 100, regime.gini, regime.epochs)[1]
        tried = worth_trying(regime)
        places = [(gain['outcome'] != 'supported', -gain['mIoU'][0]) for gain in tried]
        assert places == sorted(places) and all(gain['mIoU'][0] > 0 for gain in tried)
        assert all(
            (ROOT / 'configs/_base_/losses' / gain['base']).is_file() for gain in regime.gains
        )


@pytest.mark.slow
def test_the_table_of_regimes_is_that_of_the_records(tmp_path: Path) -> None:
    study = ['camvid', 'camvid-480', 'camvid-960', 'synthia-mini']
    study += ['frozen-neu_seg', 'frozen-neu_seg-600', 'frozen-neu_seg-2400', 'frozen-camvid']
    study += ['frozen-camvid-300', 'frozen-magnetic_tile']
    records = [ROOT / 'results/study' / folder for folder in study]
    for folder in ('camvid', 'synthia-mini'):
        # The study has cross-entropy's runs anew, with the post-hoc curve.
        found = (ROOT / 'results' / folder).glob('*.json')
        records += [path for path in found if '_ce_' not in path.name]
    run(ROOT / 'tools/measured_regimes.py', *records, '--out', tmp_path / 'regimes.json')
    assert json.loads((tmp_path / 'regimes.json').read_text()) == [r._asdict() for r in regimes()]


@pytest.mark.parametrize('tool', ['diagnose', 'class_statistics'])
@pytest.mark.parametrize(
    ('name', 'text', 'says'),
    [
        ('missing.py', None, 'No such file'),
        ('config.txt', 'hello', 'Only py/yml/yaml/json'),
        ('broken.py', 'a = = 1', 'invalid syntax'),
    ],
)
def test_a_config_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tool: str, name: str, text: Any,
    says: str,
) -> None:  # fmt: skip
    if text:
        (tmp_path / name).write_text(text)
    monkeypatch.setattr('sys.argv', [tool, str(tmp_path / name)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'), run_name='__main__')
    assert says in capsys.readouterr().err


def test_a_page_is_not_begun_where_a_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr('sys.argv', ['diagnose', 'any.py', '--markdown', str(tmp_path)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools/diagnose.py'), run_name='__main__')
    assert 'is a folder' in capsys.readouterr().err


def test_gini_and_chance() -> None:
    assert gini(np.array([0, 0, 0, 8])) == 0.75
    np.testing.assert_allclose(chance_in_batch(np.array([0.1, 1.0]), 3), [1 - 0.9**3, 1])


def test_what_no_crop_showed_is_neither_never_nor_known(cfg: Config) -> None:
    """A pole of one pixel in one image, that each crop leaves out; a label that is damaged."""
    each_label(cfg, lambda ids: np.where(ids == 2, 0, ids))
    ids = cv2.imread(str(labels(cfg)[0]), -1)
    ids[-1, 0] = 2
    stubs.write(labels(cfg)[0], ids)
    train(cfg).pipeline[2] = dict(type='CenterCrop', crop_size=(8, 8))
    found = diagnose(cfg)
    row, page = found.classes[2], as_markdown(found)
    assert row.pixels > 0 and (row.chance, row.steps) == (0, None)
    assert f'| 0 | over {found.crops // 2} |' in page and 'never' not in page
    assert 'Fewer than 10 batches of the 100 will show pole' in found.verdict
    stubs.truncated(labels(cfg)[1])
    found = diagnose(cfg)
    assert {(row.chance, row.steps, row.objects) for row in found.classes} == {(None, None, None)}
    assert '| - | - | - | - |' in as_markdown(found) and 'Fewer than' not in found.verdict


def test_pages_hold_what_was_found(cfg: Config) -> None:
    masks(cfg)
    found = diagnose(cfg)._replace(config='a|b <script>.py')
    page = as_markdown(found)
    assert '| 100 | 1.0 |' in page and 'e+' not in page
    assert '<script>' not in page and r'a\|b' in page
    assert '| road | ' in page and '## Faults' in page
    content = json.loads(as_json(found))
    assert [row['name'] for row in content['classes']] == ['road', 'car']
    assert content['faults'][0]['cure']


def trained(cfg: Config, outputs: int | None = None) -> str:
    """A checkpoint of a tiny model, of weights that nobody trained."""
    preprocessor = dict(type='SegDataPreProcessor', size=SIZE)
    cfg.model.update(
        data_preprocessor=preprocessor, train_cfg=dict(), test_cfg=dict(mode='whole'),
        backbone=dict(type='ResNet', depth=18, base_channels=2, stem_channels=2),
    )  # fmt: skip
    del cfg.model['auxiliary_head']
    cfg.model.decode_head.update(in_channels=16, channels=4, num_convs=1)
    if outputs:
        cfg.model.decode_head.update(out_channels=outputs)
    cfg.test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg.test_cfg = dict(type='TestLoop')
    for loader in ('val_dataloader', 'test_dataloader'):
        cfg[loader].update(
            batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)
        )
    torch.manual_seed(0)
    path = Path(train(cfg).data_root) / 'trained.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return str(path)


@pytest.mark.parametrize('shares', [False, True])
def test_a_checkpoint_is_scored_with_what_costs_no_training(cfg: Config, shares: bool) -> None:
    """Test images of their own, or those of validation: then by halves."""
    if shares:
        cfg.test_dataloader = cfg.val_dataloader
    path = trained(cfg)
    found = diagnose(cfg, path)
    assert cfg.test_evaluator.type == 'IoUMetric'
    page, content = as_markdown(found), json.loads(as_json(found))
    assert content['curve']['tau=0.5/mIoU'] == found.curve['tau=0.5/mIoU']
    assert f'| tau=0.5 | {found.curve["tau=0.5/mIoU"]:.1f} | ' in page
    values = content['offsets']['values']
    assert len(values) == len(CLASSES)
    assert f'| pole | {values[2]:+.2f} | ' in page
    where = 'each half by the other' if shares else 'by the validation images'
    for name, heading in (('mIoU', 'mIoU'), ('mAcc', 'mean accuracy')):
        mean, low, high = content['offsets']['gains'][name]
        assert low <= mean <= high
        assert f'{heading} {mean:+.1f} ({low:+.1f} to {high:+.1f})' in page
    assert page.count(f'on 3 test images, chosen {where}; ') >= 1
    one = diagnose(cfg, path, groups='^(.)').trained
    assert any('on 3 test images in 1 groups, ' in said for said in one), one


@pytest.mark.parametrize('name', [None, 'visualizer'])
def test_two_tests_in_one_second_do_not_share_a_visualizer(
    cfg: Config, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """The first one's folder is gone; a config names it, as mmseg's do, or the clock does."""
    monkeypatch.setattr('mmengine.runner.runner.time.strftime', lambda *_: '20260101_000000')
    path = trained(cfg)
    if name:
        backends = [dict(type='LocalVisBackend')]
        cfg.visualizer = dict(type='SegLocalVisualizer', vis_backends=backends, name=name)
    first, second = (diagnose(cfg, path).offsets for _ in range(2))
    assert first is not None and first == second


@pytest.mark.parametrize('groups', ['(', 'none.json', '[]'])
def test_wrong_groups_are_refused_before_the_data_are_read(cfg: Config, groups: str) -> None:
    """An expression that is none, a file that is not there, an empty set of characters."""
    cfg.train_dataloader.dataset.data_root = 'nowhere'
    with pytest.raises(ValueError, match=r'no (regular expression|JSON file of groups)'):
        diagnose(cfg, 'trained.pth', groups)


@pytest.mark.parametrize('change', [dict(channels=8), dict(num_convs=2)])
def test_a_checkpoint_of_another_model_is_not_scored(cfg: Config, change: dict) -> None:
    path = trained(cfg)
    cfg.model.decode_head.update(change)
    with pytest.raises(ValueError, match=r'trained\.pth is not of this config: \d+ of \d+ weights'):
        diagnose(cfg, path)


def test_a_head_of_one_channel_is_scored_at_other_thresholds(cfg: Config) -> None:
    with_one_channel(cfg)
    found = diagnose(cfg, trained(cfg, outputs=1))
    assert {name.split('/')[0] for name in found.curve} == {
        f'threshold={value:g}' for value in (0.05, *np.arange(1, 10) / 10)
    }
    assert found.offsets is None and json.loads(as_json(found))['offsets'] is None
    assert '| threshold=0.3 | ' in as_markdown(found)
    said = ' '.join(found.trained)
    assert 'Free, without training: a threshold' in said
    assert 'gains no mean IoU' in said or 'chosen by the validation images' in said


def pixels(rng: np.random.Generator, images: int, bias: float) -> list[Any]:
    """Logits that tell two classes apart, but for a constant that favours the first."""
    made = []
    for _ in range(images):
        ids = (rng.random(2000) < 0.1).astype(np.int64)
        logits = rng.normal(0, 1, (2000, 2))
        logits[np.arange(2000), ids] += 4
        logits[:, 0] += bias
        made.append((logits.astype(np.float32), ids))
    return made


def test_offsets_gain_what_a_wrong_constant_costs() -> None:
    rng = np.random.default_rng(0)
    test, val = pixels(rng, 20, 3.0), pixels(rng, 10, 3.0)
    for held_out in (HeldOut(test, val), HeldOut(test)):
        found = free_gain(held_out, _fitted)
        assert found.values[1] - found.values[0] == pytest.approx(3 - math.log(9) / 4, abs=1)
        mean, low, high = found.gains['mIoU']
        before, after = (np.mean([pair[side] for pair in found.iou]) for side in (0, 1))
        assert mean == pytest.approx(after - before)
        assert 5 < low < mean < high
    # Nothing to gain, and no interval that says so.
    found = free_gain(HeldOut(pixels(rng, 20, 0.0), pixels(rng, 10, 0.0)), _fitted)
    assert found.gains['mIoU'][1] < 0.5


def test_gains_are_those_of_confusion_matrices_and_groups_widen_them() -> None:
    rng = np.random.default_rng(1)
    test, shift = pixels(rng, 12, 2.0), np.array([0.0, 1.5])

    def means(added: np.ndarray) -> tuple[float, float]:
        matrix = np.zeros((2, 2))
        for logits, ids in test:
            np.add.at(matrix, (ids, (logits + added).argmax(1)), 1)
        hit, rows, columns = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        return 100 * (hit / (rows + columns - hit)).mean(), 100 * (hit / rows).mean()

    found = free_gain(HeldOut(test), lambda _: shift, as_is=-shift)
    expected = np.subtract(means(shift), means(-shift))
    gained = [found.gains[name][0] for name in ('mIoU', 'mAcc')]
    assert gained == pytest.approx(expected.tolist())
    # Each image twice says nothing new.
    twice, groups = [*test, *test], [*range(12), *range(12)]
    for grouped, width in ((None, math.sqrt(2)), (groups, 1)):
        again = free_gain(HeldOut(twice, None, grouped), lambda _: shift, as_is=-shift)
        (_, low, high), (mean, lowest, highest) = again.gains['mIoU'], found.gains['mIoU']
        assert (high - low) * width == pytest.approx(highest - lowest, rel=0.15)
        assert again.gains['mIoU'][0] == pytest.approx(mean)


def test_pixels_of_one_channel_are_those_of_two_classes() -> None:
    kept = KeptPixels(1, 2, 255)
    z = torch.linspace(-3, 3, 64).view(1, 8, 8)
    label = torch.zeros(1, 8, 8, dtype=torch.long)
    data = dict(
        seg_logits=dict(data=z.sigmoid()), gt_sem_seg=dict(data=label), img_path='a/b_1.png'
    )
    kept.process({}, [data])
    kept.compute_metrics(kept.results)
    assert kept.names == ['b_1']
    expected = torch.stack([torch.zeros_like(z[0]), z[0]])[:, 2::4, 2::4].flatten(1).T
    torch.testing.assert_close(torch.from_numpy(kept.images[0][0]), expected)


def test_offsets_are_those_of_a_logit_adjustment() -> None:
    offsets = [0.0, 1.5, -6.0, 6.0]
    counts = json.loads(as_options(offsets).partition('class_counts=')[2])
    logits = np.random.default_rng(0).normal(0, 3, (1000, 4))
    adjusted = logits - log_prior(torch.tensor(counts, dtype=torch.float64), 1.0).numpy()
    assert np.array_equal(adjusted.argmax(1), (logits + offsets).argmax(1))
