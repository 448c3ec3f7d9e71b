"""Every decode head that ships with mmseg takes a training step with our losses, or says why not.

The models are those of the configs in mmseg's package, narrowed so that a step takes moments.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import mmcv
import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_recall.config import heads
from mmseg_recall.losses import RecallLoss, SegmentationLoss, available_losses
from mmseg_recall.losses.base import RegionLoss
from mmseg_recall.models import fuse_tails, swap_loss

CONFIGS = Path(mmseg.__path__[0]) / '.mim/configs'
SIZE = 64

VIT = {
    'model.backbone.img_size': (SIZE, SIZE),
    'model.backbone.num_layers': 4,
    'model.backbone.out_indices': (0, 1, 2, 3),
}
# A config for each head, and what to change beyond the widths for a small model of it.
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    'ANNHead': ('ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'APCHead': ('apcnet/apcnet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'ASPPHead': ('deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'CCHead': ('ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'DAHead': ('danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'DDRHead': ('ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024', {}),
    'DMHead': ('dmnet/dmnet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'DNLHead': ('dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'DPTHead': ('dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512', VIT),
    'DepthwiseSeparableASPPHead': (
        'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024',
        {},
    ),
    'DepthwiseSeparableFCNHead': ('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024', {}),
    'EMAHead': ('emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024', {}),
    'EncHead': ('encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'FCNHead': ('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'FPNHead': ('sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024', {}),
    'GCHead': ('gcnet/gcnet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'ISAHead': ('isanet/isanet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'IterativeDecodeHead': ('knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512', {}),
    'LRASPPHead': (
        'mobilenet_v3/mobilenet-v3-d8-scratch-s_lraspp_4xb4-320k_cityscapes-512x1024',
        {
            'model.decode_head.in_channels': (16, 16, 576),
            'model.backbone.out_indices': (0, 1, 12),
            # Its head pools over 49 x 49 features.
            'model.data_preprocessor.size': (400, 400),
        },
    ),
    'LightHamHead': (
        'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512',
        {'model.backbone.depths': [1, 1, 1, 1], 'model.decode_head.norm_cfg.num_groups': 4},
    ),
    'NLHead': ('nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'OCRHead': ('ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024', {'model.backbone.depth': 50}),
    'PIDHead': ('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes', {}),
    'PSAHead': (
        'psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024',
        {'model.decode_head.mask_size': (7, 7)},
    ),
    'PSPHead': ('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024', {}),
    'PointHead': ('point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024', {}),
    'SETRMLAHead': ('setr/setr_vit-l_mla_8xb1-80k_cityscapes-768x768', VIT),
    'SETRUPHead': ('setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768', VIT),
    'STDCHead': ('stdc/stdc1_4xb12-80k_cityscapes-512x1024', {}),
    'SegformerHead': ('segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024', {}),
    'SegmenterMaskTransformerHead': (
        'segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512',
        {k: v for k, v in VIT.items() if 'out_indices' not in k},
    ),
    'UPerHead': ('upernet/upernet_r50_4xb2-40k_cityscapes-512x1024', {}),
    # Architectures of their own whose heads are in this table already.
    'BiSeNetV1': ('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024', {}),
    'BiSeNetV2': ('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024', {}),
    'ICNet': ('icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832', {}),
    'UNet': ('unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024', {}),
}
ARCHITECTURES = {'BiSeNetV1', 'BiSeNetV2', 'ICNet', 'UNet'}

# What docs/reliability.md says of these is what the tests below assert.
NO_PIXEL_LOSS = {
    'Mask2FormerHead': 'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512',
    'MaskFormerHead': 'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512',
    'SideAdapterCLIPHead': 'san/san-vit-b16_coco-stuff164k-640x640',
    'VPDDepthHead': 'vpd/vpd_sd_4xb8-25k_nyu-480x480',
}

HAS_COMPILED_OPERATORS = find_spec('mmcv._ext') is not None
OPERATORS_IN_PYTHON = {
    'CCHead': ('cc_attention', 'CrissCrossAttention'),
    'PointHead': ('point_sample', 'point_sample'),
}
COMPILED_OPERATORS = ['PSAHead']
TRAINABLE = [name for name in HEADS if HAS_COMPILED_OPERATORS or name not in COMPILED_OPERATORS]
loaded: dict[str, ModuleType] = {}


def narrow(node: Any) -> Any:
    """A model's config with a sixteenth of its widths, plain BN, and nothing to download."""
    if isinstance(node, (list, tuple)):
        return [narrow(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: narrow(value) for key, value in node.items() if key != 'pretrained'}
    for key, value in node.items():
        if key.endswith('channels') or key == 'embed_dims':
            several = isinstance(value, list)
            few = [v // 16 if v >= 32 else v for v in (value if several else [value])]
            node[key] = few if several else few[0]
        elif key == 'init_cfg' and value and value['type'] == 'Pretrained':
            node[key] = None
    kind = node.get('type', '')
    if kind.startswith('ResNet'):
        node.update(base_channels=4, stem_channels=4)
    elif kind == 'SyncBN':
        node['type'] = 'BN'
    return node


def small_config(name: str) -> Config:
    path, changes = HEADS[name]
    cfg = stock_config(path)
    model = narrow(cfg.model.to_dict())
    model['data_preprocessor']['size'] = (SIZE, SIZE)
    small = Config(dict(model=model))
    small.merge_from_dict(changes)
    return small


def stock_config(path: str) -> Config:
    # Mask2Former's imports mmdet, which no test needs.
    return Config.fromfile(CONFIGS / f'{path}.py', import_custom_modules=False)


def losses_of(head: dict[str, Any]) -> list[dict[str, Any]]:
    losses = head.get('loss_decode', [])
    return losses if isinstance(losses, list) else [losses]


def with_loss(name: str, loss: str) -> Config:
    """The small config of a head with its losses swapped, as a user does it."""
    cfg = small_config(name)
    parts = list(heads(cfg.model).values())
    for head in parts:
        for old in losses_of(head):
            # swap_loss refuses it: see REFUSED.
            if name == 'DepthwiseSeparableFCNHead':
                old.update(use_sigmoid=False)
        if issubclass(available_losses()[loss], RegionLoss):
            head.pop('sampler', None)
    cfg.imbalance_loss = dict(type=loss)
    cfg.class_counts = [1] * next(head.num_classes for head in parts if 'num_classes' in head)
    return swap_loss(cfg)


def batch(height: int, width: int) -> dict[str, list]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 19, (2, 1, height, width), generator=generator)
    labels[:, :, :4] = 255
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=y), gt_edge_map=PixelData(data=(y > 9).long()))
        for y in labels
    ]
    return dict(inputs=list(inputs), data_samples=samples)


