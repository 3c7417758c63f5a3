"""Linear probe."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.heads.base import FewShotHead
from clipgs_plugin.registry import MODELS

# Strengths that the published protocol tries: the inverses of CLIP's grid of C, from 1e-6 to 1e6.
PUBLISHED_GRID = tuple(10.0 ** power for power in (6, 4, 2, 0, -2, -4, -6))


@MODELS.register_module()
class LinearProbe(FewShotHead):
    r"""Multinomial logistic regression on standardised features (CLIP: Radford et al., ICML 2021, Sec. 3.2; the probe
    of OpenShape and Uni3D).

    .. math:: \min_{W, b} \sum_n \mathrm{CE}(W x_n + b, y_n) + \frac{\lambda}{2} \|W\|^2

    x is a feature minus the mean of the support, divided by its standard deviation. The problem is convex and the
    start is zero, so nothing is random. It uses no class embeddings but their number.

    Args:
        weight_decay: Strength :math:`\lambda`; 1 is scikit-learn's default.
        max_iter: Maximum number of L-BFGS steps.

    Shapes: See :class:`FewShotHead`.
    """

    leak = 'the strength of the regularisation'

    def __init__(self, weight_decay: float = 1.0, max_iter: int = 200) -> None:
        super().__init__()
        self.weight_decay = weight_decay
        self.max_iter = max_iter

    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor | None) -> Iterator[None]:
        count = int(labels.max()) + 1 if class_embeddings is None else len(class_embeddings)
        # The deviation of a single value is 0, not NaN.
        mean, deviation = features.double().mean(0), features.double().std(0, correction=min(1, len(features) - 1))
        self.register_buffer('mean', mean)
        self.register_buffer('scale', deviation.clamp(min=1e-6))
        weight, bias = self._minimise((features.double() - self.mean) / self.scale, labels, count)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)  # which fine-tuning trains on
        yield

    def _minimise(self, x: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        weight = torch.zeros(count, x.shape[1], dtype=x.dtype, requires_grad=True)
        bias = torch.zeros(count, dtype=x.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=self.max_iter, history_size=10,
                                      line_search_fn='strong_wolfe', tolerance_grad=1e-6)

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(F.linear(x, weight, bias), labels, reduction='sum')
            value = value + self.weight_decay / 2 * weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return weight.detach(), bias.detach()

    @torch.no_grad()
    def best_score(self, features: Tensor, labels: Tensor, class_embeddings: Tensor | None, queries: Tensor,
                   score: Callable[[Tensor], float]) -> float:
        heads = [LinearProbe(strength, self.max_iter) for strength in (self.weight_decay, *PUBLISHED_GRID)]
        return max(score(head.fit(features, labels, class_embeddings)(queries)) for head in heads)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear((features.double() - self.mean) / self.scale, self.weight, self.bias)
