"""Mini-PointNet that encodes the patches in all models of the Point-BERT family."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.models.tokenizers.inference import fold_batch_norm, in_chunks, is_inference, patch_max, relu_
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures.attributes import num_channels


class Layer(NamedTuple):
    """Convolution with kernel 1 as a matrix, and the batch norm after it."""

    weight: Tensor            # (out, in)
    bias: Tensor              # (out,)
    norm: nn.Module | None


def build_patch_encoder(options: dict | None, attributes: Sequence[str], channels: int) -> nn.Module:
    """Build the patch encoder of a config for the given point attributes and token width."""
    return MODELS.build({'type': 'clipgs_plugin.PatchEncoder', **(options or {}),
                         'in_channels': num_channels(attributes), 'out_channels': channels})


@MODELS.register_module()
class PatchEncoder(BaseModule):
    """PointNet over the points of a patch (Point-BERT, Yu et al., CVPR 2022), with its checkpoints' parameter names.

    :meth:`reference` is the formula. :meth:`forward` computes the same, faster: it uses matrix products over
    contiguous channels, and computes the half of the second stage that sees the pooled feature once per patch instead
    of once per point. At inference it also folds the batch norms into the products and processes the patches in
    chunks.

    Args:
        in_channels: Number of channels of a point: 3 for xyz, 6 with rgb.
        out_channels: Width of a token.
        widths: Hidden width of the first stage, its output, hidden width of the second stage.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - input: (P, K, in_channels)
        - output: (P, out_channels)
    """

    first_layer = 'first_conv.0'  # its input channels are the attributes of a point

    def __init__(self, in_channels: int = 6, out_channels: int = 512, widths: Sequence[int] = (128, 256, 512),
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        first, middle, second = widths
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.first_conv = nn.Sequential(
            nn.Conv1d(in_channels, first, 1), nn.BatchNorm1d(first), nn.ReLU(), nn.Conv1d(first, middle, 1))
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * middle, second, 1), nn.BatchNorm1d(second), nn.ReLU(), nn.Conv1d(second, out_channels, 1))

    def reference(self, patches: Tensor) -> Tensor:
        """Compute the published formula."""
        local = self.first_conv(patches.transpose(1, 2))
        pooled = local.amax(2, keepdim=True)
        return self.second_conv(torch.cat([pooled.expand_as(local), local], dim=1)).amax(2)

    def forward(self, patches: Tensor) -> Tensor:
        if is_inference(self):
            layers = self._layers(fold=True)
            return in_chunks(lambda chunk: self._encode(chunk, layers), patches)
        return self._encode(patches, self._layers(fold=False))

    def _layers(self, fold: bool) -> list[Layer]:
        layers = []
        for stage in (self.first_conv, self.second_conv):
            hidden, norm, _, output = stage
            if fold:
                weight, bias = fold_batch_norm(hidden, norm)
                layers.append(Layer(weight[..., 0], bias, None))
            else:
                layers.append(Layer(hidden.weight[..., 0], hidden.bias, norm))
            layers.append(Layer(output.weight[..., 0], output.bias, None))
        return layers

    @staticmethod
    def _encode(patches: Tensor, layers: list[Layer]) -> Tensor:
        hidden_1, output_1, hidden_2, output_2 = layers
        p, k = patches.shape[:2]
        x = F.linear(patches.flatten(0, 1), hidden_1.weight, hidden_1.bias)
        x = F.linear(norm_relu(x, hidden_1.norm), output_1.weight, output_1.bias)
        pooled = patch_max(x.view(p, k, -1))
        # W [pooled; local] + b = (W_g pooled + b) + W_l local
        weight_global, weight_local = hidden_2.weight.split(pooled.shape[1], dim=1)
        per_patch = F.linear(pooled, weight_global, hidden_2.bias)
        x = (F.linear(x, weight_local).view(p, k, -1) + per_patch[:, None]).flatten(0, 1)
        x = F.linear(norm_relu(x, hidden_2.norm), output_2.weight)
        return patch_max(x.view(p, k, -1)) + output_2.bias


def norm_relu(x: Tensor, norm: nn.Module | None) -> Tensor:
    """Apply a batch norm and a ReLU; None stands for a norm that is already folded in, at inference."""
    return relu_(x) if norm is None else norm(x).relu_()
