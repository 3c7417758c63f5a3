"""Parts that transformer backbones share."""
from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipgs_plugin.models.tokenizers.tokens import Tokens


def call(block: nn.Module, *inputs) -> Tensor:
    """A block as it is."""
    return block(*inputs)


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
        return self.proj(attend(self.qkv(x), self.num_heads, attn_mask))


def attend(
    qkv: Tensor,                        # (B, T, 3 D) queries, keys and values
    num_heads: int,
    attn_mask: Tensor | None = None,    # broadcasts to (B, heads, T, T) bool, True where a key may be seen
) -> Tensor:                            # (B, T, D)
    """What each token takes from those it attends to, heads side by side."""
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
    return x.transpose(1, 2).flatten(2)


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

    def forward(
        self,
        x: Tensor,                                     # (B, T, D)
        position: Tensor,                              # (B, T, D)
        attn_mask: Tensor | None = None,
        run: Callable[..., Tensor] = call,             # how a block is called, see TokenBackbone.run
    ) -> Tensor:
        for block in self.blocks:
            x = run(block, x + position, attn_mask)
        return x


class TokenBackbone(BaseModule):
    """What every transformer over tokens has in common.

    A subclass gives ``forward_features``, in which it calls its blocks through :meth:`run` and adds the prompts by
    :meth:`add_prompts`, ``pool``, and ``parts``, which says what of it is what, for freezing and loading.

    Args:
        embed_dims: D, width of the transformer.
        in_channels: C, width of the tokens it takes.
        out_channels: Width of its pooled feature.
        patch_dropout: Share of an object's patches left out at random in training; all are seen in evaluation.
        num_prompts: Learned tokens beside the patches of every object ("Visual Prompt Tuning", Jia et al., 2022,
            shallow), which no pooling sees.
        grad_checkpointing: Keep only the inputs of the blocks for the backward pass and compute the rest again.
        init_cfg: Initialisation, as mmengine reads it.

    Shapes:
        - input: :class:`Tokens` of features (B, G, in_channels)
        - output: (B, out_channels)
    """

    input = 'tokens'
    parts: ClassVar[dict[str, tuple[str, ...]]]  # beginnings of the names of its parameters, by part

    def __init__(self, embed_dims: int, in_channels: int, out_channels: int, patch_dropout: float = 0.0,
                 num_prompts: int = 0, grad_checkpointing: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if not 0 <= patch_dropout < 1:
            raise ValueError(f'patch_dropout={patch_dropout}: expected a share of at least 0 and below 1')
        if num_prompts < 0:
            raise ValueError(f'num_prompts={num_prompts}: expected 0 or more')
        self.embed_dims = embed_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.patch_dropout = patch_dropout
        self.grad_checkpointing = grad_checkpointing
        self.prompt_tokens = None
        if num_prompts:
            self.prompt_tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, num_prompts, embed_dims), std=0.02))

    def forward(self, tokens: Tokens) -> Tensor:
        if self.training and self.patch_dropout > 0:
            tokens = drop_patches(tokens, self.patch_dropout)
        return self.pool(self.forward_features(tokens), tokens.mask)

    def readout(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the family itself reads out of its features: the pooled feature, unless a subclass says otherwise."""
        return self.pool(features, mask)

    def run(self, block: nn.Module, *inputs) -> Tensor:
        """The output of a block, in training with ``grad_checkpointing`` without keeping what it computes."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def add_prompts(
        self,
        x: Tensor,                                    # (B, T, D)
        position: Tensor | None = None,               # (B, T, D) where the family adds one before every block
        attn_mask: Tensor | None = None,              # (B, 1, 1, T) bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The sequence with the prompts at its end; they have no position and are seen by all."""
        if self.prompt_tokens is None:
            return x, position, attn_mask
        count = self.prompt_tokens.shape[1]
        x = torch.cat([x, self.prompt_tokens.expand(len(x), -1, -1)], dim=1)
        position = None if position is None else F.pad(position, (0, 0, 0, count))
        return x, position, None if attn_mask is None else F.pad(attn_mask, (0, count), value=True)


def drop_patches(tokens: Tokens, share: float) -> Tokens:
    """A random choice of each object's patches; at least one stays of those that exist."""
    b, g = tokens.features.shape[:2]
    keep = max(1, round(g * (1 - share)))
    index = torch.rand(b, g, device=tokens.features.device).argsort(dim=1)
    if tokens.mask is not None:  # patches that exist come first
        index = index.gather(1, tokens.mask.gather(1, index).long().argsort(dim=1, descending=True, stable=True))
    index = index[:, :keep]
    mask = None if tokens.mask is None else tokens.mask.gather(1, index)
    return Tokens(*(torch.take_along_dim(x, index[..., None], dim=1) for x in tokens[:2]), mask)


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


def masked_mean(features: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens that exist, (B, G, D) to (B, D)."""
    if mask is None:
        return features.mean(1)
    return (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def init_transformer(module: nn.Module, std: float = 0.02) -> None:
    """Truncated normal weights and zero biases for every Linear, as ViTs begin."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
