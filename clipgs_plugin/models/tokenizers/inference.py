"""What makes patches cheap to encode at inference and changes no result."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Gaussians whose activations fit into a CPU's cache together; a GPU needs more of them to be busy.
CHUNK_ROWS = {'cpu': 4096}
DEFAULT_CHUNK_ROWS = 1 << 20


def is_inference(module: nn.Module) -> bool:
    """True where batch norms use their running statistics and nothing will be differentiated."""
    return not module.training and not torch.is_grad_enabled()


def fold_batch_norm(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does the work of one followed by a batch norm in eval mode."""
    scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
    shift = -norm.running_mean.float() if conv.bias is None else conv.bias.float() - norm.running_mean.float()
    weight = conv.weight.float() * scale.view(-1, *[1] * (conv.weight.ndim - 1))
    return weight.to(conv.weight.dtype), (shift * scale + norm.bias.float()).to(conv.weight.dtype)


def in_chunks(function: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """``function(patches)`` for patches (P, K, C), some at a time."""
    rows = CHUNK_ROWS.get(patches.device.type, DEFAULT_CHUNK_ROWS)
    chunks = patches.split(max(1, rows // patches.shape[1]))
    return torch.cat([function(chunk) for chunk in chunks]) if len(chunks) > 1 else function(patches)


def patch_max(x: Tensor) -> Tensor:
    """Maximum over the points of each patch, (P, K, C) to (P, C).

    Where it will be differentiated, one of the points that tie takes the gradient: to share it among them, as ``amax``
    does, costs a pass over all of x. Where not, ``amax`` is the cheaper, since it looks for no index.
    """
    return x.max(1).values if torch.is_grad_enabled() else x.amax(1)


def relu_(x: Tensor) -> Tensor:
    """ReLU in place, where nothing will be differentiated."""
    _comparable(x).clamp_min_(0)
    return x


def relu_max(x: Tensor) -> Tensor:
    """Maximum over the points of each patch after a ReLU, (P, K, C) to (P, C), where nothing will be differentiated."""
    return relu_(_comparable(x).amax(1).view(x.dtype))


def _comparable(x: Tensor) -> Tensor:
    """The numbers themselves, or integers among which zero and whatever is larger compare alike, and faster.

    On a CPU torch compares numbers of bfloat16 by way of float32, at five times the cost of comparing their bits.
    A NaN without a sign is larger than all, one with a sign counts as negative.
    """
    return x.view(torch.int16) if x.dtype == torch.bfloat16 and x.device.type == 'cpu' else x