def parameters_by_part(model: nn.Module) -> dict[str, list[torch.Tensor]]:
    """Of the backbone, the neck, and of each head."""
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        heads = child.named_children() if isinstance(child, nn.ModuleList) else [('', child)]
        parts |= {f'{name}{i}': head for i, head in heads}
    parameters = {name: list(part.parameters()) for name, part in parts.items()}
    return {name: values for name, values in parameters.items() if values}


def train_one_step(cfg: Config) -> nn.Module:
    """Fails unless every loss is finite and each part of the model has learnt."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    assert any(isinstance(m, SegmentationLoss) for m in model.modules())
    left = [m for m in model.modules() if type(m) is CrossEntropyLoss and not m.use_sigmoid]
    assert not left, 'a softmax cross-entropy is left'
    parts = parameters_by_part(model)
    before = {name: [p.detach().clone() for p in part] for name, part in parts.items()}
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    log = model.train_step(batch(*cfg.model.data_preprocessor.size), optimizer)
    assert all(value.isfinite().all() for key, value in log.items() if 'loss' in key), log
    for name, part in parts.items():
        changed = (not torch.equal(p, old) for p, old in zip(part, before[name], strict=True))
        assert any(changed), f'{name} has not changed'
    return model


@pytest.fixture(autouse=True, scope='module')
def mmseg_scope() -> None:
    init_default_scope('mmseg')


@pytest.fixture(autouse=True)
def operators_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of mmcv without compiled operators does not export the pure Python ones either."""
    if HAS_COMPILED_OPERATORS:
        return
    for name, (file, operator) in OPERATORS_IN_PYTHON.items():
        head = MODELS.get(name)
        path = Path(mmcv.__path__[0]) / 'ops' / f'{file}.py'
        if file not in loaded:
            spec = spec_from_file_location(f'mmcv_ops_{file}', path)
            loaded[file] = module_from_spec(spec)
            spec.loader.exec_module(loaded[file])
        module = import_module(head.__module__)
        monkeypatch.setattr(module, operator, getattr(loaded[file], operator))


