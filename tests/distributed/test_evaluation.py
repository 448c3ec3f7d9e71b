"""PerClassIoUMetric across ranks: every rank has the values of all images, each counted once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

from mmseg_recall.evaluation import load_areas
from tests.evaluation.test_per_class_iou_metric import CLASSES, samples

from .ranks import WORLD_SIZES, Ranks

# Not a multiple of 2 or 4: the sampler repeats images so that all ranks have as many.
IMAGES = 7


def evaluate(collect_device: str, areas_file: str) -> dict[str, float]:
    pairs = samples(seed=0, images=IMAGES)
    cfg = dict(
        type='PerClassIoUMetric',
        collect_device=collect_device,
        areas_file=areas_file,
        class_counts=[1000, 100, 10, 1],
    )
    metric = METRICS.build(cfg)
    metric.dataset_meta = dict(classes=CLASSES)
    for index in DefaultSampler(pairs, shuffle=False):
        prediction, label = (PixelData(data=values[None]) for values in pairs[index])
        logits = torch.randn(len(CLASSES), 5, 7, generator=torch.Generator().manual_seed(index))
        sample = SegDataSample(
            pred_sem_seg=prediction, gt_sem_seg=label, seg_logits=PixelData(data=logits)
        )
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(IMAGES)


# Results are exchanged in a shared folder, or by the process group.
@pytest.mark.parametrize('collect_device', ['cpu', 'gpu'])
@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_every_rank_has_the_metrics_of_all_images(
    world_size: int, collect_device: str, ranks: Ranks, tmp_path: Path
) -> None:
    whole = evaluate('cpu', str(tmp_path / 'whole.npz'))
    assert 'tau=0.25/mIoU' in whole
    path = tmp_path / 'ranks.npz'
    for metrics in ranks.run(world_size, evaluate, collect_device, str(path)):
        assert metrics == pytest.approx(whole, abs=0, nan_ok=True)
    areas, classes = load_areas(path)
    expected, _ = load_areas(tmp_path / 'whole.npz')
    assert tuple(classes) == CLASSES
    for values, theirs in zip(areas, expected, strict=True):
        assert np.array_equal(values, theirs)
