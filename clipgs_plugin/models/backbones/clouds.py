"""What backbones that take the Gaussians themselves have in common."""
from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor

from clipgs_plugin.models.tokenizers.patches import canonicalise
from clipgs_plugin.structures import GaussianBatch
from clipgs_plugin.structures.attributes import SCALE_QUANTITIES, attribute_names, linearise, num_channels, pack


class CloudBackbone(BaseModule):
    """A backbone without a tokenizer before it: ``GSEncoder(tokenizer=None, backbone=...)``.

    A subclass gives ``forward_features``, ``feature_mask`` and ``pool``. Layers see the Gaussians, or their patches,
    that exist in one list, so that no batch norm sees padding.

    Args:
        out_channels: Width of its pooled feature.
        attributes: What it sees of a Gaussian: ``'paper'`` (19 channels), ``'gauge_free'``, or a tuple of names of
            :mod:`clipgs_plugin.structures.attributes`. Whatever it sees, neighbours are found by position.
        scale: Which quantity of the scale is seen: ``'sigmoid'`` of the logarithm, ``'log'`` or ``'linear'``.
        init_cfg: Initialisation, as mmengine reads it.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, out_channels)
    """

    input = 'gaussians'
    parts: ClassVar[dict[str, tuple[str, ...]]] = {'blocks': ('',)}  # beginnings of names of parameters, by part

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
        if not isinstance(batch, GaussianBatch):
            raise TypeError(f'{type(self).__name__} takes a GaussianBatch, got {type(batch).__name__}; make one with '
                            'GaussianBatch.from_clouds([cloud, ...])')

    def canonical(self, batch: GaussianBatch) -> Tensor:
        """Raw channels, (B, N, 14), of Gaussians sorted by content, so that the order of a file does not matter."""
        self.check(batch)
        raw = pack(batch).float()
        with torch.autocast(raw.device.type, enabled=False):
            return canonicalise(raw, batch.lengths)

    def see(self, raw: Tensor, origin: Tensor | None = None) -> Tensor:
        """The attributes of raw channels (..., 14) as numbers a layer can read, (..., in_channels) float32."""
        with torch.autocast(raw.device.type, enabled=False):
            return linearise(raw, self.attributes, self.scale, origin)
