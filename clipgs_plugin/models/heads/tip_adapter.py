"""Tip-Adapter: a cache of the support beside the zero-shot classifier."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.heads.base import FewShotHead, unit
from clipgs_plugin.models.heads.training import train_epochs
from clipgs_plugin.registry import MODELS

# The search of the published code: numbers of steps and upper ends of beta and alpha, both from 0.1.
SEARCH_STEPS, SEARCH_ENDS = (200, 20), (7.0, 3.0)


@MODELS.register_module()
class TipAdapter(FewShotHead):
    """Training-free adapter (Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification",
    ECCV 2022).

    .. math:: z = s \\, f T^\\top + \\alpha \\exp(-\\beta (1 - f K^\\top)) V

    K are the unit features of the support (n, D), V their labels as one-hot rows (n, C), T the class embeddings.

    Args:
        alpha: Weight of the cache; 1.17 is the published start for ImageNet.
        beta: Sharpness of the cache.
        logit_scale: Factor s on the cosines with the class embeddings.

    Shapes: See :class:`FewShotHead`.
    """

    needs_text = True
    leak = 'alpha and beta'

    def __init__(self, alpha: float = 1.17, beta: float = 1.0, logit_scale: float = 100.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.logit_scale = logit_scale

    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> Iterator[None]:
        self.register_buffer('text', unit(class_embeddings))
        self.register_buffer('values', F.one_hot(labels, len(class_embeddings)).float())
        self.keys = nn.Parameter(unit(features.float()), requires_grad=False)
        yield

    def zero_shot_logits(self, features: Tensor) -> Tensor:
        return self.logit_scale * unit(features.float()) @ self.text.T

    def cache_logits(self, features: Tensor, beta: float) -> Tensor:
        return (-beta * (1 - unit(features.float()) @ self.keys.T)).exp() @ self.values

    def forward(self, features: Tensor) -> Tensor:
        return self.zero_shot_logits(features) + self.alpha * self.cache_logits(features, self.beta)

    @torch.no_grad()
    def best_score(self, features: Tensor, labels: Tensor, class_embeddings: Tensor | None, queries: Tensor,
                   score: Callable[[Tensor], float]) -> float:
        best = score(self.fit(features, labels, class_embeddings)(queries))
        return max(best, *map(score, self.searched(queries)))

    def searched(self, queries: Tensor) -> Iterator[Tensor]:
        """Yield the logits of queries for every alpha and beta of the published search."""
        (betas, alphas), (last_beta, last_alpha) = SEARCH_STEPS, SEARCH_ENDS
        zero_shot = self.zero_shot_logits(queries)
        for i in range(betas):
            cache = self.cache_logits(queries, 0.1 + i * (last_beta - 0.1) / betas)
            for j in range(alphas):
                yield zero_shot + (0.1 + j * (last_alpha - 0.1) / alphas) * cache


@MODELS.register_module()
class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained (Zhang et al., ECCV 2022): AdamW, a cosine schedule, the last epoch taken.

    The keys start as the support, so before the first step it is :class:`TipAdapter`. They are not normalised again.

    Args:
        alpha, beta, logit_scale: See :class:`TipAdapter`.
        lr: Learning rate.
        epochs: Number of epochs.
        batch_size: Number of features of a step.
        seed: Random seed of the order of features.

    Shapes: See :class:`FewShotHead`.
    """

    leak = 'the epoch, then alpha and beta'

    def __init__(self, alpha: float = 1.17, beta: float = 1.0, logit_scale: float = 100.0, lr: float = 1e-3,
                 epochs: int = 20, batch_size: int = 256, seed: int = 0) -> None:
        super().__init__(alpha, beta, logit_scale)
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed

    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> Iterator[None]:
        list(super().training_states(features, labels, class_embeddings))
        self.keys.requires_grad_(True)
        yield from train_epochs([self.keys], lambda rows: F.cross_entropy(self(features[rows]), labels[rows]),
                                len(labels), dict(type='AdamW', lr=self.lr, eps=1e-4), self.epochs, self.batch_size,
                                self.seed)

    @torch.no_grad()
    def best_score(self, features: Tensor, labels: Tensor, class_embeddings: Tensor | None, queries: Tensor,
                   score: Callable[[Tensor], float]) -> float:
        best, keys = -1.0, None
        for _ in self.training_states(*self.checked(features, labels, class_embeddings)):
            found = score(self(queries))
            if found > best:
                best, keys = found, self.keys.detach().clone()
        self.keys.copy_(keys)
        return max(best, *map(score, self.searched(queries)))
