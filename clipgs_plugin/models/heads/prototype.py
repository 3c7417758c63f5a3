"""Prototypes."""
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clipgs_plugin.models.heads.base import FewShotHead, unit
from clipgs_plugin.registry import MODELS


@MODELS.register_module()
class PrototypeHead(FewShotHead):
    """Classifier by the mean feature of each class (Snell et al., "Prototypical Networks for Few-shot Learning",
    NeurIPS 2017), with cosines in place of Euclidean distances.

    .. math:: p_c = \\frac{\\sum_{i: y_i = c} f_i}{\\|\\sum_{i: y_i = c} f_i\\|}, \\qquad z_c = s \\, f \\cdot p_c

    A class without support has no prototype; its logit is -s, that of the opposite direction. Nothing is trained.

    Args:
        logit_scale: Factor s on cosines.

    Shapes: See :class:`FewShotHead`.
    """

    def __init__(self, logit_scale: float = 100.0) -> None:
        super().__init__()
        self.logit_scale = logit_scale

    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor | None) -> Iterator[None]:
        count = int(labels.max()) + 1 if class_embeddings is None else len(class_embeddings)
        sums = torch.zeros(count, features.shape[1], dtype=torch.float64).index_add_(0, labels, unit(features.double()))
        self.register_buffer('prototypes', unit(sums).float())
        self.register_buffer('absent', torch.bincount(labels, minlength=count) == 0)
        yield

    def forward(self, features: Tensor) -> Tensor:
        cosines = unit(features.float()) @ self.prototypes.T
        return self.logit_scale * cosines.masked_fill(self.absent, -1.0)
