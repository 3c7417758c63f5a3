"""Set abstraction, the patch encoder of OpenShape."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.models.tokenizers.inference import fold_batch_norm, in_chunks, is_inference
from clipgs_plugin.registry import MODELS


@MODELS.register_module()
class SetAbstraction(BaseModule):
    """MLP on every point of a patch and its maximum (PointNet++, Qi et al., 2017), in the form of OpenShape.

    The attributes of a point are ``('xyz', 'position', 'rgb')``: position relative to the centre, position in the
    object, colour. Parameter names are those of OpenShape's checkpoints (Liu et al., NeurIPS 2023).

    :meth:`reference` is the formula. :meth:`forward` computes the same, faster: it uses matrix products over
    contiguous channels. At inference it also folds the batch norms into the products, takes the maximum before the
    last bias and ReLU, which preserve the order of numbers, and processes the patches in chunks.

    Args:
        in_channels: Number of channels of a point.
        out_channels: Width of a token.
        widths: Hidden widths.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - input: (P, K, in_channels)
        - output: (P, out_channels)
    """

    first_layer = 'mlp_convs.0'  # its input channels are the attributes of a point

    def __init__(self, in_channels: int = 9, out_channels: int = 256, widths: Sequence[int] = (64, 64),
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.out_channels = out_channels
        sizes = list(pairwise([in_channels, *widths, out_channels]))
        self.mlp_convs = nn.ModuleList([nn.Conv2d(c_in, c_out, 1) for c_in, c_out in sizes])
        self.mlp_bns = nn.ModuleList([nn.BatchNorm2d(c_out) for _, c_out in sizes])

    def reference(self, patches: Tensor) -> Tensor:
        """Compute the published formula."""
        x = patches.transpose(1, 2).unsqueeze(-1)  # (P, C, K, 1)
        for conv, norm in zip(self.mlp_convs, self.mlp_bns):
            x = norm(conv(x)).relu()
        return x.amax((2, 3))

    def forward(self, patches: Tensor) -> Tensor:
        if is_inference(self):
            layers = [fold_batch_norm(conv, norm) for conv, norm in zip(self.mlp_convs, self.mlp_bns)]
            return in_chunks(lambda chunk: self._encode_folded(chunk, layers), patches)
        x = patches.flatten(0, 1)
        for conv, norm in zip(self.mlp_convs, self.mlp_bns):
            x = F.linear(x, conv.weight[..., 0, 0], conv.bias)
            x = norm(x[..., None, None]).relu_().flatten(1)  # rows as images of one pixel
        # max, not amax: amax shares the gradient among ties, which costs a pass over all of x.
        return x.unflatten(0, patches.shape[:2]).max(1).values

    @staticmethod
    def _encode_folded(patches: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        x = patches.flatten(0, 1)
        *hidden, (weight, bias) = layers
        for hidden_weight, hidden_bias in hidden:
            x = F.linear(x, hidden_weight[..., 0, 0], hidden_bias).relu_()
        x = F.linear(x, weight[..., 0, 0])
        return (x.unflatten(0, patches.shape[:2]).amax(1) + bias).relu_()
