"""Transformer of ReCon++: self-attention of the patches, cross-attention of queries to them after every block."""
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
    position_embedding,
)
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS

# Width, depth, heads, MLP ratio and use of LayerScale, from the image models that initialise the sizes:
# vit_small_patch14_dinov2, vit_base_patch32_clip_384, eva_large_patch14_336 and vit_giant_patch14_clip_224.
SIZES = {
    's': (384, 12, 6, 4.0, True),
    'b': (768, 12, 12, 4.0, False),
    'l': (1024, 24, 16, 4.0, False),
    'g': (1408, 40, 16, 48 / 11, False),
}
TEXT_QUERIES = 3  # the last queries; the others are image queries


class LayerScale(nn.Module):
    """Learned factor of each channel of a residual branch, small at the start (Touvron et al., ICCV 2021)."""

    def __init__(self, dim: int, init_value: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init_value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _ScaledBlock(nn.Module):
    """Pre-norm block around a given attention, with optional LayerScale."""

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: float, layer_scale: bool, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def add(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the output of the attention to its input, then that of the MLP."""
        x = x + self.drop_path(self.ls1(attended))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class LocalBlock(_ScaledBlock):
    """Block with self-attention of the patches."""

    def __init__(self, dim: int, num_heads: int, *args) -> None:
        super().__init__(dim, Attention(dim, num_heads, qkv_bias=True), *args)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return self.add(x, self.attn(self.norm1(x), attn_mask))


class GlobalBlock(_ScaledBlock):
    """Block with cross-attention of the queries to the patches; both share one norm."""

    def __init__(self, dim: int, num_heads: int, *args) -> None:
        super().__init__(dim, CrossAttention(dim, num_heads, qkv_bias=True), *args)

    def forward(self, queries: Tensor, patches: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return self.add(queries, self.attn(self.norm1(queries), self.norm1(patches), attn_mask))


@MODELS.register_module()
class ReConPlusPlus(TokenBackbone):
    """Transformer of ReCon++ (Qi et al., "ShapeLLM", ECCV 2024), with the parameter names of its checkpoints.

    This is the variant trained on OpenShape's data with random masks; the causal variants, which order the patches,
    are different models. The position is added to the patches before every block. After every block the queries,
    which have no position, attend to the patches and not to each other. Layers of a checkpoint that only pre-training
    uses are not created here. The feature is the mean image query and the mean text query, concatenated.

    Args:
        size: ``'s'``, ``'b'``, ``'l'`` or ``'g'``.
        depth: Number of blocks; None takes that of the size.
        num_queries: Number of queries: the last 3 are for text, the others for images; 16 in the published models.
        drop_path_rate: Rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        common: Arguments of :class:`TokenBackbone`.

    Shapes:
        - input: :class:`Tokens` of features (B, G, D)
        - output: (B, 2 D)
    """

    parts: ClassVar = {
        'patch_encoder': (),
        'position': ('global_query', 'pos_embed.'),
        'blocks': ('encoder.blocks.',),
        'norm': ('encoder.ln_f1.', 'encoder.ln_f2.'),
    }

    def __init__(self, size: str = 'b', depth: int | None = None, num_queries: int = 16, drop_path_rate: float = 0.0,
                 **common) -> None:
        if size not in SIZES:
            raise ValueError(f'size={size!r}: expected one of {sorted(SIZES)}')
        if num_queries <= TEXT_QUERIES:
            raise ValueError(f'num_queries={num_queries}: expected more than {TEXT_QUERIES}, since the last '
                             f'{TEXT_QUERIES} are for text and the others for images')
        dim, size_depth, num_heads, mlp_ratio, layer_scale = SIZES[size]
        super().__init__(dim, dim, 2 * dim, **common)
        self.num_queries = num_queries
        self.global_query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, num_queries, dim), std=0.02))
        self.pos_embed = position_embedding(dim)
        rates = drop_path_rates(drop_path_rate, depth or size_depth)
        self.encoder = nn.ModuleDict({
            'blocks': nn.ModuleDict({
                name: nn.ModuleList([block(dim, num_heads, mlp_ratio, layer_scale, rate) for rate in rates])
                for name, block in (('local_blocks', LocalBlock), ('global_blocks', GlobalBlock))}),
            'ln_f1': nn.LayerNorm(dim),
            'ln_f2': nn.LayerNorm(dim),
        })
        init_transformer(self)

    def forward_features(self, tokens: Tokens) -> Tensor:
        """Return the queries and the patches, each after its last norm, (B, num_queries + G, D)."""
        x, position = tokens.features, self.pos_embed(tokens.centers.to(tokens.features.dtype))
        queries, length = self.global_query.expand(x.shape[0], -1, -1), x.shape[1]
        x, position, attn_mask = self.add_prompts(x, position, key_mask(tokens.mask, 0))
        blocks = self.encoder['blocks']
        for local_block, global_block in zip(blocks['local_blocks'], blocks['global_blocks']):
            x = self.run(local_block, x + position, attn_mask)
            queries = self.run(global_block, queries, x, attn_mask)
        return torch.cat([self.encoder['ln_f2'](queries), self.encoder['ln_f1'](x[:, :length])], dim=1)

    def queries(self, features: Tensor) -> Tensor:
        """Return the queries, (B, num_queries, D), which the published model projects one by one."""
        return features[:, :self.num_queries]

    def readout(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the queries, (B, num_queries, D)."""
        return self.queries(features)

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Concatenate the mean of the image queries and the mean of the text queries, (B, 2 D)."""
        image, text = self.queries(features).tensor_split([self.num_queries - TEXT_QUERIES], dim=1)
        return torch.cat([image.mean(1), text.mean(1)], dim=-1)
