"""Linear head that starts as the zero-shot classifier."""
from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.heads.base import FewShotHead, unit
from clipgs_plugin.models.heads.training import train_epochs
from clipgs_plugin.registry import MODELS

# Mean length of CLIP's text vectors before normalisation (ViT-B/32 on the 1,203 names of LVIS: 9.8). The published code
# trains vectors of that length, which sets the step relative to them and the strength of CLAP's pull.
TEXT_NORM = 10.0


@MODELS.register_module()
class ZeroShotLinear(FewShotHead):
    """Cosine classifier that is initialised with the class embeddings, ZS-LP (Silva-Rodriguez et al., "A Closer Look at
    the Few-Shot Adaptation of Large Vision-Language Models", CVPR 2024).

    .. math:: z_c = s \\, \\cos(f, w_c), \\qquad w_c^{(0)} = r \\, t_c, \\qquad \\min_w \\mathrm{CE}(z, y)

    Before the first step it is the zero-shot classifier. SGD with momentum and a cosine schedule, a fixed number of
    epochs, the last one taken: no validation set.

    Args:
        lr: Learning rate.
        epochs: Number of epochs; the first one runs at a rate of 1e-5.
        batch_size: Number of features of a step.
        logit_scale: Factor s on cosines.
        text_norm: Length r of the class embeddings when training starts.
        seed: Random seed of the order of features.

    Shapes: See :class:`FewShotHead`.
    """

    needs_text = True
    leak = 'the epoch'

    def __init__(self, lr: float = 0.1, epochs: int = 300, batch_size: int = 256, logit_scale: float = 100.0,
                 text_norm: float = TEXT_NORM, seed: int = 0) -> None:
        super().__init__()
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.logit_scale = logit_scale
        self.text_norm = text_norm
        self.seed = seed

    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> Iterator[None]:
        start = self.text_norm * unit(class_embeddings)
        self.weight = nn.Parameter(start.clone())

        def loss(rows: Tensor) -> Tensor:
            return F.cross_entropy(self(features[rows]), labels[rows]) + self.penalty(start)

        self.prepare(features, labels, class_embeddings)
        yield from train_epochs([self.weight], loss, len(labels), dict(type='SGD', lr=self.lr, momentum=0.9),
                                self.epochs, self.batch_size, self.seed, warmup_lr=1e-5)

    def prepare(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> None:
        """Compute what :meth:`penalty` needs, before the first step."""

    def penalty(self, start: Tensor) -> Tensor | float:
        """Return a term that is added to the cross-entropy, from the weights before the first step, (C, D)."""
        return 0.0

    def forward(self, features: Tensor) -> Tensor:
        return self.logit_scale * unit(features.float()) @ unit(self.weight).T
