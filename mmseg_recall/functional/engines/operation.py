"""One autograd function for whatever an engine differentiates by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Operation(NamedTuple):
    """A function of logits, target, ignore_index and what else it needs, and its gradient."""

    forward: Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]]
    """(logits, target, ...) -> (outputs, what the backward takes besides the inputs)."""
    backward: Callable[..., Tensor]
    """(gradients of the outputs, what it takes, logits, target, ...) -> that of the logits."""
    plain: Callable[..., Any]
    """The same by torch operations, for a gradient that is itself to be differentiated."""
    differentiable: int = 1
    """How many outputs, the first ones, have a gradient."""


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operation: Operation, logits: Tensor, target: Tensor, options: tuple[Any, ...]
    ) -> tuple[Tensor, ...] | Tensor:
        outputs, saved = operation.forward(logits, target, *options)
        ctx.save_for_backward(logits, target, *saved)
        ctx.operation, ctx.options = operation, options
        ctx.mark_non_differentiable(*outputs[operation.differentiable :])
        return outputs if len(outputs) > 1 else outputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        operation, options = ctx.operation, ctx.options
        logits, target, *saved = ctx.saved_tensors
        grads = grads[: operation.differentiable]
        if torch.is_grad_enabled():
            outputs = operation.plain(logits, target, *options)
            outputs = outputs[: len(grads)] if isinstance(outputs, tuple) else outputs
            grad = torch.autograd.grad(outputs, logits, grads, create_graph=True)[0]
        else:
            grad = operation.backward(grads, saved, logits, target, *options)
            if grad.dtype != logits.dtype:
                grad = grad.to(logits.dtype)
        return None, grad, None, None


def differentiated(operation: Operation) -> Callable[..., Any]:
    """The operation as a function of logits, target and its options, constants all of them."""

    def operate(logits: Tensor, target: Tensor, *options: Any) -> Any:
        return _Apply.apply(operation, logits, target.contiguous(), options)

    return operate
