"""Two hundred steps in float32, bfloat16 and float16 end alike, to the noise of seeds."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_recall.datasets.mini_scenes import render_frame
from mmseg_recall.functional import count_classes, jaccard

from .cases import samples_of

NUM_CLASSES = 16
STEPS, BATCH_SIZE, SEEDS = 200, 4, 3
MODEL = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        stem_channels=8,
        base_channels=8,
        num_stages=3,
        out_indices=(2,),
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        norm_cfg=dict(type='BN'),
    ),
    decode_head=dict(
        type='FusedFCNHead',
        in_channels=32,
        in_index=0,
        channels=16,
        num_convs=1,
        num_classes=NUM_CLASSES,
        dropout_ratio=0,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='RecallLoss'),
    ),
    test_cfg=dict(mode='whole'),
)


def scenes(frames: range) -> tuple[Tensor, Tensor]:
    views = [view for frame in frames for view in render_frame(frame, 0, 64, 48).values()]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in views])
    return images / 64.0 - 2, torch.stack([torch.from_numpy(label).long() for _, label in views])


def train(dtype: torch.dtype, seed: int, images: Tensor, labels: Tensor) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = MODELS.build(MODEL).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler('cpu', enabled=dtype == torch.float16)
    for _ in range(STEPS):
        batch = torch.randperm(len(images))[:BATCH_SIZE]
        with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
            losses = model.loss(images[batch], samples_of(labels[batch]))
        optimizer.zero_grad()
        scaler.scale(losses['decode.loss_recall']).backward()
        scaler.step(optimizer)
        scaler.update()
    return model.eval()


@torch.no_grad()
def evaluate(model: torch.nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Loss and mIoU, in float32."""
    meta = dict(img_shape=images.shape[2:])
    logits = model.encode_decode(images, [meta] * len(images))
    loss = model.decode_head.loss_decode(logits, labels)
    valid = torch.ones_like(labels, dtype=torch.bool)
    counts = count_classes(logits.argmax(1), labels, NUM_CLASSES, valid)
    return loss.item(), jaccard(counts)[counts.pixels > 0].mean().item()


@pytest.mark.slow
def test_low_precision_ends_within_the_noise_of_seeds() -> None:
    seen, unseen = scenes(range(12)), scenes(range(100, 106))
    results = {
        dtype: torch.tensor(
            [evaluate(train(dtype, seed, *seen), *unseen) for seed in range(SEEDS)]
        ).double()
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    }
    for dtype, values in results.items():
        print(dtype, 'loss, mIoU:', values.mean(0).tolist(), '+-', values.std(0).tolist())
    float32 = results.pop(torch.float32)
    for dtype, values in results.items():
        difference = (values.mean(0) - float32.mean(0)).abs()
        standard_error = float32.std(0) * (2 / SEEDS) ** 0.5
        assert torch.all(difference <= 3 * standard_error), (dtype, values, float32)
