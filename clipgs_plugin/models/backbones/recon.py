"""The transformer of ReCon: patches, and three global tokens that look at them."""
from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.backbones.blocks import (
    Attention,
    DropPath,
    Mlp,
    TokenBackbone,
    drop_path_rates,
    init_transformer,
    key_mask,
    masked_max,
    position_embedding,
)
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS

GLOBAL_TOKENS = ('cls', 'img', 'text')


class CrossAttention(nn.Module):
    """Multi-head attention of some tokens to others."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'a width of {dim} does not split into {num_heads} heads')
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,                          # (B, T, D)
        seen: Tensor,                       # (B, S, D)
        attn_mask: Tensor | None = None,    # broadcasts to (B, heads, T, S) bool, True where a key may be seen
    ) -> Tensor:
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(seen).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.proj(x.transpose(1, 2).flatten(2))


class ReConBlock(nn.Module):
    """Self-attention of the patches beside cross-attention of the global tokens to them.

    Every residual is taken on the normalised tensor, x = norm(x), x = x + f(x), so that this is neither a pre-norm
    nor a post-norm block. The global tokens see the patches as they are before the self-attention, and not each other.
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
        attn_mask: Tensor | None = None,    # (B, 1, 1, T) bool, of the others
    ) -> Tensor:
        num_global = len(GLOBAL_TOKENS)
        looking, patches = self.norm1_contrast(x[:, :num_global]), self.norm1(x[:, num_global:])
        looking = looking + self.drop_path(self.attn_contrast(looking, patches, attn_mask))
        patches = patches + self.drop_path(self.attn(patches, attn_mask))
        looking, patches = self.norm2_contrast(looking), self.norm2(patches)
        looking = looking + self.drop_path(self.mlp_contrast(looking))
        patches = patches + self.drop_path(self.mlp(patches))
        return torch.cat([looking, patches], dim=1)


@MODELS.register_module()
class ReCon(TokenBackbone):
    """Transformer of ReCon (Qi et al., "Contrast with Reconstruct", ICML 2023), with the names of its checkpoints.

    Three global tokens (class, image, text) look at the patches in every block; the position, that of the global
    tokens learned, is added before every block. Gradients reach the patches through the global tokens, as when ReCon
    is fine-tuned; its pre-training stops them there. The feature is the three global tokens beside the maximum over
    the patches.

    Args:
        embed_dims: D, width of the transformer and of the tokens.
        depth: Blocks; 12 in ReCon.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of a block's MLPs over D.
        drop_path_rate: Of the last block; the others grow evenly towards it.
        common: As :class:`TokenBackbone` takes them.

    Shapes:
        - input: :class:`Tokens` of features (B, G, D)
        - output: (B, 4 D)
    """

    parts: ClassVar = {
        'patch_encoder': (),
        'position': (*(f'{name}_{what}' for what in ('token', 'pos') for name in GLOBAL_TOKENS), 'pos_embed.'),
        'blocks': ('blocks.',),
        'norm': ('norm.',),
    }

    def __init__(self, embed_dims: int = 384, depth: int = 12, num_heads: int = 6, mlp_ratio: float = 4.0,
                 drop_path_rate: float = 0.0, **common) -> None:
        super().__init__(embed_dims, embed_dims, 4 * embed_dims, **common)
        self.num_heads = num_heads
        for name in GLOBAL_TOKENS:
            for what in ('token', 'pos'):
                value = nn.init.trunc_normal_(torch.empty(1, 1, embed_dims), std=0.02)
                self.register_parameter(f'{name}_{what}', nn.Parameter(value))
        self.pos_embed = position_embedding(embed_dims)
        self.blocks = nn.ModuleDict({'blocks': nn.ModuleList([
            ReConBlock(embed_dims, num_heads, mlp_ratio, rate) for rate in drop_path_rates(drop_path_rate, depth)])})
        self.norm = nn.LayerNorm(embed_dims)
        init_transformer(self)

    def forward_features(self, tokens: Tokens) -> Tensor:
        """The global tokens and the patches after the last norm, (B, 3 + G, D)."""
        x, position = tokens.features, self.pos_embed(tokens.centers.to(tokens.features.dtype))
        x = torch.cat([self._global('token').expand(len(x), -1, -1), x], dim=1)
        position = torch.cat([self._global('pos').expand(len(x), -1, -1), position], dim=1)
        length = x.shape[1]
        x, position, attn_mask = self.add_prompts(x, position, key_mask(tokens.mask, 0))
        for block in self.blocks['blocks']:
            x = self.run(block, x + position, attn_mask)
        return self.norm(x[:, :length])

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class, image and text token, and maximum over the patches, (B, 4 D)."""
        looking, patches = features.tensor_split([len(GLOBAL_TOKENS)], dim=1)
        return torch.cat([looking.flatten(1), masked_max(patches, mask)], dim=-1)

    def _global(self, what: str) -> Tensor:
        """The three global tokens or their positions, (1, 3, D)."""
        return torch.cat([getattr(self, f'{name}_{what}') for name in GLOBAL_TOKENS], dim=1)
