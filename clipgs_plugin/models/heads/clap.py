"""Class-adaptive linear probe."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.models.heads.zero_shot_linear import ZeroShotLinear
from clipgs_plugin.registry import MODELS


@MODELS.register_module()
class CLAP(ZeroShotLinear):
    """Class-adaptive linear probe (Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large
    Vision-Language Models", CVPR 2024): ZS-LP that is pulled towards the class embeddings.

    .. math:: \\min_w \\mathrm{CE}(z, y) + \\frac{1}{C} \\sum_c \\lambda_c \\| w_c - r \\, t_c \\|^2, \\qquad
        \\lambda_c = \\frac{1}{|\\{i: y_i = c\\}|} \\sum_{i: y_i = c} \\mathrm{softmax}(z^{(0)}_i)_c

    The multiplier of a class is the mean probability that the zero-shot classifier gives to its own support, so
    classes whose names describe them well stay near their names. The published code averages over classes. A class
    without support is not trained towards anything; its multiplier is the mean of the others.

    Its published protocol chooses nothing on a test set.

    Args:
        lr, epochs, batch_size, logit_scale, text_norm, seed: See :class:`ZeroShotLinear`.

    Shapes: See :class:`FewShotHead`.
    """

    leak = ''

    def prepare(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> None:
        self.register_buffer('multipliers', class_multipliers(self(features).detach(), labels))

    def penalty(self, start: Tensor) -> Tensor:
        return (self.multipliers * (self.weight - start).square().sum(-1)).mean()



def class_multipliers(
    logits: Tensor,  # (n, C) of the zero-shot classifier
    labels: Tensor,  # (n,) int64
) -> Tensor:         # (C,)
    """Average the probability of the true class over the support of each class; absent classes have the mean."""
    count = logits.shape[1]
    own = logits.softmax(-1).gather(1, labels[:, None])[:, 0]
    counts = torch.bincount(labels, minlength=count)
    means = torch.zeros(count).index_add_(0, labels, own) / counts.clamp(min=1)
    return means.where(counts > 0, means[counts > 0].mean())
