"""Parts that transformer backbones share."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leaves out a residual branch for a random share of the objects ("stochastic depth", Huang et al., 2016)."""

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
    """Multi-head self-attention; a bias-free qkv is the form of the Point-BERT family."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'a width of {dim} does not split into {num_heads} heads')
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,                          # (B, T, D)
        attn_mask: Tensor | None = None,    # broadcasts to (B, heads, T, T) bool, True where a key may be seen
    ) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.proj(x.transpose(1, 2).flatten(2))


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

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False,
                 drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), attn_mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PositionedBlocks(nn.Module):
    """Blocks before each of which the position is added again."""

    def __init__(self, dim: int, depth: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False,
                 drop_path_rate: float = 0.0) -> None:
        super().__init__()
        rates = drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.ModuleList([Block(dim, num_heads, mlp_ratio, qkv_bias, rate) for rate in rates])

    def forward(self, x: Tensor, position: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x + position, attn_mask)
        return x


class TokenBackbone(BaseModule):
    """What every backbone over tokens has in common.

    Attributes:
        in_channels: Width of the tokens it takes.
        out_channels: Width of its pooled feature.
    """

    input = 'tokens'
    in_channels: int
    out_channels: int

    def forward(self, tokens) -> Tensor:
        return self.pool(self.forward_features(tokens), tokens.mask)


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """Rates growing evenly from 0 at the first block to the highest at the last."""
    return [highest * i / max(1, depth - 1) for i in range(depth)]


def position_embedding(dim: int, hidden: int = 128) -> nn.Sequential:
    """The position of a patch from its centre: (B, G, 3) to (B, G, dim)."""
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))


def key_mask(mask: Tensor | None, num_prefix: int = 1) -> Tensor | None:
    """Which keys attention may see, (B, 1, 1, num_prefix + G) bool, from the mask of tokens (B, G)."""
    return None if mask is None else F.pad(mask, (num_prefix, 0), value=True)[:, None, None]


def masked_max(features: Tensor, mask: Tensor | None) -> Tensor:
    """Maximum over the tokens that exist, (B, G, D) to (B, D)."""
    if mask is not None:
        features = features.masked_fill(~mask[..., None], -torch.inf)
    return features.amax(1)


def init_transformer(module: nn.Module, std: float = 0.02) -> None:
    """Truncated normal weights and zero biases for every Linear, as ViTs begin."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
