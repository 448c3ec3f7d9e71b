"""The metric against pixel-by-pixel counting in plain Python, and against mmseg's own."""

import math

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

from mmseg_recall.evaluation import load_areas
from tests.models.test_logit_adjustment import COUNTS, MODEL, MODES, adjusted
from tests.models.test_logit_adjustment import build as build_model

CLASSES = ('road', 'pole', 'bike', 'never')


def samples(seed: int, images: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of prediction and label: ignored pixels, classes absent from images or altogether."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(images):
        present = int(torch.randint(1, 4, (), generator=generator))
        label = torch.randint(0, present, (5, 7), generator=generator)
        noise = torch.rand(5, 7, generator=generator)
        prediction = torch.where(
            noise < 0.6, label, torch.randint(0, 3, (5, 7), generator=generator)
        )
        label[torch.rand(5, 7, generator=generator) < 0.1] = 255
        pairs.append((prediction, label))
    return pairs


def evaluate(metric: IoUMetric, pairs) -> dict[str, float]:
    metric.dataset_meta = dict(classes=CLASSES)
    for prediction, label in pairs:
        sample = SegDataSample(
            pred_sem_seg=PixelData(data=prediction[None]), gt_sem_seg=PixelData(data=label[None])
        )
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(pairs))


def count(pairs, c: int) -> tuple[int, int, int]:
    """Pixels of class c that are hit, predicted and labelled, one pixel at a time."""
    hit = predicted = labelled = 0
    for prediction, label in pairs:
        for p, y in zip(prediction.flatten().tolist(), label.flatten().tolist(), strict=True):
            if y == 255:
                continue
            hit += p == y == c
            predicted += p == c
            labelled += y == c
    return hit, predicted, labelled


def divide(a: float, b: float) -> float:
    return a / b if b else math.nan


def nan_mean(values) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def worst(values, percent: float) -> float:
    known = sorted(v for v in values if not math.isnan(v))
    return nan_mean(known[: max(1, int(percent / 100 * len(known)))])


@pytest.fixture(params=[0, 1, 2])
def pairs(request):
    return samples(request.param)


def build(**kwargs) -> IoUMetric:
    return METRICS.build(dict(type='PerClassIoUMetric', **kwargs))


def test_what_iou_metric_returns_is_unchanged(pairs):
    names = ['mIoU', 'mFscore']
    stock = evaluate(IoUMetric(iou_metrics=names), pairs)
    ours = evaluate(build(iou_metrics=names), pairs)
    assert {k: ours[k] for k in stock} == pytest.approx(stock, abs=0, nan_ok=True)


def test_per_class_scalars_are_those_of_counting(pairs):
    ours = evaluate(build(), pairs)
    expected = {}
    for c, name in enumerate(CLASSES):
        hit, predicted, labelled = count(pairs, c)
        expected[f'IoU/{name}'] = divide(hit, predicted + labelled - hit)
        expected[f'Acc/{name}'] = divide(hit, labelled)
        expected[f'Precision/{name}'] = divide(hit, predicted)
        expected[f'F1/{name}'] = divide(2 * hit, predicted + labelled)
    expected['mPrecision'] = nan_mean(v for k, v in expected.items() if k[:5] == 'Preci')
    expected['mF1'] = nan_mean(v for k, v in expected.items() if k[:2] == 'F1')
    rounded = {k: round(100 * v, 2) for k, v in expected.items()}
    assert {k: ours[k] for k in rounded} == pytest.approx(rounded, abs=1e-9, nan_ok=True)
    assert math.isnan(ours['IoU/never'])


def test_fine_grained_means_are_those_of_counting(pairs):
    iou = []
    for pair in pairs:
        counts = [count([pair], c) for c in range(len(CLASSES))]
        iou.append([divide(h, p + n - h) if n else math.nan for h, p, n in counts])
    per_image = [nan_mean(row) for row in iou]
    per_class = list(zip(*iou, strict=True))
    expected = {'mIoU_I': nan_mean(per_image), 'mIoU_C': nan_mean(map(nan_mean, per_class))}
    for q in (5, 30):
        expected[f'mIoU_I{q}'] = worst(per_image, q)
        expected[f'mIoU_C{q}'] = nan_mean(worst(column, q) for column in per_class)
    ours = evaluate(build(worst=(5, 30)), pairs)
    rounded = {k: round(100 * v, 2) for k, v in expected.items()}
    assert {k: ours[k] for k in rounded} == pytest.approx(rounded, abs=1e-9)


def test_a_false_positive_in_an_image_without_the_class_leaves_the_image_level_alone():
    label = torch.zeros(4, 4, dtype=torch.long)
    prediction = label.clone()
    prediction[0, 0] = 1
    ours = evaluate(build(), [(prediction, label)])
    assert ours['mIoU_I'] == round(100 * 15 / 16, 2)
    assert ours['mIoU'] == pytest.approx(100 * 15 / 32, abs=0.01)


def test_every_metric_can_be_computed_from_the_areas_file(pairs, tmp_path):
    path = tmp_path / 'new' / 'areas.npz'
    evaluate(build(areas_file=str(path)), pairs)
    areas, classes = load_areas(path)
    assert tuple(classes) == CLASSES
    for c in range(len(CLASSES)):
        assert tuple(int(area[:, c].sum()) for area in areas) == count(pairs, c)
    assert areas.union.dtype == np.int64


