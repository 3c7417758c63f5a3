"""Tricks that make patch encoders fast at inference without changing results."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Number of Gaussians in a chunk: on a CPU the activations fit into the cache; a GPU needs more to be busy.
CHUNK_ROWS = {'cpu': 4096}
DEFAULT_CHUNK_ROWS = 1 << 20


def is_inference(module: nn.Module) -> bool:
    """Return True if batch norms use their running statistics and no gradients are recorded."""
    return not module.training and not torch.is_grad_enabled()


def fold_batch_norm(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Fold a batch norm in eval mode into the preceding layer and return the weight and bias."""
    scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
    shift = -norm.running_mean.float() if conv.bias is None else conv.bias.float() - norm.running_mean.float()
    weight = conv.weight.float() * scale.view(-1, *[1] * (conv.weight.ndim - 1))
    return weight.to(conv.weight.dtype), (shift * scale + norm.bias.float()).to(conv.weight.dtype)


def in_chunks(function: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """Compute ``function(patches)`` for patches (P, K, C) in chunks."""
    if torch.compiler.is_compiling():  # all at once, since a graph would fix the number of chunks
        return function(patches)
    rows = CHUNK_ROWS.get(patches.device.type, DEFAULT_CHUNK_ROWS)
    chunks = patches.split(max(1, rows // patches.shape[1]))
    return torch.cat([function(chunk) for chunk in chunks]) if len(chunks) > 1 else function(patches)


def patch_max(x: Tensor) -> Tensor:
    """Return the maximum over the points of each patch, (P, K, C) to (P, C).

    With gradients it is ``max``, which gives the gradient to one of the tied points: ``amax`` shares it among them,
    which costs a pass over all of x. Without gradients ``amax`` is cheaper, since it computes no index.
    """
    return x.max(1).values if torch.is_grad_enabled() else x.amax(1)


def relu_(x: Tensor) -> Tensor:
    """Apply ReLU in place, without gradients."""
    _comparable(x).clamp_min_(0)
    return x


def relu_max(x: Tensor) -> Tensor:
    """Return the maximum over the points of each patch after a ReLU, (P, K, C) to (P, C), without gradients."""
    maximum = _comparable(x).amax(1)
    return relu_(maximum if maximum.dtype == x.dtype else maximum.view(x.dtype))  # ONNX has no view as another type


def _comparable(x: Tensor) -> Tensor:
    """Return x, or its bits as integers, for which comparisons of non-negative numbers give the same result faster.

    On a CPU torch compares bfloat16 numbers by converting them to float32, at five times the cost of comparing their
    bits. A NaN with sign bit 0 is larger than every number, a NaN with sign bit 1 counts as negative.
    """
    return x.view(torch.int16) if x.dtype == torch.bfloat16 and x.device.type == 'cpu' else x
