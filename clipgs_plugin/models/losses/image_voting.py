"""Image voting loss of CLIP-GS."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.models.losses.contrastive import GatheredLoss, contrastive_terms, unit_rows
from clipgs_plugin.registry import MODELS

NORMALISATIONS = ('mean', 'softmax', 'none')


@MODELS.register_module()
class ImageVotingLoss(GatheredLoss):
    """Contrastive loss over several views, weighted by their agreement with the text (CLIP-GS, arXiv 2412.19142).

    .. math:: w_{ik} = \\max(0, \\cos(v_{ik}, t_i)), \\qquad
              L = -\\frac{1}{2NK} \\sum_{ik} \\hat w_{ik}
                  \\left[\\log\\frac{e^{s\\,g_i v_{ik}}}{\\sum_j e^{s\\,g_i v_{jk}}}
                       + \\log\\frac{e^{s\\,g_i v_{ik}}}{\\sum_j e^{s\\,g_j v_{ik}}}\\right]

    The paper does not state the normalisation of w, so it is an option. No gradient flows through the weights.

    Args:
        num_views: K, number of views used, the first of each object; 1 is the single-view baseline.
        normalise: Normalisation of w. ``'mean'`` divides by the mean over the K views, so that all objects count
            equally and the weights average 1 (all weights stay 0 for an object without any agreement). ``'softmax'``
            is K softmax(w / tau), which also averages 1. ``'none'`` keeps w.
        tau: Temperature of ``'softmax'``.
        weights: ``'voting'``, or the ablation ``'uniform'`` with all weights 1.
        views: Candidates of an object: the M views of ``'slot'`` k, or ``'all'`` M x K views, including the object's
            own views in other slots.
        gather, local_loss, loss_weight: See :class:`~clipgs_plugin.models.losses.contrastive.GatheredLoss`.

    Shapes:
        - gaussians: (N, E), views: (N, >= K, E), text: (N, E), normalised inside
        - logit_scale: scalar or (1,), the inverse temperature, not its logarithm
        - output: scalar, at least float32
    """

    def __init__(self, num_views: int = 5, normalise: str = 'mean', tau: float = 0.05, weights: str = 'voting',
                 views: str = 'slot', gather: bool = True, local_loss: bool = False, loss_weight: float = 1.0):
        super().__init__(gather, local_loss, loss_weight)
        if num_views < 1:
            raise ValueError(f'num_views={num_views}: expected 1 or more')
        if tau <= 0:
            raise ValueError(f'tau={tau}: expected a temperature above 0')
        for name, value, allowed in (('normalise', normalise, NORMALISATIONS), ('weights', weights,
                                     ('voting', 'uniform')), ('views', views, ('slot', 'all'))):
            if value not in allowed:
                raise ValueError(f'{name}={value!r}: expected one of {allowed}')
        self.num_views = num_views
        self.normalise = normalise
        self.tau = tau
        self.weights = weights
        self.views = views

    def vote(self, views: Tensor, text: Tensor) -> Tensor:
        """Return the weights (N, K) of unit views (N, K, E) given unit texts (N, E)."""
        if self.weights == 'uniform':
            return views.new_ones(views.shape[:2])
        votes = torch.einsum('ike,ie->ik', views, text).clamp(min=0).detach()
        if self.normalise == 'mean':
            return votes / votes.mean(1, keepdim=True).clamp(min=torch.finfo(votes.dtype).tiny)
        if self.normalise == 'softmax':
            return votes.shape[1] * (votes / self.tau).softmax(1)
        return votes

    def forward(self, gaussians: Tensor, views: Tensor, text: Tensor, logit_scale: Tensor | float) -> Tensor:
        n, width = gaussians.shape
        if views.ndim != 3 or views.shape[::2] != (n, width) or text.shape != (n, width):
            raise ValueError(f'ImageVotingLoss needs gaussians (N, E), views (N, K, E) and text (N, E), got '
                             f'{tuple(gaussians.shape)}, {tuple(views.shape)} and {tuple(text.shape)}')
        if views.shape[1] < self.num_views:
            raise ValueError(f'num_views={self.num_views}, but the batch has {views.shape[1]} views per object; lower '
                             'num_views of the loss, or raise num_views of the dataset')
        with torch.autocast(gaussians.device.type, enabled=False):
            gaussians, views, text = unit_rows(gaussians, views[:, :self.num_views], text)
            (gaussians, views, text), candidates, first = self.exchange(gaussians, views, text)
            terms = contrastive_terms(gaussians, views, *candidates[:2], logit_scale, first,
                                      pool_slots=self.views == 'all')
            return self.loss_weight * (self.vote(views, text) * terms).mean()

    def extra_repr(self) -> str:
        return (f'num_views={self.num_views}, normalise={self.normalise!r}, weights={self.weights!r}, '
                f'views={self.views!r}, gather={self.gather}, local_loss={self.local_loss}')
