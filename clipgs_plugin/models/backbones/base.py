"""Base classes of the backbones: over tokens, and over the Gaussians themselves."""
from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipgs_plugin.models.quiet_init import QuietInit
from clipgs_plugin.models.tokenizers.patches import canonicalise
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.structures import GaussianBatch
from clipgs_plugin.structures.attributes import SCALE_QUANTITIES, attribute_names, linearise, num_channels, pack


class TokenBackbone(QuietInit, BaseModule):
    """Base class of transformers over tokens.

    A subclass defines ``parts``, ``pool`` and ``forward_features``. ``forward_features`` calls its blocks through
    :meth:`run` and appends the prompts with :meth:`add_prompts`. ``parts`` maps each part of the model to prefixes of
    parameter names, for freezing and loading.

    Args:
        embed_dims: D, width of the transformer.
        in_channels: C, width of the input tokens.
        out_channels: Width of the pooled feature.
        patch_dropout: Share of an object's patches dropped at random in training; evaluation uses all patches.
        num_prompts: Number of learned tokens appended to the patches of every object ("Visual Prompt Tuning", Jia et
            al., 2022, shallow). Pooling ignores them.
        grad_checkpointing: Recompute the blocks in the backward pass to save memory.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - input: :class:`Tokens` of features (B, G, in_channels)
        - output: (B, out_channels)
    """

    input = 'tokens'
    parts: ClassVar[dict[str, tuple[str, ...]]]  # prefixes of parameter names, by part

    def __init__(self, embed_dims: int, in_channels: int, out_channels: int, patch_dropout: float = 0.0,
                 num_prompts: int = 0, grad_checkpointing: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if not 0 <= patch_dropout < 1:
            raise ValueError(f'patch_dropout={patch_dropout}: expected a share of at least 0 and below 1')
        self.embed_dims = embed_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.patch_dropout = patch_dropout
        self.grad_checkpointing = grad_checkpointing
        self.prompt_tokens = None
        self.set_prompts(num_prompts)

    def set_prompts(self, count: int) -> None:
        """Draw new prompts in place of those that there are; 0 removes them."""
        if count < 0:
            raise ValueError(f'num_prompts={count}: expected 0 or more')
        self.prompt_tokens = None
        if count:
            self.prompt_tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, self.embed_dims), std=0.02))

    def forward(self, tokens: Tokens) -> Tensor:
        tokens = self.drop(tokens)
        return self.pool(self.forward_features(tokens), tokens.mask)

    def forward_queries(self, tokens: Tokens) -> Tensor:
        """Return the queries before any pooling, (B, Q, D), in backbones with a method ``queries(features)``."""
        return self.queries(self.forward_features(self.drop(tokens)))

    def drop(self, tokens: Tokens) -> Tokens:
        """Drop patches in training by ``patch_dropout``."""
        return drop_patches(tokens, self.patch_dropout) if self.training and self.patch_dropout > 0 else tokens

    def readout(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the feature that the published model projects: the pooled feature by default."""
        return self.pool(features, mask)

    def run(self, block: nn.Module, *inputs) -> Tensor:
        """Call a block, in training with ``grad_checkpointing`` without keeping its activations."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def add_prompts(
        self,
        x: Tensor,                                    # (B, T, D)
        position: Tensor | None = None,               # (B, T, D) for families that add it before every block
        attn_mask: Tensor | None = None,              # (B, 1, 1, T) bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Append the prompts to the sequence, with position zero and visible to all tokens."""
        if self.prompt_tokens is None:
            return x, position, attn_mask
        count = self.prompt_tokens.shape[1]
        x = torch.cat([x, self.prompt_tokens.expand(x.shape[0], -1, -1)], dim=1)
        position = None if position is None else F.pad(position, (0, 0, 0, count))
        return x, position, None if attn_mask is None else F.pad(attn_mask, (0, count), value=True)


def drop_patches(tokens: Tokens, share: float) -> Tokens:
    """Drop a random share of each object's patches; at least one real patch stays."""
    b, g = tokens.features.shape[:2]
    keep = max(1, round(g * (1 - share)))
    index = torch.rand(b, g, device=tokens.features.device).argsort(dim=1)
    if tokens.mask is not None:  # real patches come before padding
        index = index.gather(1, tokens.mask.gather(1, index).long().argsort(dim=1, descending=True, stable=True))
    index = index[:, :keep]
    mask = None if tokens.mask is None else tokens.mask.gather(1, index)
    return Tokens(*(torch.take_along_dim(x, index[..., None], dim=1) for x in tokens[:2]), mask)


class CloudBackbone(QuietInit, BaseModule):
    """Base class of backbones without a tokenizer: ``GSEncoder(tokenizer=None, backbone=...)``.

    A subclass defines ``forward_features``, ``feature_mask`` and ``pool``. Its layers see a single list of all real
    Gaussians (or patches) of the batch, so that no batch norm sees padding.

    Args:
        out_channels: Width of the pooled feature.
        attributes: Input attributes of a Gaussian: ``'paper'`` (19 channels), ``'gauge_free'``, ``'shape'``, or a tuple
            of names from :mod:`clipgs_plugin.structures.attributes`. Neighbours are found by position in any case.
        scale: Quantity of the scale: ``'sigmoid'`` of the logarithm, ``'log'`` or ``'linear'``.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, out_channels)
    """

    input = 'gaussians'
    parts: ClassVar[dict[str, tuple[str, ...]]] = {'blocks': ('',)}  # prefixes of parameter names, by part

    def __init__(self, out_channels: int, attributes: str | Sequence[str] = ('xyz', 'rgb'), scale: str = 'sigmoid',
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if scale not in SCALE_QUANTITIES:
            raise ValueError(f'scale={scale!r}: expected one of {sorted(SCALE_QUANTITIES)}')
        self.attributes = attribute_names(attributes)
        self.in_channels = num_channels(self.attributes)
        self.out_channels = out_channels
        self.scale = scale

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, batch: GaussianBatch) -> Tensor:
        return self.pool(self.forward_features(batch), self.feature_mask(batch))

    def check(self, batch: GaussianBatch) -> None:
        """Check that the input is a batch.

        Raises:
            TypeError: The input is not a GaussianBatch.
        """
        if not isinstance(batch, GaussianBatch):
            raise TypeError(f'{type(self).__name__} takes a GaussianBatch, got {type(batch).__name__}; make one with '
                            'GaussianBatch.from_clouds([cloud, ...])')

    def canonical(self, batch: GaussianBatch) -> Tensor:
        """Return raw channels (B, N, 14), sorted by content, so that the order of the file does not matter."""
        self.check(batch)
        raw = pack(batch).float()
        with torch.autocast(raw.device.type, enabled=False):
            return canonicalise(raw, batch.lengths)

    def linearise(self, raw: Tensor, origin: Tensor | None = None) -> Tensor:
        """Map raw channels (..., 14) to the input attributes, (..., in_channels) float32."""
        with torch.autocast(raw.device.type, enabled=False):
            return linearise(raw, self.attributes, self.scale, origin)
