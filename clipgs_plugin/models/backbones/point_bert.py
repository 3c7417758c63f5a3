"""The transformer of Point-BERT."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from clipgs_plugin.models.backbones.blocks import (
    PositionedBlocks,
    TokenBackbone,
    init_transformer,
    key_mask,
    masked_max,
    position_embedding,
)
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS


@MODELS.register_module()
class PointBERT(TokenBackbone):
    """Transformer of Point-BERT (Yu et al., CVPR 2022) and of what has its form, with the names of its checkpoints.

    The position is added before every block. The feature is the class token beside the maximum over the patches.

    Args:
        embed_dims: D, width of the transformer.
        depth: Blocks; 12 in Point-BERT and ULIP, 18 in ULIP-2.
        num_heads: Attention heads.
        in_channels: Width of the tokens; the patch encoder of Point-BERT has 256.
        mlp_ratio: Hidden width of a block's MLP over D.
        drop_path_rate: Of the last block; the others grow evenly towards it.
        init_cfg: Initialisation, as mmengine reads it.

    Shapes:
        - input: :class:`Tokens` of features (B, G, in_channels)
        - output: (B, 2 D)
    """

    def __init__(self, embed_dims: int = 384, depth: int = 12, num_heads: int = 6, in_channels: int = 256,
                 mlp_ratio: float = 4.0, drop_path_rate: float = 0.0,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.embed_dims = embed_dims
        self.in_channels = in_channels
        self.out_channels = 2 * embed_dims
        self.reduce_dim = nn.Linear(in_channels, embed_dims)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.pos_embed = position_embedding(embed_dims)
        self.blocks = PositionedBlocks(embed_dims, depth, num_heads, mlp_ratio, drop_path_rate=drop_path_rate)
        self.norm = nn.LayerNorm(embed_dims)
        init_transformer(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.cls_pos, std=0.02)

    def forward_features(self, tokens: Tokens) -> Tensor:
        """The class token and the patches after the last norm, (B, 1 + G, D)."""
        x = self.reduce_dim(tokens.features)
        position = self.pos_embed(tokens.centers.to(x.dtype))
        b = len(x)
        x = torch.cat([self.cls_token.expand(b, -1, -1), x], dim=1)
        position = torch.cat([self.cls_pos.expand(b, -1, -1), position], dim=1)
        return self.norm(self.blocks(x, position, key_mask(tokens.mask)))

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class token and maximum over the patches, (B, 2 D)."""
        return torch.cat([features[:, 0], masked_max(features[:, 1:], mask)], dim=-1)
