"""The GS refinement block: convolutions along the ordered Gaussians of a patch."""
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

    A 1x3 kernel is 1 over patches and 3 along the Gaussians of a patch, zero-padded at its ends. The paper gives the
    strides (1, 1, 2), one account of its figure (1, 1, 2, 2); widths and the kind of pooling are not known.

    Args:
        in_channels: Channels of a Gaussian.
        widths: Output width of each row.
        strides: Stride of each row.
        pooling: ``'max'`` or ``'mean'`` over the sequence.
        init_cfg: Initialisation, as mmengine reads it.

    Shapes:
        - input: (P, K, in_channels)
        - output: (P, widths[-1])
    """

    def __init__(self, in_channels: int, widths: Sequence[int] = (64, 128, 256), strides: Sequence[int] = (1, 1, 2),
                 pooling: str = 'max', init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if len(widths) != len(strides) or not widths:
            raise ValueError(f'widths={tuple(widths)} and strides={tuple(strides)}: expected as many of one as of the '
                             'other, and at least one row')
        if pooling not in POOLINGS:
            raise ValueError(f'pooling={pooling!r}: expected one of {sorted(POOLINGS)}')
        self.pooling = pooling
        self.out_channels = widths[-1]
        # No bias: the batch norm after it has one.
        self.rows = nn.Sequential(*[
            nn.Sequential(nn.Conv2d(c_in, c_out, (1, 3), stride=(1, stride), padding=(0, 1), bias=False),
                          nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))
            for c_in, c_out, stride in zip([in_channels, *widths[:-1]], widths, strides)])

    def plain(self, sequences: Tensor) -> Tensor:
        """Row after row, all patches at once."""
        return POOLINGS[self.pooling](_as_sequences(self.rows(_as_image(sequences))))

    def forward(self, sequences: Tensor) -> Tensor:
        if not is_inference(self):
            return self.plain(sequences)
        *rows, last = [_folded(conv, norm) for conv, norm, _ in self.rows]

        def encode(chunk: Tensor) -> Tensor:
            x = _as_image(chunk)
            for row in rows:
                x = relu_(row(x))
            x = _as_sequences(last(x))
            # The maximum first, so that ReLU sees one number a patch.
            return relu_max(x) if self.pooling == 'max' else POOLINGS[self.pooling](relu_(x))

        return in_chunks(encode, sequences)


def _folded(conv: nn.Conv2d, norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """A convolution with the batch norm after it inside, its weight in the memory format of what it sees."""
    weight, bias = fold_batch_norm(conv, norm)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return lambda x: F.conv2d(x, weight, bias, conv.stride, conv.padding)


def _as_image(sequences: Tensor) -> Tensor:
    """(P, K, C) as pictures (P, C, 1, K) in channels-last memory, which is how it lies."""
    return sequences.transpose(1, 2).unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _as_sequences(images: Tensor) -> Tensor:
    """Pictures (P, C, 1, K) as (P, K, C)."""
    return images.squeeze(2).transpose(1, 2)


class Refinement(BaseModule):
    """What the orders of a patch say about it, through a gate that is closed at the start (CLIP-GS, Fig. 4, top).

    The rows of convolutions are shared by the orders. The gate is a Linear of zeros: at the start the block adds
    nothing, and the gate has a gradient at once, the convolutions from the second step on.

    Args:
        in_channels: Channels of a Gaussian.
        out_channels: Width of a token.
        num_orders: Orders of each patch.
        concat: Pooled features of the orders side by side, rather than averaged.
        widths, strides, pooling: As :class:`OrderedConvs` takes them.
        init_cfg: Initialisation, as mmengine reads it.
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
        orders: Tensor,      # (O, P, K) index that puts them in each of O orders
    ) -> Tensor:             # (P, out_channels)
        num_orders, p, k = orders.shape
        rows = orders + k * torch.arange(p, device=orders.device)[:, None]
        # Not attributes[rows], which costs three times as much.
        sequences = attributes.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (num_orders * p, k))
        pooled = self.convs(sequences).unflatten(0, (num_orders, p))
        return self.gate(pooled.transpose(0, 1).flatten(1) if self.concat else pooled.mean(0))
