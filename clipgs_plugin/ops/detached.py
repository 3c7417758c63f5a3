"""Operations on plain tensors: without gradients, and below the transforms of torch.func."""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


class _Detached(torch.autograd.Function):
    """Call of a function with plain tensors, which have a storage also under the transforms of torch.func."""

    @staticmethod
    def forward(function: Callable, *args):
        return function(*args)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor | tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*([output] if isinstance(output, Tensor) else output))
        ctx.num_inputs = len(inputs)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.num_inputs


def detached(function: Callable) -> Callable:
    """Decorate a function of tensors and other values that returns new tensors without gradients.

    Unlike under ``torch.no_grad``, the function may read its tensors in numpy, also under ``torch.func.grad``.
    """
    @wraps(function)
    def call(*args, **kwargs):
        return _Detached.apply(lambda *values: function(*values[:len(args)], **dict(zip(kwargs, values[len(args):]))),
                               *args, *kwargs.values())

    return call
