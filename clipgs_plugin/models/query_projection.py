"""Projections of queries: one for image queries and one for text queries, as in ReCon and ReCon++."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.backbones.recon_plus_plus import TEXT_QUERIES
from clipgs_plugin.registry import MODELS


class QueryProjection(nn.Module):
    """Projections of ReCon and ReCon++: one for their image queries, one for their text queries.

    Args:
        in_features: D, width of a query.
        out_features: E, width of the teacher's space.
        num_text: Number of text queries, which come last.

    Shapes:
        - input: (B, Q, D)
        - output: (B, Q, E)
    """

    def __init__(self, in_features: int, out_features: int, num_text: int = TEXT_QUERIES) -> None:
        super().__init__()
        self.num_text = num_text
        self.image = nn.Linear(in_features, out_features)
        self.text = nn.Linear(in_features, out_features)

    def forward(self, queries: Tensor) -> Tensor:
        images, texts = queries[:, :-self.num_text], queries[:, -self.num_text:]
        return torch.cat([self.image(images), self.text(texts)], dim=1)


@MODELS.register_module()
class MixedProjection(QueryProjection):
    r"""Mix of the projected queries to a single embedding, as in the zero-shot evaluation of ReCon and ReCon++.

    .. math:: e = \frac{1}{n} \sum_i v_i + \frac{r}{m} \sum_j t_j

    with n image vectors :math:`v_i`, m text vectors :math:`t_j` and the ratio r. The published score of a text is
    :math:`e \cdot x` for its unit vector x. So the cosine of e and x is that score divided by the length of e, which
    does not depend on the text: the order of the texts is the published one.

    Args:
        in_features, out_features, num_text: See :class:`QueryProjection`.
        ratio: Weight r of the text vectors; that of the image vectors is 1. It can be changed at any time.
        unit: Scale each vector to length 1 before the mix, as ReCon++ does; ReCon mixes them as they are.

    Shapes:
        - input: (B, Q, D)
        - output: (B, E), not normalised
    """

    input = 'queries'

    def __init__(self, in_features: int, out_features: int, num_text: int, ratio: float, unit: bool) -> None:
        super().__init__(in_features, out_features, num_text)
        self.ratio = ratio
        self.unit = unit

    def extra_repr(self) -> str:
        return f'ratio={self.ratio}, num_text={self.num_text}, unit={self.unit}'

    def forward(self, queries: Tensor) -> Tensor:
        vectors = super().forward(queries)
        vectors = F.normalize(vectors, dim=-1) if self.unit else vectors
        return vectors[:, :-self.num_text].mean(1) + self.ratio * vectors[:, -self.num_text:].mean(1)
