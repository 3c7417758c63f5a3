"""Transformer of ReCon: self-attention of the patches, cross-attention of three global tokens to them."""
from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from clipgs_plugin.models.backbones.base import TokenBackbone
from clipgs_plugin.models.backbones.blocks import (
    Attention,
    CrossAttention,
    DropPath,
    Mlp,
    drop_path_rates,
    init_transformer,
    key_mask,
    masked_max,
    position_embedding,
)
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS

GLOBAL_TOKENS = ('cls', 'img', 'text')


class ReConBlock(nn.Module):
    """Block with self-attention of the patches and cross-attention of the global tokens to the patches.

    Residuals start from the normalised tensor: x = norm(x), x = x + f(x). So the block is neither pre-norm nor
    post-norm. The global tokens attend to the patches from before their self-attention, and not to each other.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden)
        self.norm1_contrast = nn.LayerNorm(dim)
        self.attn_contrast = CrossAttention(dim, num_heads)
        self.norm2_contrast = nn.LayerNorm(dim)
        self.mlp_contrast = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,                          # (B, 3 + T, D), the global tokens first
        attn_mask: Tensor | None = None,    # (B, 1, 1, T) bool, of the patches
    ) -> Tensor:
        num_global = len(GLOBAL_TOKENS)
        queries, patches = self.norm1_contrast(x[:, :num_global]), self.norm1(x[:, num_global:])
        queries = queries + self.drop_path(self.attn_contrast(queries, patches, attn_mask))
        patches = patches + self.drop_path(self.attn(patches, attn_mask))
        queries, patches = self.norm2_contrast(queries), self.norm2(patches)
        queries = queries + self.drop_path(self.mlp_contrast(queries))
        patches = patches + self.drop_path(self.mlp(patches))
        return torch.cat([queries, patches], dim=1)


@MODELS.register_module()
class ReCon(TokenBackbone):
    """Transformer of ReCon (Qi et al., "Contrast with Reconstruct", ICML 2023), with its checkpoints' parameter names.

    Three global tokens (class, image, text) attend to the patches in every block. Positions are added before every
    block; those of the global tokens are learned. Gradients reach the patches through the global tokens, as in
    ReCon's fine-tuning; its pre-training stops them there. The feature is the three global tokens and the maximum
    over the patches, concatenated.

    Args:
        embed_dims: D, width of the transformer and of the tokens.
        depth, num_heads, mlp_ratio, drop_path_rate, common: See :class:`PointBERT`.

    Shapes:
        - input: :class:`Tokens` of features (B, G, D)
        - output: (B, 4 D)
    """

    parts: ClassVar = {
        'patch_encoder': (),
        'position': (*(f'{name}_{kind}' for kind in ('token', 'pos') for name in GLOBAL_TOKENS), 'pos_embed.'),
        'blocks': ('blocks.',),
        'norm': ('norm.',),
    }

    def __init__(self, embed_dims: int = 384, depth: int = 12, num_heads: int = 6, mlp_ratio: float = 4.0,
                 drop_path_rate: float = 0.0, **common) -> None:
        super().__init__(embed_dims, embed_dims, 4 * embed_dims, **common)
        self.num_heads = num_heads
        for name in GLOBAL_TOKENS:
            for kind in ('token', 'pos'):
                value = nn.init.trunc_normal_(torch.empty(1, 1, embed_dims), std=0.02)
                self.register_parameter(f'{name}_{kind}', nn.Parameter(value))
        self.pos_embed = position_embedding(embed_dims)
        self.blocks = nn.ModuleDict({'blocks': nn.ModuleList([
            ReConBlock(embed_dims, num_heads, mlp_ratio, rate) for rate in drop_path_rates(drop_path_rate, depth)])})
        self.norm = nn.LayerNorm(embed_dims)
        init_transformer(self)

    def forward_features(self, tokens: Tokens) -> Tensor:
        """Return the global tokens and the patches after the last norm, (B, 3 + G, D)."""
        x, position = tokens.features, self.pos_embed(tokens.centers.to(tokens.features.dtype))
        x = torch.cat([self._global('token').expand(x.shape[0], -1, -1), x], dim=1)
        position = torch.cat([self._global('pos').expand(x.shape[0], -1, -1), position], dim=1)
        length = x.shape[1]
        x, position, attn_mask = self.add_prompts(x, position, key_mask(tokens.mask, 0))
        for block in self.blocks['blocks']:
            x = self.run(block, x + position, attn_mask)
        return self.norm(x[:, :length])

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Concatenate class, image and text token and the maximum over the patches, (B, 4 D)."""
        queries, patches = features.tensor_split([len(GLOBAL_TOKENS)], dim=1)
        return torch.cat([queries.flatten(1), masked_max(patches, mask)], dim=-1)

    def queries(self, features: Tensor) -> Tensor:
        """Return image and text token, (B, 2, D), which the zero-shot model projects one by one."""
        return features[:, 1:len(GLOBAL_TOKENS)]

    def _global(self, kind: str) -> Tensor:
        """Concatenate the three global tokens (``'token'``) or their positions (``'pos'``), (1, 3, D)."""
        return torch.cat([getattr(self, f'{name}_{kind}') for name in GLOBAL_TOKENS], dim=1)
