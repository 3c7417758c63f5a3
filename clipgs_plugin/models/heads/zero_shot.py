"""Zero-shot head."""
from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from clipgs_plugin.models.heads.base import FewShotHead, unit
from clipgs_plugin.registry import MODELS


@MODELS.register_module()
class ZeroShotHead(FewShotHead):
    """Classifier by the class embeddings alone (CLIP: Radford et al., "Learning Transferable Visual Models From Natural
    Language Supervision", ICML 2021), the yardstick of the others; the support is ignored.

    .. math:: z_c = s \\, \\cos(f, t_c)

    Args:
        logit_scale: Factor s on cosines.

    Shapes: See :class:`FewShotHead`.
    """

    needs_text = True

    def __init__(self, logit_scale: float = 100.0) -> None:
        super().__init__()
        self.logit_scale = logit_scale

    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> Iterator[None]:
        self.register_buffer('weight', unit(class_embeddings))
        yield

    def forward(self, features: Tensor) -> Tensor:
        return self.logit_scale * unit(features.float()) @ self.weight.T
