"""Image transformers of timm as backbones over tokens."""
from __future__ import annotations

import difflib
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from clipgs_plugin.models.backbones.base import TokenBackbone
from clipgs_plugin.models.backbones.blocks import (
    drop_path_rates,
    init_transformer,
    key_mask,
    masked_mean,
    position_embedding,
)
from clipgs_plugin.models.backbones.lora import PREFIX as LORA
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS

# Prefixes of the tensors that an image model contributes.
IMAGE_PARTS = ('cls_token', 'reg_token', 'norm_pre.', 'blocks.', 'norm.', 'fc_norm.')


@MODELS.register_module()
class TimmTransformer(TokenBackbone):
    """Any ViT or EVA of timm with blocks pretrained on images (CLIP-GS, arXiv 2412.19142, Tab. 7).

    The image model contributes the blocks, the class token, the registers, and the norms before and after the blocks,
    under their names in timm. Patch embedding, 2D positions (learned or rotary), attention pooling and classifier
    have no meaning for points and are left out; blocks trained with rotary positions run without them. ``lift``, from
    the width of the tokens to that of the blocks, and the positions, added once before the first block, are new.

    The feature is that of the image model: the class token or the mean over the patches, after or before the last
    norm, as in timm.

    Only ``init_weights()`` loads image weights. The Runner calls it before training; without a Runner, call it
    yourself. So initialisers of the enclosing model do not overwrite the image weights, and a trained model is built
    without them.

    Args:
        name: Name in timm, with or without a tag: ``'vit_small_patch16_224'``, ``'eva02_base_patch14_448'``.
        in_channels: Width of the tokens.
        pretrained: Download and load timm's weights for the name.
        checkpoint_path: File to load instead, ``.pth`` or ``.safetensors``, with timm's tensor names.
        drop_path_rate: Rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        depth: Number of blocks to keep, from the first; None keeps all.
        common: Arguments of :class:`TokenBackbone`.

    Shapes:
        - input: :class:`Tokens` of features (B, G, in_channels)
        - output: (B, D), D the width of the image model

    Raises:
        ValueError: timm does not know the name; the model is neither a ViT nor an EVA, has fewer blocks than
            ``depth`` or no weights to download; or both ``pretrained`` and ``checkpoint_path`` are given.
    """

    parts: ClassVar = {
        'patch_encoder': ('lift.',),
        'position': ('cls_token', 'cls_pos', 'reg_token', 'pos_embed.', 'norm_pre.'),
        'blocks': ('blocks.',),
        'norm': ('norm.', 'fc_norm.'),
    }

    def __init__(self, name: str = 'vit_small_patch16_224', in_channels: int = 512, pretrained: bool = False,
                 checkpoint_path: str | Path | None = None, drop_path_rate: float = 0.0, depth: int | None = None,
                 **common) -> None:
        from timm.models.eva import Eva

        _check_source(name, pretrained, checkpoint_path)
        image_model = _image_model(name, drop_path_rate=drop_path_rate)
        full_depth = len(image_model.blocks)
        if depth is not None and not 1 <= depth <= full_depth:
            raise ValueError(f'depth={depth}: {name} has {full_depth} blocks, expected 1 to {full_depth}')
        dim = image_model.embed_dim
        super().__init__(dim, in_channels, dim, **common)
        self.name = name
        self.pretrained = pretrained
        self.checkpoint_path = checkpoint_path
        self.depth = depth or full_depth
        self.lift = nn.Linear(in_channels, dim)
        self.cls_token = image_model.cls_token
        self.cls_pos = None if self.cls_token is None else nn.Parameter(torch.zeros(1, 1, dim))
        self.reg_token = image_model.reg_token
        self.pos_embed = position_embedding(dim)
        self.norm_pre = image_model.norm_pre
        self.blocks = nn.ModuleList(image_model.blocks[:self.depth])
        self.norm = image_model.norm
        self.fc_norm = image_model.fc_norm
        self._pools_class_token = image_model.global_pool == 'token'
        # EVA's blocks take rotary positions before the mask.
        self._before_mask = (None,) if isinstance(image_model, Eva) else ()
        self._left_out = tuple(f'blocks.{i}.' for i in range(self.depth, full_depth))
        _set_drop_path(self.blocks, drop_path_rates(drop_path_rate, self.depth))
        init_transformer(self.lift)
        init_transformer(self.pos_embed)
        if self.cls_pos is not None:
            nn.init.trunc_normal_(self.cls_pos, std=0.02)

    def extra_repr(self) -> str:
        return f'{self.name!r}, depth={self.depth}, in_channels={self.in_channels}'

    def init_weights(self) -> None:
        """Run mmengine's initialisation, then load the image weights; a second call does nothing.

        Raises:
            FileNotFoundError: The file does not exist, or timm cannot download the weights.
            ValueError: The file is damaged or does not fit, see :meth:`load_image_weights`.
        """
        from clipgs_plugin.models.checkpoints.reading import read_checkpoint

        already = self.is_init
        super().init_weights()
        if already:
            return
        if self.checkpoint_path is not None:
            self.load_image_weights(read_checkpoint(self.checkpoint_path), str(self.checkpoint_path))
        elif self.pretrained:
            self.load_image_weights(_download(self.name), self.name)

    def load_image_weights(self, state: dict[str, Tensor], source: str = 'state') -> None:
        """Load the blocks, norms and tokens of an image model.

        Args:
            state: Tensors by their names in timm.
            source: Origin of the tensors, for messages.

        Raises:
            ValueError: A needed tensor is missing or has another shape, or the state has blocks, norms or tokens that
                the model lacks. Blocks beyond ``depth`` are allowed. Nothing is loaded in case of an error.
        """
        from clipgs_plugin.models.checkpoints.report import LoadReport

        own = {key: value for key, value in self.state_dict().items()
               if key.startswith(IMAGE_PARTS) and LORA not in key}
        found = {key: value for key, value in state.items()
                 if key.startswith(IMAGE_PARTS) and not key.startswith(self._left_out)}
        faults = {
            'missing': [key for key in own if key not in found],
            'not in the model': [key for key in found if key not in own],
            'of another shape': [f'{key} {tuple(found[key].shape)} for {tuple(own[key].shape)}' for key in own
                                 if key in found and found[key].shape != own[key].shape]}
        if any(faults.values()):
            listed = '; '.join(f'{fault}: {", ".join(keys[:4])}' + (f' and {len(keys) - 4} more' if keys[4:] else '')
                               for fault, keys in faults.items() if keys)
            raise ValueError(f'{source}: not the weights of {self.name} with timm\'s names ({listed}). Nothing was '
                             'loaded; set name to the model of these weights')
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(found[key])
        report = LoadReport(source, 'timm', list(own), {
            key: 'part of the image model, not used for points' for key in state if key not in own})
        self.load_reports = [report]
        print_log(str(report), logger='current')

    def forward_features(self, tokens: Tokens) -> Tensor:
        """Return the class token, if any, and the patches after ``norm``, (B, [1 +] G, D)."""
        x = self.lift(tokens.features) + self.pos_embed(tokens.centers.to(tokens.features.dtype))
        attn_mask = key_mask(tokens.mask, self._num_prefix)
        if self.cls_token is not None:
            x = torch.cat([(self.cls_token + self.cls_pos).expand(x.shape[0], -1, -1), x], dim=1)
        length = x.shape[1]
        if self.reg_token is not None:  # appended; the order is free without positions
            x = torch.cat([x, self.reg_token.expand(x.shape[0], -1, -1)], dim=1)
            attn_mask = None if attn_mask is None else F.pad(attn_mask, (0, self.reg_token.shape[1]), value=True)
        x, _, attn_mask = self.add_prompts(self.norm_pre(x), attn_mask=attn_mask)
        for block in self.blocks:
            x = self.run(block, x, *self._before_mask, attn_mask)
        return self.norm(x[:, :length])

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the class token or the mean over the patches, after ``fc_norm``, (B, D)."""
        if self._pools_class_token:
            return self.fc_norm(features[:, 0])
        return self.fc_norm(masked_mean(features[:, self._num_prefix:], mask))

    @property
    def _num_prefix(self) -> int:
        return 0 if self.cls_token is None else 1


def _check_source(name: str, pretrained: bool, checkpoint_path: str | Path | None) -> None:
    import timm

    names = [*timm.list_models(), *timm.list_pretrained()]
    if name not in names:
        tagged = [other for other in names if other.startswith(name.partition('.')[0] + '.')]
        close = tagged or difflib.get_close_matches(name, names, n=5, cutoff=0.5)
        raise ValueError(f'name={name!r}: timm {timm.__version__} has no such model; '
                         + (f'close matches: {", ".join(close)}' if close else "see timm.list_models('vit*')"))
    if pretrained and checkpoint_path is not None:
        raise ValueError(f'pretrained=True and checkpoint_path={str(checkpoint_path)!r} are two sources of weights; '
                         'set one of them')
    if pretrained and not timm.is_model_pretrained(name):
        raise ValueError(f'pretrained=True: timm has no weights for {name}; set checkpoint_path to a file')


def _image_model(name: str, **options) -> nn.Module:
    """Build the full ViT or EVA."""
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    model = timm.create_model(name, num_classes=0, **options)
    if not isinstance(model, (VisionTransformer, Eva)):
        raise ValueError(f"name={name!r} is a {type(model).__name__}: expected a VisionTransformer or an Eva of timm; "
                         "see timm.list_models('vit*') and timm.list_models('eva*')")
    return model


def _download(name: str) -> dict[str, Tensor]:
    try:
        return _image_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [''])[0]
        raise FileNotFoundError(f'could not download the weights of {name} ({type(error).__name__}: {reason}); without '
                                'a network, copy the file here and set checkpoint_path to it') from error


def _set_drop_path(blocks: nn.ModuleList, rates: list[float]) -> None:
    """Set the rates of the kept blocks; timm spread its rates over all blocks."""
    from timm.layers import DropPath

    for block, rate in zip(blocks, rates):
        for layer in block.modules():
            if isinstance(layer, DropPath):
                layer.drop_prob = rate
