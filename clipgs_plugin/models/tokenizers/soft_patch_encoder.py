"""The patch encoder of Gaussian-MAE, which looks at soft neighbours."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.tokenizers.inference import patch_max
from clipgs_plugin.models.tokenizers.patch_encoder import Layer, PatchEncoder, norm_relu
from clipgs_plugin.registry import MODELS


class SoftNeighbors(nn.Module):
    r"""Weighted means of the features of a patch, each with weights of a temperature of its own.

    .. math:: z_i = \sum_j \mathrm{softmax}_j(-\|x_j - q\|^2 / t_i) \, x_j, \quad t_i = e^{a_i} + b_i

    A low temperature gives the feature nearest to the query, a high one the mean of all. These are the "neural
    nearest neighbors" of Plötz and Roth (NeurIPS 2018) as Gaussian-MAE has them: not one drawn after the other, but
    side by side. Nothing keeps a temperature from becoming negative, as published.

    Args:
        count: k, how many means.

    Shapes:
        - features: (P, K, C)
        - query: (P, 1, C)
        - output: (P, k, C)
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.learnable_temp = nn.Parameter(torch.zeros(count))  # a
        self.log_temp_bias = nn.Parameter(torch.zeros(count))   # b, added past the exponential whatever its name

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        distances = (features - query).to(torch.promote_types(features.dtype, torch.float32)).square().sum(-1)
        temperature = self.learnable_temp.exp() + self.log_temp_bias
        weights = (-distances[:, None] / temperature[:, None]).softmax(-1)  # (P, k, K)
        return weights.to(features.dtype) @ features


@MODELS.register_module()
class SoftPatchEncoder(PatchEncoder):
    """The patch encoder of Gaussian-MAE (Ma et al., 3DV 2025) with the names of its checkpoints.

    It is :class:`PatchEncoder`, but its second stage sees ``num_neighbors`` soft neighbours in the place of the K
    Gaussians of the patch: means of their features by :class:`SoftNeighbors`, with the maximum over the patch as the
    query. The pooled feature beside them is the maximum over the soft neighbours.

    Gaussian-MAE makes its 32 out of patches of 40, on ``('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc')``. In an
    object of fewer Gaussians than ``group_size`` the repeats weigh in the means. Temperatures begin alike, so that
    an encoder without a checkpoint begins with soft neighbours that are all the same.

    Args:
        in_channels: Channels of a Gaussian.
        out_channels: Width of a token.
        widths: Hidden width of the first stage, its output, hidden width of the second stage.
        num_neighbors: k, soft neighbours of a patch.
        init_cfg: Initialisation, as mmengine reads it.

    Shapes:
        - input: (P, K, in_channels)
        - output: (P, out_channels)
    """

    def __init__(self, in_channels: int = 14, out_channels: int = 384, widths: Sequence[int] = (128, 128, 256),
                 num_neighbors: int = 32, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(in_channels, out_channels, widths, init_cfg)
        if num_neighbors < 1:
            raise ValueError(f'num_neighbors={num_neighbors}: expected 1 or more')
        self.n3_agg = SoftNeighbors(num_neighbors)

    # max, not amax, throughout: amax would share the gradient among ties, and soft neighbours that begin alike would
    # stay alike.

    def plain(self, patches: Tensor) -> Tensor:
        """The encoder as published."""
        local = self.first_conv(patches.transpose(1, 2)).transpose(1, 2)
        soft = self.n3_agg(local, local.max(1, keepdim=True).values)
        pooled = soft.max(1, keepdim=True).values
        both = torch.cat([pooled.expand_as(soft), soft], dim=-1)
        return self.second_conv(both.transpose(1, 2)).max(2).values

    def _encode(self, patches: Tensor, layers: list[Layer]) -> Tensor:
        hidden_1, output_1, hidden_2, output_2 = layers
        p, k = patches.shape[:2]
        x = F.linear(patches.flatten(0, 1), hidden_1.weight, hidden_1.bias)
        x = F.linear(norm_relu(x, hidden_1.norm), output_1.weight, output_1.bias).view(p, k, -1)
        soft = self.n3_agg(x, patch_max(x)[:, None])
        pooled = patch_max(soft)
        # W [pooled; soft] + b = (W_p pooled + b) + W_s soft
        weight_pooled, weight_soft = hidden_2.weight.split(pooled.shape[1], dim=1)
        per_patch = F.linear(pooled, weight_pooled, hidden_2.bias)
        x = (F.linear(soft, weight_soft) + per_patch[:, None]).flatten(0, 1)
        x = F.linear(norm_relu(x, hidden_2.norm), output_2.weight)
        return patch_max(x.view(p, soft.shape[1], -1)) + output_2.bias