@pytest.mark.parametrize('name', TRAINABLE)
def test_recall_loss_as_the_loss_runner_builds_it(name: str) -> None:
    model = train_one_step(fuse_tails(with_loss(name, 'RecallLoss')))
    assert not [m for m in model.modules() if f'Fused{type(m).__name__}' in MODELS]
    losses = [m for m in model.modules() if isinstance(m, RecallLoss)]
    assert losses and all(loss.last_counts is not None for loss in losses)


@pytest.mark.parametrize(('name', 'loss'), list(zip(TRAINABLE, cycle(available_losses()))))
def test_stock_tail_with_a_loss_in_turn(name: str, loss: str) -> None:
    train_one_step(with_loss(name, loss))


@pytest.mark.slow
@pytest.mark.parametrize('loss', available_losses())
@pytest.mark.parametrize('name', TRAINABLE)
def test_every_loss(name: str, loss: str) -> None:
    train_one_step(with_loss(name, loss))


def test_no_head_is_forgotten() -> None:
    heads = {
        name
        for name, module in MODELS.module_dict.items()
        if module.__module__.startswith('mmseg.models.decode_heads') and name.endswith('Head')
    }
    # One of K-Net's stages, which has no loss.
    assert heads - {'KernelUpdateHead'} == (set(HEADS) - ARCHITECTURES) | set(NO_PIXEL_LOSS)


REFUSED = {
    'Mask2FormerHead': r'classifies queries .* by model\.decode_head\.loss_cls\.class_weight',
    'MaskFormerHead': r'classifies queries .* by model\.decode_head\.loss_cls\.class_weight',
    'SideAdapterCLIPHead': r'classifies queries .* by model\.decode_head\.loss_decode\.0\.class_w',
    'VPDDepthHead': 'predicts depth, which has no classes',
    'DepthwiseSeparableFCNHead': r'CrossEntropyLoss \(its sigmoids score each class alone',
}


@pytest.mark.parametrize('name', REFUSED)
def test_swap_loss_says_what_a_head_has_instead(name: str) -> None:
    path = NO_PIXEL_LOSS.get(name) or HEADS[name][0]
    cfg = Config(dict(model=stock_config(path).model, imbalance_loss=dict(type='RecallLoss')))
    with pytest.raises(ValueError, match=rf'model\.decode_head \({name}\).*{REFUSED[name]}'):
        swap_loss(cfg)


def test_operators_that_are_missing_are_missed_by_mmseg() -> None:
    if HAS_COMPILED_OPERATORS:
        assert not set(COMPILED_OPERATORS) - set(TRAINABLE)
        return
    for name in COMPILED_OPERATORS:
        with pytest.raises(RuntimeError, match='PSAMask ops'):
            MODELS.build(with_loss(name, 'RecallLoss').model)


def test_pid_head_passes_no_ignore_index_to_two_of_its_losses() -> None:
    given = []
    torch.manual_seed(0)
    head = MODELS.build(with_loss('PIDHead', 'RecallLoss').model.decode_head)
    for loss in head.loss_decode:
        loss.register_forward_hook(
            lambda loss, args, kwargs, value: given.append(kwargs.get('ignore_index')),
            with_kwargs=True,
        )
    features = [torch.randn(2, channels, 8, 8) for channels in (4, 8, 4)]
    losses = head.train().loss(features, batch(SIZE, SIZE)['data_samples'], {})
    assert [type(loss).__name__ for loss in head.loss_decode] == [
        'RecallLoss', 'RecallLoss', 'BoundaryLoss', 'RecallLoss'
    ]  # fmt: skip
    assert given == [255, None, None, None]
    assert losses['loss_sem_p'] > 0 and losses['loss_sem_i'] > 0


def test_a_sampler_that_wants_the_loss_of_each_pixel_is_refused() -> None:
    cfg = with_loss('ASPPHead', 'RecallLoss')
    stock = stock_config('deeplabv3/deeplabv3_r101-d16-mg124_4xb2-40k_cityscapes-512x1024')
    cfg.model.decode_head.sampler = stock.model.decode_head.sampler
    with pytest.raises(ValueError, match='RecallLoss has no value per pixel'):
        train_one_step(cfg)
    cfg.model.decode_head.sampler.thresh = 0.7
    train_one_step(cfg)
