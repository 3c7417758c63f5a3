"""Transformers of Point-BERT and of the models that share its blocks: ULIP, Point-MAE and Gaussian-MAE."""
from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from clipgs_plugin.models.backbones.base import TokenBackbone
from clipgs_plugin.models.backbones.blocks import (
    PositionedBlocks,
    init_transformer,
    key_mask,
    masked_max,
    masked_mean,
    position_embedding,
)
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS


class _PointTransformer(TokenBackbone):
    """Transformer over an optional class token and the patches, with a norm after the blocks.

    The position is added before every block. Parameter names are those of the family's checkpoints.
    """

    parts: ClassVar = {
        'patch_encoder': ('reduce_dim.',),
        'position': ('cls_token', 'cls_pos', 'pos_embed.'),
        'blocks': ('blocks.',),
        'norm': ('norm.',),
    }

    def __init__(self, embed_dims: int, depth: int, num_heads: int, in_channels: int, class_token: bool,
                 mlp_ratio: float = 4.0, drop_path_rate: float = 0.0, **common) -> None:
        super().__init__(embed_dims, in_channels, 2 * embed_dims, **common)
        self.num_heads = num_heads
        self.cls_token = self.cls_pos = None
        if class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
            self.cls_pos = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.pos_embed = position_embedding(embed_dims)
        self.blocks = PositionedBlocks(embed_dims, depth, num_heads, mlp_ratio, drop_path_rate=drop_path_rate)
        self.norm = nn.LayerNorm(embed_dims)

    def init_transformer(self) -> None:
        init_transformer(self)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)
            nn.init.trunc_normal_(self.cls_pos, std=0.02)

    def lift(self, features: Tensor) -> Tensor:
        """Map tokens to the width of the transformer, (B, G, C) to (B, G, D)."""
        return features

    def forward_features(self, tokens: Tokens) -> Tensor:
        """Return the class token, if any, and the patches after the last norm, (B, [1 +] G, D)."""
        x = self.lift(tokens.features)
        position = self.pos_embed(tokens.centers.to(x.dtype))
        num_prefix = 0
        if self.cls_token is not None:
            b, num_prefix = x.shape[0], 1
            x = torch.cat([self.cls_token.expand(b, -1, -1), x], dim=1)
            position = torch.cat([self.cls_pos.expand(b, -1, -1), position], dim=1)
        length = x.shape[1]
        x, position, attn_mask = self.add_prompts(x, position, key_mask(tokens.mask, num_prefix))
        return self.norm(self.blocks(x, position, attn_mask, self.run)[:, :length])

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Concatenate the class token (or the mean) and the maximum over the patches, (B, 2 D)."""
        if self.cls_token is None:
            return torch.cat([masked_mean(features, mask), masked_max(features, mask)], dim=-1)
        return torch.cat([features[:, 0], masked_max(features[:, 1:], mask)], dim=-1)


@MODELS.register_module()
class PointBERT(_PointTransformer):
    """Transformer of Point-BERT (Yu et al., CVPR 2022), with the parameter names of its checkpoints.

    The position is added before every block. The feature is the class token and the maximum over the patches,
    concatenated.

    Args:
        embed_dims: D, width of the transformer.
        depth: Number of blocks.
        num_heads: Number of attention heads.
        in_channels: Width of the tokens; 256 in Point-BERT's patch encoder.
        mlp_ratio: Hidden width of a block's MLP divided by D.
        drop_path_rate: Rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        common: Arguments of :class:`TokenBackbone`.

    Shapes:
        - input: :class:`Tokens` of features (B, G, in_channels)
        - output: (B, 2 D)
    """

    def __init__(self, embed_dims: int = 384, depth: int = 12, num_heads: int = 6, in_channels: int = 256,
                 mlp_ratio: float = 4.0, drop_path_rate: float = 0.0, **common) -> None:
        super().__init__(embed_dims, depth, num_heads, in_channels, True, mlp_ratio, drop_path_rate, **common)
        self.reduce_dim = nn.Linear(in_channels, embed_dims)
        self.init_transformer()

    def lift(self, features: Tensor) -> Tensor:
        return self.reduce_dim(features)


@MODELS.register_module()
class ULIP(PointBERT):
    """Transformer of ULIP's (Xue et al., CVPR 2023) and ULIP-2's (CVPR 2024) Point-BERT encoders.

    It is :class:`PointBERT`, in ULIP-2 with 18 blocks. The models differ in input and projection.
    """

    def __init__(self, embed_dims: int = 384, depth: int = 18, num_heads: int = 6, in_channels: int = 256,
                 mlp_ratio: float = 4.0, drop_path_rate: float = 0.0, **common) -> None:
        super().__init__(embed_dims, depth, num_heads, in_channels, mlp_ratio, drop_path_rate, **common)


@MODELS.register_module()
class PointMAE(_PointTransformer):
    """Encoder of Point-MAE (Pang et al., ECCV 2022), with the parameter names of its checkpoints.

    Pre-training checkpoints have no class token, so the feature is the mean and the maximum over the patches.
    Fine-tuned checkpoints have one, and the feature of Point-BERT.

    Args:
        embed_dims: D, width of the transformer and of the tokens.
        class_token: Add a class token, as fine-tuned checkpoints have.
        depth, num_heads, mlp_ratio, drop_path_rate, common: See :class:`PointBERT`.

    Shapes:
        - input: :class:`Tokens` of features (B, G, D)
        - output: (B, 2 D)
    """

    def __init__(self, embed_dims: int = 384, depth: int = 12, num_heads: int = 6, class_token: bool = False,
                 mlp_ratio: float = 4.0, drop_path_rate: float = 0.0, **common) -> None:
        super().__init__(embed_dims, depth, num_heads, embed_dims, class_token, mlp_ratio, drop_path_rate, **common)
        self.init_transformer()


@MODELS.register_module()
class GaussianMAE(PointMAE):
    """Encoder of Gaussian-MAE (Ma et al., 3DV 2025) and Gaussian-JEPA (2026): the transformer of :class:`PointMAE`.

    The models differ in the patch encoder (:class:`SoftPatchEncoder`) and its 14 input channels.
    """