def test_sums_stay_exact_beyond_what_float32_holds():
    metric = build()
    metric.dataset_meta = dict(classes=('a', 'b'))
    big, one = torch.tensor([2**24, 0]), torch.tensor([1, 0])
    label = torch.tensor([2**24, 2])
    row = (big, label, big, label)
    small = (one, one, one, one)
    metrics = metric.compute_metrics([row, *[small] * 5])
    assert metrics['Acc/a'] == 100 and metrics['Acc/b'] == 0


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
@pytest.mark.parametrize('ignored', [0, 1000])
def test_an_image_of_more_pixels_than_float32_counts(dtype, ignored):
    # 17 of 18 million pixels are road, all of them found, and none of the poles.
    label = torch.zeros(3600, 5000, dtype=dtype)
    label[3400:] = 1
    label[:1, :ignored] = 255
    road = 17_000_000 - ignored
    metrics = evaluate(build(), [(torch.zeros(3600, 5000, dtype=dtype), label)])
    assert metrics['aAcc'] == round(100 * road / (road + 1_000_000), 2)
    assert metrics['mAcc'] == 50
    assert metrics['Acc/road'] == 100 and metrics['IoU/pole'] == 0
    assert metrics['Precision/road'] == metrics['IoU/road'] == metrics['aAcc']


def test_ids_that_are_no_class_are_counted_as_iou_metric_counts_them():
    label = torch.tensor([[0, 1, 7, 255, 2]])
    prediction = torch.tensor([[0, 1, 1, 1, 9]])
    stock = IoUMetric.intersect_and_union(prediction, label, 4, 255)
    ours = build().intersect_and_union(prediction, label, 4, 255)
    assert [area.tolist() for area in ours] == [area.int().tolist() for area in stock]


def test_nan_to_num_replaces_what_cannot_be_scored(pairs):
    assert evaluate(build(nan_to_num=0), pairs)['IoU/never'] == 0


@pytest.mark.parametrize('percent', [0, -1, 101])
def test_a_percentage_out_of_range_is_refused(percent):
    with pytest.raises(ValueError, match='worst must be percentages'):
        build(worst=(percent,))


def evaluate_model(model: dict, taus=(0.5, 1.5), classes=3, **options) -> dict[str, float]:
    """Metrics of a model with random weights on images that are resized to be scored."""
    init_default_scope('mmseg')
    metric = build(taus=taus, **options)
    metric.dataset_meta = dict(classes=CLASSES[:classes])
    generator = torch.Generator().manual_seed(1)
    network = build_model(model)
    meta = dict(img_shape=(48, 64), ori_shape=(72, 96), pad_shape=(48, 64))
    for _ in range(2):
        label = torch.randint(0, classes, (1, 72, 96), generator=generator)
        label[:, :, :20] = 255
        sample = SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta)
        with torch.no_grad():
            (sample,) = network.predict(torch.randn(1, 3, 48, 64, generator=generator), [sample])
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(2)


@pytest.mark.parametrize('mode', MODES)
def test_one_pass_scores_what_testing_with_each_tau_does(mode):
    model = dict(MODEL, **MODES[mode])
    plain, curve = evaluate_model(model), evaluate_model(model, class_counts=COUNTS)
    assert {k: curve[k] for k in plain} == pytest.approx(plain, abs=0, nan_ok=True)
    for tau in (0.5, 1.5):
        stock = evaluate_model(adjusted(model, tau=tau))
        for name in ('aAcc', 'mIoU', 'mAcc'):
            # IoUMetric rounds in float32.
            assert curve[f'tau={tau}/{name}'] == pytest.approx(stock[name], abs=1e-5)
    assert curve['tau=1.5/aAcc'] != plain['aAcc']  # so that there is something to see


def one_channel(threshold: float) -> dict:
    head = {**MODEL['decode_head'], 'num_classes': 2, 'out_channels': 1, 'threshold': threshold}
    head['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    return {**MODEL, 'decode_head': head}


def test_one_pass_scores_what_testing_with_each_threshold_does():
    thresholds = (0.5, 0.9526, 0.99)  # the second is about where the model's predictions are
    curve = evaluate_model(one_channel(0.3), classes=2, thresholds=thresholds)
    for threshold in thresholds:
        stock = evaluate_model(one_channel(threshold), classes=2)
        for name in ('aAcc', 'mIoU', 'mAcc'):
            found = curve[f'threshold={threshold:g}/{name}']
            assert found == pytest.approx(stock[name], abs=1e-5)
    assert curve['threshold=0.99/aAcc'] != curve['aAcc']  # so that there is something to see


@pytest.mark.parametrize(
    ('model', 'options', 'message'),
    [
        (one_channel(0.3), dict(class_counts=[9, 1], classes=2), 'threshold does the same'),
        (MODEL, dict(thresholds=(0.5,)), 'thresholds are for one channel, the logits have 3'),
        (MODEL, dict(thresholds=(0.5,), class_counts=COUNTS), 'class_counts are for logits'),
    ],
)
def test_what_is_free_of_the_other_kind_of_head_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_model(model, **options)


def test_the_curve_has_seven_taus_unless_others_are_given():
    metric = build(class_counts=COUNTS)
    assert metric.taus == [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
    assert build().taus == []


def test_the_curve_replaces_what_cannot_be_scored_as_iou_metric_does():
    options = dict(class_counts=COUNTS, taus=(0,), nan_to_num=0)
    metrics = evaluate_model(MODEL, **options)
    assert metrics['tau=0/mIoU'] == pytest.approx(metrics['mIoU'], abs=1e-5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(taus=(-1.0,)), 'tau must be >= 0'),
        (dict(class_counts=[1, 2]), '2 classes, the logits have 3'),
        (dict(class_counts=[1, 0, 2]), '0 for the classes 1'),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_model(MODEL, **{'class_counts': COUNTS, **options})


def test_a_missing_file_of_counts_is_named():
    with pytest.raises(FileNotFoundError, match=r'class_statistics\.py CONFIG'):
        build(class_counts='nowhere.json')
