"""Transformer of OpenShape's PointBERT."""
from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from clipgs_plugin.models.backbones.base import TokenBackbone
from clipgs_plugin.models.backbones.blocks import (
    DropPath,
    attend,
    drop_path_rates,
    init_transformer,
    key_mask,
    split_heads,
)
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS

# Width, depth, heads and hidden width of the MLPs, by the number of the size in OpenShape.
SIZES = {
    1: (256, 6, 4, 1024),
    2: (512, 6, 8, 1024),
    3: (512, 12, 8, 1024),
    4: (512, 12, 8, 1536),
    5: (768, 12, 12, 2304),
    6: (768, 24, 12, 3072),
}


class _Attention(nn.Module):
    """Multi-head self-attention with OpenShape's parameter names."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def forward(
        self,
        x: Tensor,                          # (B, T, D)
        attn_mask: Tensor | None = None,    # broadcasts to (B, heads, T, T) bool, True for visible keys
    ) -> Tensor:
        return self.to_out(attend(*split_heads(self.to_qkv(x), 3, self.num_heads), attn_mask))


class _Mlp(nn.Module):
    """Two layers with an exact GELU between them, with OpenShape's parameter names."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # The Identity stands for a dropout of rate 0 in the published models.
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Residual(nn.Module):
    """Pre-norm residual branch."""

    def __init__(self, dim: int, fn: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *args: Tensor | None) -> Tensor:
        return x + self.drop_path(self.fn(self.norm(x), *args))


class _Layer(nn.ModuleList):
    """Pre-norm transformer block; entry 0 is the attention, entry 1 the MLP."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        attention, mlp = self
        return mlp(attention(x, attn_mask))


class _Transformer(nn.Module):
    """Stack of blocks without a final norm."""

    def __init__(self, dim: int, depth: int, num_heads: int, mlp_dim: int, drop_path_rate: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([
            _Layer([_Residual(dim, _Attention(dim, num_heads), rate), _Residual(dim, _Mlp(dim, mlp_dim), rate)])
            for rate in drop_path_rates(drop_path_rate, depth)])

    def forward(self, x: Tensor, attn_mask: Tensor | None, run: Callable[..., Tensor]) -> Tensor:
        for layer in self.layers:
            x = run(layer, x, attn_mask)
        return x


class _ChannelsLast(nn.Module):
    """Transpose from (B, C, G) to (B, G, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


@MODELS.register_module()
class OpenShapePPAT(TokenBackbone):
    """Transformer of OpenShape's PointBERT (Liu et al., NeurIPS 2023), with the parameter names of its checkpoints.

    The centre of a patch is concatenated to its token before both are lifted to the transformer's width; this is the
    only position information. No norm follows the blocks; the feature is the class token.

    Args:
        scaling: Number of the size in OpenShape, 1 to 6: 4 for the models in the space of CLIP's ViT-bigG, 3 for
            ViT-L and ViT-B.
        in_channels: Width of the tokens without the centre: 256 for ViT-bigG, 128 for ViT-L and ViT-B.
        depth: Number of blocks; None takes that of the size.
        drop_path_rate: Rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        common: Arguments of :class:`TokenBackbone`.

    Shapes:
        - input: :class:`Tokens` of features (B, G, in_channels)
        - output: (B, D)
    """

    parts: ClassVar = {
        'patch_encoder': ('lift.',),
        'position': ('cls_token',),
        'blocks': ('transformer.layers.',),
        'norm': (),
    }

    def __init__(self, scaling: int = 4, in_channels: int = 256, depth: int | None = None,
                 drop_path_rate: float = 0.0, **common) -> None:
        if scaling not in SIZES:
            raise ValueError(f'scaling={scaling!r}: expected one of {sorted(SIZES)}')
        dim, size_depth, num_heads, mlp_dim = SIZES[scaling]
        super().__init__(dim, in_channels, dim, **common)
        self.lift = nn.Sequential(nn.Conv1d(3 + in_channels, dim, 1), _ChannelsLast(), nn.LayerNorm(dim))
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        self.transformer = _Transformer(dim, depth or size_depth, num_heads, mlp_dim, drop_path_rate)
        init_transformer(self)

    def forward_features(self, tokens: Tokens) -> Tensor:
        """Return the class token and the patches after the last block, (B, 1 + G, D)."""
        x = torch.cat([tokens.centers.to(tokens.features.dtype), tokens.features], dim=-1)
        x = self.lift(x.transpose(1, 2))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        length = x.shape[1]
        x, _, attn_mask = self.add_prompts(x, attn_mask=key_mask(tokens.mask))
        return self.transformer(x, attn_mask, self.run)[:, :length]

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the class token, (B, D)."""
        return features[:, 0]
