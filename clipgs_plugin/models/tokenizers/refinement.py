"""Refinement branch of the GS tokenizer: convolutions along the ordered Gaussians of a patch."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.models.tokenizers.inference import fold_batch_norm, in_chunks, is_inference, relu_, relu_max

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    'max': lambda x: x.max(1).values,
    'mean': lambda x: x.mean(1),
}


class OrderedConvs(BaseModule):
    """Rows of [1x3 conv, BN, ReLU] along a sequence of Gaussians, then global pooling (CLIP-GS, Fig. 4, top).

    A 1x3 kernel has size 1 over patches and 3 along the Gaussians of a patch, zero-padded at the ends. The paper
    states strides (1, 1, 2), one reading of its figure (1, 1, 2, 2). It does not state widths and pooling.

    Args:
        in_channels: Number of channels of a Gaussian.
        widths: Output width of each row.
        strides: Stride of each row.
        pooling: ``'max'`` or ``'mean'`` over the sequence.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - input: (P, K, in_channels)
        - output: (P, widths[-1])
    """

    def __init__(self, in_channels: int, widths: Sequence[int] = (64, 128, 256), strides: Sequence[int] = (1, 1, 2),
                 pooling: str = 'max', init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if len(widths) != len(strides) or not widths:
            raise ValueError(f'widths={tuple(widths)} and strides={tuple(strides)}: expected one or more of each, in '
                             'equal number')
        if pooling not in POOLINGS:
            raise ValueError(f'pooling={pooling!r}: expected one of {sorted(POOLINGS)}')
        self.pooling = pooling
        self.out_channels = widths[-1]
        # No bias: the batch norm has one.
        self.rows = nn.Sequential(*[
            nn.Sequential(nn.Conv2d(c_in, c_out, (1, 3), stride=(1, stride), padding=(0, 1), bias=False),
                          nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))
            for c_in, c_out, stride in zip([in_channels, *widths[:-1]], widths, strides)])

    def reference(self, sequences: Tensor) -> Tensor:
        """Compute row after row for all patches at once."""
        return POOLINGS[self.pooling](_as_sequences(self.rows(_as_image(sequences))))

    def forward(self, sequences: Tensor) -> Tensor:
        if not is_inference(self):
            return self.reference(sequences)
        *rows, last = [_folded(conv, norm) for conv, norm, _ in self.rows]

        def encode(chunk: Tensor) -> Tensor:
            x = _as_image(chunk)
            for row in rows:
                x = relu_(row(x))
            x = _as_sequences(last(x))
            # The maximum first, so that ReLU sees one number per patch.
            return relu_max(x) if self.pooling == 'max' else POOLINGS[self.pooling](relu_(x))

        return in_chunks(encode, sequences)


def _folded(conv: nn.Conv2d, norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a convolution with its batch norm folded in and its weight in channels-last memory."""
    weight, bias = fold_batch_norm(conv, norm)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return lambda x: F.conv2d(x, weight, bias, conv.stride, conv.padding)


def _as_image(sequences: Tensor) -> Tensor:
    """View (P, K, C) as images (P, C, 1, K) in channels-last memory, without a copy."""
    return sequences.transpose(1, 2).unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _as_sequences(images: Tensor) -> Tensor:
    """View images (P, C, 1, K) as (P, K, C)."""
    return images.squeeze(2).transpose(1, 2)


class Refinement(BaseModule):
    """Features of the ordered Gaussians of a patch, through a gate that is closed at the start (CLIP-GS, Fig. 4, top).

    All orders share the convolutions. The gate is a Linear initialised to zero, so the branch adds nothing at the
    start. The gate has a gradient in the first step, the convolutions from the second step on.

    Args:
        in_channels: Number of channels of a Gaussian.
        out_channels: Width of a token.
        num_orders: Number of orders of each patch.
        concat: Concatenate the pooled features of the orders instead of averaging them.
        widths, strides, pooling: See :class:`OrderedConvs`.
        init_cfg: Initialisation config of mmengine.
    """

    def __init__(self, in_channels: int, out_channels: int, num_orders: int, concat: bool = False,
                 widths: Sequence[int] = (64, 128, 256), strides: Sequence[int] = (1, 1, 2), pooling: str = 'max',
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.concat = concat
        self.convs = OrderedConvs(in_channels, widths, strides, pooling)
        self.gate = nn.Linear(self.convs.out_channels * (num_orders if concat else 1), out_channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(
        self,
        attributes: Tensor,  # (P, K, C) Gaussians of each patch
        orders: Tensor,      # (O, P, K) indices of each of O orders
    ) -> Tensor:             # (P, out_channels)
        num_orders, p, k = orders.shape
        rows = orders + k * torch.arange(p, device=orders.device)[:, None]
        # attributes[rows] costs three times as much.
        sequences = attributes.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (num_orders * p, k))
        pooled = self.convs(sequences).unflatten(0, (num_orders, p))
        return self.gate(pooled.transpose(0, 1).flatten(1) if self.concat else pooled.mean(0))
