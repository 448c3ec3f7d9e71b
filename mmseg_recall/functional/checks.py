"""Validation of logits and target, shared by every loss."""

from __future__ import annotations

import atexit
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Losses compute in float32, or in float64 for float64 logits."""
    return torch.promote_types(logits.dtype, torch.float32)


def widest(values: Tensor) -> Tensor:
    """In float64 where that is known to exist; else in float32, all that the GPUs of Apple have."""
    if values.device.type in ('cpu', 'cuda', 'meta'):
        return values.double()
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_resizable(logits: Tensor, target: Tensor) -> None:
    """:func:`check_shapes` of logits (N, C, h, w) that are to be resized to a target (N, H, W)."""
    if logits.dim() != 4 or target.dim() != 3:
        raise ValueError(
            'logits must be (N, C, h, w) and target (N, H, W), got '
            f'{tuple(logits.shape)} and {tuple(target.shape)}'
        )
    check_shapes(logits[:, :, :1, :1].expand(-1, -1, *target.shape[1:]), target)


def as_class_logits(
    logits: Tensor, target: Tensor, use_sigmoid: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits (N, C, ...) and target (N, ...), two classes where there is one channel.

    A sigmoid of z is the softmax of (0, z): one channel is the same model as two classes.

    Args:
        logits: (N, C, ...) with C >= 2 are left as they are; (N, 1, ...) and (N, H, W) become
            (N, 2, ...).
        target: (N, ...); of one channel also of the shape of the logits.
        use_sigmoid: Whether the model means sigmoids: then C must be 1.

    Raises:
        ValueError: use_sigmoid with several channels.

    Example:
        >>> import torch
        >>> as_class_logits(torch.tensor([[[2.0, 3.0]]]), torch.tensor([[1, 0]]))[0]
        tensor([[[0., 0.],
                 [2., 3.]]])
    """
    given = isinstance(logits, Tensor) and isinstance(target, Tensor) and logits.dim() > 1
    if not given:
        check_shapes(logits, target)  # says what is wrong
    if target.shape == logits.shape and (logits.shape[1] == 1 or logits.dim() == 3):
        logits = logits.unsqueeze(1)
    if logits.shape[1] == 1:
        return torch.cat([torch.zeros_like(logits), logits], 1), target
    if use_sigmoid:
        raise ValueError(
            f'use_sigmoid=True and logits of {logits.shape[1]} channels: independent sigmoids are '
            'labels of their own, a pixel has any number of them and no argmax, hence the classes '
            'no recall. For classes that exclude each other remove use_sigmoid; for two, '
            'out_channels=1 in the head will do'
        )
    return logits, target


def check_shapes(logits: Tensor, target: Tensor) -> None:
    """Raise ValueError unless logits are (N, C, ...), target integer (N, ...), on one device.

    What other losses take is named with its cure: soft or one-hot labels, labels with a channel.
    """
    for name, given in (('logits', logits), ('target', target)):
        if not isinstance(given, Tensor):
            raise ValueError(f'{name} must be a tensor, got {type(given).__name__}')
    if logits.dim() < 2 or target.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(_misshapen(logits, target))
    dtype = target.dtype
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise ValueError(
            f'target must hold integer class ids, got {dtype}: give target.long() if all of '
            'it are whole numbers; soft labels, between 0 and 1, have no class'
        )
    if target.device != logits.device:
        raise ValueError(_elsewhere('target', target, logits))


def _misshapen(logits: Tensor, target: Tensor) -> str:
    shapes = f'logits {tuple(logits.shape)} and target {tuple(target.shape)}'
    if logits.dim() > 1 and target.shape == logits.shape:
        return (
            f'{shapes}: the target holds a score for each class, and this loss counts class ids. '
            'Of one-hot labels give target.argmax(1). Soft labels, as Mixup, CutMix and label '
            'smoothing make them, need a loss of their own, or none of these: in mmpretrain remove '
            'batch_augments (train_cfg) from the model'
        )
    if logits.dim() > 1 and target.shape == logits[:, :1].shape:
        return f'{shapes}: the target has a channel, class ids have none: give target.squeeze(1)'
    return f'logits must be (N, C, ...) and target (N, ...) with the same N and ...; got {shapes}'


