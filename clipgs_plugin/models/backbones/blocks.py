"""Layers, masks and pooling that backbones share."""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch for a random share of the objects ("stochastic depth", Huang et al., 2016)."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        return f'rate={self.rate}'


class Attention(nn.Module):
    """Multi-head self-attention; the Point-BERT family has no bias in ``qkv``."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,                          # (B, T, D)
        attn_mask: Tensor | None = None,    # broadcasts to (B, heads, T, T) bool, True for visible keys
    ) -> Tensor:
        return self.proj(attend(*split_heads(self.qkv(x), 3, self.num_heads), attn_mask))


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,                          # (B, T, D) queries
        context: Tensor,                    # (B, S, D) keys and values
        attn_mask: Tensor | None = None,    # broadcasts to (B, heads, T, S) bool, True for visible keys
    ) -> Tensor:
        q, k, v = *split_heads(self.q(x), 1, self.num_heads), *split_heads(self.kv(context), 2, self.num_heads)
        return self.proj(attend(q, k, v, attn_mask))


def _check_heads(dim: int, num_heads: int) -> None:
    if dim % num_heads:
        raise ValueError(f'a width of {dim} does not split into {num_heads} heads')


def split_heads(x: Tensor, count: int, num_heads: int) -> Tensor:
    """Split (B, T, count * D) into ``count`` tensors by head, (count, B, heads, T, D / heads)."""
    return x.unflatten(-1, (count, num_heads, -1)).permute(2, 0, 3, 1, 4)


def attend(
    q: Tensor,                          # (B, heads, T, D / heads)
    k: Tensor,                          # (B, heads, S, D / heads)
    v: Tensor,                          # (B, heads, S, D / heads)
    attn_mask: Tensor | None = None,    # broadcasts to (B, heads, T, S) bool, True for visible keys
) -> Tensor:                            # (B, T, D)
    """Compute attention and concatenate the heads."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with the parameter names of the Point-BERT family."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), attn_mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PositionedBlocks(nn.Module):
    """Stack of blocks that adds the position again before each block."""

    def __init__(self, dim: int, depth: int, num_heads: int, mlp_ratio: float = 4.0,
                 drop_path_rate: float = 0.0) -> None:
        super().__init__()
        rates = drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.ModuleList([Block(dim, num_heads, mlp_ratio, rate) for rate in rates])

    def forward(
        self,
        x: Tensor,                                     # (B, T, D)
        position: Tensor,                              # (B, T, D)
        attn_mask: Tensor | None,
        run: Callable[..., Tensor],                    # calls a block, see TokenBackbone.run
    ) -> Tensor:
        for block in self.blocks:
            x = run(block, x + position, attn_mask)
        return x


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Return rates that grow linearly from 0 at the first block to ``highest`` at the last."""
    return [highest * i / max(1, depth - 1) for i in range(depth)]


def position_embedding(dim: int, hidden: int = 128) -> nn.Sequential:
    """Build the MLP from the centre of a patch to its position embedding, (B, G, 3) to (B, G, dim)."""
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))


def key_mask(mask: Tensor | None, num_prefix: int = 1) -> Tensor | None:
    """Turn the mask of tokens (B, G) into a mask of attention keys, (B, 1, 1, num_prefix + G) bool."""
    return None if mask is None else F.pad(mask, (num_prefix, 0), value=True)[:, None, None]


def masked_max(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return the maximum over the tokens without padding, (B, G, D) to (B, D)."""
    if mask is not None:
        features = features.masked_fill(~mask[..., None], -torch.inf)
    return features.amax(1)


def masked_mean(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the tokens without padding, (B, G, D) to (B, D)."""
    if mask is None:
        return features.mean(1)
    return (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def init_transformer(module: nn.Module) -> None:
    """Initialise every Linear as in ViTs: truncated normal weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
