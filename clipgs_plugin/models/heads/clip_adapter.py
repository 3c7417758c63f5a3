"""CLIP-Adapter: a bottleneck on the feature beside the feature."""
from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.heads.base import FewShotHead, unit
from clipgs_plugin.models.heads.training import train_epochs
from clipgs_plugin.registry import MODELS


@MODELS.register_module()
class CLIPAdapter(FewShotHead):
    """Residual adapter of the feature (Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters",
    IJCV 2024).

    .. math:: g = \\rho \\, \\mathrm{ReLU}(\\mathrm{ReLU}(f A) B) + (1 - \\rho) f, \\qquad z_c = s \\cos(g, t_c)

    A is (D, D / 4) and B is (D / 4, D), without biases. The published code states no optimiser for cached features;
    AdamW at 1e-3 over 200 epochs is ours, fixed for all data sets, with the last epoch taken.

    Args:
        ratio: Share :math:`\\rho` of the adapter.
        reduction: Quotient of the width of the feature and of the bottleneck.
        lr: Learning rate.
        epochs: Number of epochs.
        batch_size: Number of features of a step.
        logit_scale: Factor s on cosines.
        seed: Random seed of A, B and the order of features.

    Shapes: See :class:`FewShotHead`.
    """

    needs_text = True
    leak = 'the epoch'

    def __init__(self, ratio: float = 0.2, reduction: int = 4, lr: float = 1e-3, epochs: int = 200,
                 batch_size: int = 256, logit_scale: float = 100.0, seed: int = 0) -> None:
        super().__init__()
        self.ratio = ratio
        self.reduction = reduction
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.logit_scale = logit_scale
        self.seed = seed

    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> Iterator[None]:
        width, generator = features.shape[1], torch.Generator().manual_seed(self.seed)
        inner = max(width // self.reduction, 1)
        self.register_buffer('text', unit(class_embeddings))
        self.down, self.up = (nn.Parameter(nn.init.kaiming_uniform_(torch.empty(shape), math.sqrt(5),
                                                                    generator=generator))
                              for shape in ((inner, width), (width, inner)))  # as nn.Linear begins
        yield from train_epochs([self.down, self.up],
                                lambda rows: F.cross_entropy(self(features[rows]), labels[rows]), len(labels),
                                dict(type='AdamW', lr=self.lr), self.epochs, self.batch_size, self.seed)

    def forward(self, features: Tensor) -> Tensor:
        features = unit(features.float())
        adapted = F.relu(F.linear(F.relu(F.linear(features, self.down)), self.up))
        return self.logit_scale * unit(self.ratio * adapted + (1 - self.ratio) * features) @ self.text.T
