"""Patch encoder of Gaussian-MAE, with soft neighbours."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgs_plugin.models.tokenizers.inference import patch_max
from clipgs_plugin.models.tokenizers.patch_encoder import Layer, PatchEncoder, norm_relu
from clipgs_plugin.registry import MODELS


class SoftNeighbors(nn.Module):
    r"""Weighted means of the features of a patch, each with its own temperature.

    .. math:: z_i = \sum_j \mathrm{softmax}_j(-\|x_j - q\|^2 / t_i) \, x_j, \quad t_i = e^{a_i} + b_i

    A low temperature gives the feature nearest to the query, a high one the mean of all features. These are the
    "neural nearest neighbors" of Plötz and Roth (NeurIPS 2018) in the variant of Gaussian-MAE: computed in parallel
    instead of drawn one after another. As published, nothing keeps a temperature from becoming negative.

    Args:
        count: k, number of means.

    Shapes:
        - features: (P, K, C)
        - query: (P, 1, C)
        - output: (P, k, C)
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.learnable_temp = nn.Parameter(torch.zeros(count))  # a
        self.log_temp_bias = nn.Parameter(torch.zeros(count))   # b, added after the exponential despite its name

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        distances = (features - query).to(torch.promote_types(features.dtype, torch.float32)).square().sum(-1)
        temperature = self.learnable_temp.exp() + self.log_temp_bias
        weights = (-distances[:, None] / temperature[:, None]).softmax(-1)  # (P, k, K)
        return weights.to(features.dtype) @ features


@MODELS.register_module()
class SoftPatchEncoder(PatchEncoder):
    """Patch encoder of Gaussian-MAE (Ma et al., 3DV 2025), with the parameter names of its checkpoints.

    It differs from :class:`PatchEncoder` in the second stage, which sees ``num_neighbors`` soft neighbours instead of
    the K Gaussians of the patch: means of their features from :class:`SoftNeighbors`, with the maximum over the patch
    as the query. Its pooled feature is the maximum over the soft neighbours.

    Gaussian-MAE computes 32 soft neighbours from patches of 40 Gaussians with the attributes ``('xyz', 'opacity',
    'linear_scale', 'quat', 'sh_dc')``. In an object with fewer Gaussians than ``group_size``, repeated Gaussians
    count repeatedly in the means. All temperatures are equal at the start, so without a checkpoint all soft
    neighbours of a patch are equal at first.

    Args:
        in_channels: Number of channels of a Gaussian.
        out_channels: Width of a token.
        widths: Hidden width of the first stage, its output, hidden width of the second stage.
        num_neighbors: k, number of soft neighbours of a patch.
        init_cfg: Initialisation config of mmengine.

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

    # max, not amax, throughout: amax shares the gradient among ties, so equal soft neighbours would stay equal.

    def reference(self, patches: Tensor) -> Tensor:
        """Compute the published formula."""
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