def check_pixel_weight(weight: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """The weight per pixel as engines take it; ValueError unless it has the target's shape."""
    if weight.shape != target.shape:
        raise ValueError(
            f'the weight per pixel must have the shape of target, {tuple(target.shape)}, '
            f'got {tuple(weight.shape)}'
        )
    if weight.device != logits.device:
        raise ValueError(_elsewhere('the weight per pixel', weight, logits))
    return weight.to(compute_dtype(logits)).contiguous()


def _elsewhere(name: str, tensor: Tensor, logits: Tensor) -> str:
    return f'{name} is on {tensor.device} and logits are on {logits.device}: move one to the other'


class _Pending(NamedTuple):
    done: Any  # torch.cuda.Event or torch.mps.Event
    id_range: Tensor
    num_classes: int


# Checks under way on a GPU: the result of a step is read in a later one, once it has arrived,
# because reading it at once would make the host wait for the device at every step.
_pending: list[_Pending] = []


def _message(ids: str, num_classes: int, ignore_index: int | None = None) -> str:
    ignored = '' if ignore_index is None else f' and not ignore_index={ignore_index}'
    binary = (
        'Two classes, or one channel, have the labels 0 and 1: of a mask of 0 and 255 give '
        '(mask > 0).long(). '
    )
    return (
        f'target holds label ids outside [0, {num_classes}){ignored}: {ids}. '
        f'{binary if num_classes == 2 else ""}Check num_classes of the head, ignore_index, and the '
        'label mapping (reduce_zero_label) of the dataset'
    )


def _earlier_failure() -> str | None:
    while _pending and _pending[0].done.query():
        earlier = _pending.pop(0)
        low, high = earlier.id_range.tolist()
        unknown = [i for i in (low, high) if not 0 <= i < earlier.num_classes]
        if low <= high and unknown:
            # What is under way is of the other heads of that batch.
            _pending.clear()
            ids = ' to '.join(map(str, dict.fromkeys(unknown)))
            return _message(f'{ids}, seen in an earlier step', earlier.num_classes)
    return None


@atexit.register
def _tell_at_the_end() -> None:
    """No step comes after the last, which would raise for it."""
    for earlier in _pending:
        earlier.done.synchronize()
    message = _earlier_failure()
    if message is not None:
        warnings.warn(message, stacklevel=2)


def check_in_a_later_step(low: Tensor, high: Tensor, num_classes: int) -> None:
    """Have a call in a later step raise if low or high, the range of the ids, are no classes.

    A batch is told of once, and that of the last step by a warning when the process ends. What is
    captured as a CUDA graph is not checked.

    Args:
        low: The smallest id, on a GPU (CUDA or MPS).
        high: The largest; less than low where there is none.
        num_classes: C.

    Raises:
        ValueError: If an earlier step is found to have had one.
    """
    if low.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    message = _earlier_failure()
    if message is not None:
        raise ValueError(message)
    id_range = torch.stack((low, high)).to('cpu', non_blocking=True)
    if low.is_cuda:
        done: Any = torch.cuda.Event()
        # The copy is on the stream of the target's device, which need not be the current one.
        done.record(torch.cuda.current_stream(low.device))
    else:
        done = torch.mps.Event()
        done.record()
    _pending.append(_Pending(done, id_range, num_classes))


def valid_pixels(target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Return the mask of pixels that take part, and refuse labels that mean nothing.

    On CPU a label outside [0, C) that is not ``ignore_index`` raises at once and the message
    lists the ids. On GPUs the step goes on without such pixels and one of the following calls
    raises, so that no step waits for the device. Under ``torch.compile`` it is a runtime assert.

    Args:
        target: Integer class ids, any shape.
        num_classes: C.
        ignore_index: The id of pixels to leave out, or None to leave out none.

    Returns:
        Bool tensor of target's shape.

    Raises:
        ValueError: On CPU, for labels outside [0, C); on GPUs, for those of an earlier step.

    Example:
        >>> import torch
        >>> valid_pixels(torch.tensor([0, 1, 255]), 2, 255)
        tensor([ True,  True, False])
    """
    known = (target >= 0) & (target < num_classes)
    if target.device.type in ('cuda', 'mps') and not torch.compiler.is_compiling():
        ids = target
        if ignore_index is not None:
            ignored = target == ignore_index
            ids = target.masked_fill(ignored, 0)
            known.logical_and_(ignored.logical_not_())
        if ids.numel():
            check_in_a_later_step(*ids.aminmax(), num_classes)
        return known
    valid = known if ignore_index is None else known & (target != ignore_index)
    unknown = ~(known if ignore_index is None else known | (target == ignore_index))
    if torch.compiler.is_compiling():
        torch._assert_async(~unknown.any(), f'target holds ids outside [0, {num_classes})')
    elif unknown.any():
        found = target[unknown].unique()
        names = [*map(str, found[:10].tolist()), *(['...'] if len(found) > 10 else [])]
        raise ValueError(_message(', '.join(names), num_classes, ignore_index))
    return valid
