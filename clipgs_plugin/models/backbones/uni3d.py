"""Transformer of Uni3D: the blocks of an EVA image model over the patches of a point cloud."""
from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from clipgs_plugin.models.backbones.base import TokenBackbone
from clipgs_plugin.models.backbones.blocks import drop_path_rates, init_transformer, key_mask, position_embedding
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS

_GLU = dict(mlp_ratio=4 * 2 / 3, swiglu_mlp=True)  # one linear layer for qkv, one for gate and value
_SWIGLU = dict(mlp_ratio=4 * 2 / 3, swiglu_mlp=True, scale_mlp=True, qkv_fused=False)
_GELU = dict(mlp_ratio=6144 / 1408)

# Width, depth, heads and kind of block of each size, from these image models of timm:
# eva02_tiny_patch14_224, eva02_small_patch14_224, eva02_base_patch14_448, eva02_large_patch14_448,
# eva_giant_patch14_560.
SIZES = {
    'ti': (192, 12, 3, _GLU),
    's': (384, 12, 6, _GLU),
    'b': (768, 12, 12, _SWIGLU),
    'l': (1024, 24, 16, _SWIGLU),
    'g': (1408, 40, 16, _GELU),
}


@MODELS.register_module()
class Uni3D(TokenBackbone):
    """Transformer of Uni3D (Zhou et al., ICLR 2024): timm's EVA blocks, without rotary positions.

    The position is added once, before the first block, and the feature is the class token after a norm. A Uni3D
    checkpoint also holds other layers of the image model, which are never used and not created here. Nothing is
    downloaded.

    Args:
        size: ``'ti'``, ``'s'``, ``'b'``, ``'l'`` or ``'g'``.
        in_channels: Width of the tokens; 512 in the published models.
        depth: Number of blocks; None takes that of the size.
        drop_path_rate: Rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        common: Arguments of :class:`TokenBackbone`; the published models were trained with ``patch_dropout=0.5``.

    Shapes:
        - input: :class:`Tokens` of features (B, G, in_channels)
        - output: (B, D)
    """

    parts: ClassVar = {
        'patch_encoder': ('encoder2trans.',),
        'position': ('cls_token', 'cls_pos', 'pos_embed.'),
        'blocks': ('blocks.',),
        'norm': ('fc_norm.',),
    }

    def __init__(self, size: str = 'b', in_channels: int = 512, depth: int | None = None, drop_path_rate: float = 0.0,
                 **common) -> None:
        from timm.models.eva import EvaBlock

        if size not in SIZES:
            raise ValueError(f'size={size!r}: expected one of {sorted(SIZES)}')
        dim, size_depth, num_heads, kind = SIZES[size]
        super().__init__(dim, in_channels, dim, **common)
        self.encoder2trans = nn.Linear(in_channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = position_embedding(dim)
        rates = drop_path_rates(drop_path_rate, depth or size_depth)
        self.blocks = nn.ModuleList([EvaBlock(dim, num_heads, drop_path=rate, norm_layer=_norm, **kind)
                                     for rate in rates])
        self.fc_norm = _norm(dim)
        init_transformer(self)
        nn.init.trunc_normal_(self.cls_pos, std=0.02)
        with torch.no_grad():  # EVA rescales the residual branches by depth
            for i, block in enumerate(self.blocks, start=1):
                block.attn.proj.weight.div_((2 * i) ** 0.5)
                block.mlp.fc2.weight.div_((2 * i) ** 0.5)

    def forward_features(self, tokens: Tokens) -> Tensor:
        """Return the class token and the patches after the last block, before the norm, (B, 1 + G, D)."""
        x = self.encoder2trans(tokens.features) + self.pos_embed(tokens.centers.to(tokens.features.dtype))
        x = torch.cat([(self.cls_token + self.cls_pos).expand(x.shape[0], -1, -1), x], dim=1)
        length = x.shape[1]
        x, _, attn_mask = self.add_prompts(x, attn_mask=key_mask(tokens.mask))
        for block in self.blocks:
            x = self.run(block, x, None, attn_mask)  # None: no rotary positions
        return x[:, :length]

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the class token after the last norm, (B, D)."""
        return self.fc_norm(features[:, 0])


def _norm(dim: int, **kwargs) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6, **kwargs)
