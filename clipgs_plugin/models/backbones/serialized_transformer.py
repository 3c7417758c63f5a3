"""Transformer over the Gaussians themselves, serialised along space-filling curves."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from clipgs_plugin.models.backbones.base import CloudBackbone
from clipgs_plugin.models.backbones.blocks import Block, drop_path_rates, masked_max, masked_mean
from clipgs_plugin.models.backbones.serialisation import (
    BITS,
    ORDERS,
    Groups,
    Layout,
    lay_out,
    merge_cells,
    serialise,
)
from clipgs_plugin.models.tokenizers.patches import XYZ
from clipgs_plugin.ops.sampling import check_count
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch


@MODELS.register_module()
class SerializedTransformer(CloudBackbone):
    """Encoder in the manner of "Point Transformer V3: Simpler, Faster, Stronger" (Wu et al., CVPR 2024).

    Each order visits the Gaussians of an object along a space-filling curve, and the blocks take the orders in turn. A
    block adds a conditional positional encoding and attends within windows of the sequence. Between stages, the
    Gaussians of each occupied cell of a grid become one row: its feature is the maximum of a linear layer, its
    position their mean. The grids are those of the curves, so a code without its last bits is the code of the cell.
    The feature of the object is the mean and the maximum over the last rows.

    It departs from PTv3, and loads none of its weights:

    - PTv3's positional encoding is a submanifold convolution over 3x3x3 cells, which needs spconv. Here it is a
      depthwise convolution along the sequence, plus a linear layer of the offsets to the same neighbours. Neighbours
      in space that are far along one curve meet in the blocks of another one.
    - PTv3's embedding is such a convolution too. Here it is a linear layer.
    - PTv3's cells have an edge in metres, here a share of the longest side of the object.
    - PTv3 fills the last window of a sequence with rows of the previous one. Here all windows have equal sizes up to
      one row, and those of an object never contain rows of another one.

    Args:
        widths: Width of each stage.
        depths: Number of blocks of each stage.
        num_heads: Number of attention heads of each stage.
        window: Largest number of rows of a window.
        cells: Number of cells along the longest side of the object, for each stage after the first; powers of two,
            decreasing.
        orders: Orders of the blocks: ``'z'``, ``'hilbert'``, and both with x and y exchanged, ``'z-trans'`` and
            ``'hilbert-trans'``.
        shuffle: Shuffle the orders of each stage at random in training. Evaluation takes them as given.
        kernel: Number of rows of the positional encoding's convolution, odd.
        mlp_ratio: Width of the MLPs relative to the stage.
        drop_path_rate: Share of windows that skip the last block's branches in training; it grows linearly from 0.
        attributes, scale, init_cfg: Arguments of :class:`CloudBackbone`. The attribute ``'xyz'`` is the position in
            the object.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, 2 widths[-1])
    """

    parts: ClassVar[dict[str, tuple[str, ...]]] = {'patch_encoder': ('embed.',), 'blocks': ('blocks.',),
                                                   'norm': ('norm.',)}

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256, 512), depths: Sequence[int] = (2, 2, 2, 6, 2),
                 num_heads: Sequence[int] = (2, 4, 8, 16, 32), window: int = 1024,
                 cells: Sequence[int] = (64, 32, 16, 8), orders: Sequence[str] = ORDERS, shuffle: bool = True,
                 kernel: int = 5, mlp_ratio: float = 4.0, drop_path_rate: float = 0.0,
                 attributes: str | Sequence[str] = 'gauge_free', scale: str = 'sigmoid',
                 init_cfg: dict | list[dict] | None = None) -> None:
        _check_stages(widths, depths, num_heads, cells)
        if not orders or set(orders) - set(ORDERS):
            raise ValueError(f'orders={orders}: expected some of {ORDERS}')
        check_count('window', window)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f'kernel={kernel}: expected an odd number, with as many rows on both sides')
        super().__init__(2 * widths[-1], attributes, scale, init_cfg)
        self.depths = tuple(depths)
        self.window = window
        self.cells = tuple(cells)
        self.orders = tuple(orders)
        self.shuffle = shuffle
        self.kernel = kernel
        self.embed = nn.Sequential(nn.Linear(self.in_channels, widths[0]), nn.BatchNorm1d(widths[0]), nn.GELU())
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.blocks = nn.ModuleList()
        for stage, (width, depth, heads) in enumerate(zip(widths, depths, num_heads)):
            grid = cells[max(stage - 1, 0)]
            for i in range(depth):
                before = widths[stage - 1] if stage and i == 0 else None
                self.blocks.append(SerializedBlock(width, heads, grid, kernel, mlp_ratio, next(rates), before))
        self.norm = nn.LayerNorm(widths[-1])

    def extra_repr(self) -> str:
        return (f'depths={self.depths}, window={self.window}, cells={self.cells}, orders={self.orders}, '
                f'shuffle={self.shuffle}, attributes={self.attributes}, scale={self.scale!r}')

    def forward(self, batch: GaussianBatch) -> Tensor:
        x, lengths = self._encode(batch)
        return self.pool(_pad(x, lengths), _mask(lengths))

    def forward_features(self, batch: GaussianBatch) -> Tensor:
        """Return the features of the occupied cells of the last stage, (B, M, D), zero at padding."""
        return _pad(*self._encode(batch))

    def feature_mask(self, batch: GaussianBatch) -> Tensor:
        """Return the mask of cells in the result of :meth:`forward_features`, (B, M) bool."""
        return _mask(self._layouts(self._rows(batch)[:, XYZ], batch.lengths)[-1].lengths)

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Concatenate the mean and the maximum over the cells, (B, 2 D)."""
        return torch.cat([masked_mean(features, mask), masked_max(features, mask)], dim=-1)

    def _rows(self, batch: GaussianBatch) -> Tensor:
        """Return the raw channels of all Gaussians, sorted by content, object after object, (P, 14)."""
        return self.canonical(batch)[batch.mask]

    def _encode(self, batch: GaussianBatch) -> tuple[Tensor, Tensor]:
        """Return the features of the last rows, (P, D), and their number in each object, (B,)."""
        raw = self._rows(batch)
        layouts = self._layouts(raw[:, XYZ], batch.lengths)
        x = self.embed(self.linearise(raw).to(self.dtype))
        for block, layout in zip(self.blocks, layouts):
            x = block(x, layout)
        return self.norm(x), layouts[-1].lengths

    @torch.compiler.disable  # shapes depend on the positions; the layers between are one graph
    def _layouts(
        self,
        positions: Tensor,      # (P, 3)
        lengths: Tensor,        # (B,)
    ) -> list[Layout]:
        """Serialise the Gaussians and merge them, and lay out the rows of every block."""
        cells, layouts = serialise(positions, lengths, self.orders), []
        for stage, depth in enumerate(self.depths):
            pooled, orders = None, self._stage_orders()
            if stage:
                cells, pooled = merge_cells(cells, self.cells[stage - 1].bit_length() - 1)
            for i in range(depth):
                layouts.append(lay_out(cells, orders[i % len(orders)], self.window, self.kernel // 2,
                                       None if i else pooled))
        return layouts

    def _stage_orders(self) -> list[str]:
        """Return the orders for the blocks of a stage, in training with ``shuffle`` at random."""
        if self.training and self.shuffle:
            return [self.orders[i] for i in torch.randperm(len(self.orders)).tolist()]
        return list(self.orders)


class SerializedBlock(nn.Module):
    """Positional encoding along a curve and a transformer block within windows, after a pooling for a stage's first.

    Args:
        dim: D, width.
        num_heads: Number of attention heads.
        grid: Number of cells along the longest side of the object, the unit of the offsets.
        kernel: Number of rows of the positional encoding.
        mlp_ratio: Width of the MLP relative to D.
        drop_path: Share of windows that skip a branch in training.
        in_channels: Width of the rows before a pooling; None has no pooling.
    """

    def __init__(self, dim: int, num_heads: int, grid: int, kernel: int, mlp_ratio: float, drop_path: float,
                 in_channels: int | None = None) -> None:
        super().__init__()
        self.pool = None if in_channels is None else GridPool(in_channels, dim)
        self.position = CurvePosition(dim, grid, kernel)
        self.block = Block(dim, num_heads, mlp_ratio, drop_path)

    def forward(
        self,
        x: Tensor,          # rows before a pooling, else (P, D)
        layout: Layout,     # of P rows
    ) -> Tensor:            # (P, D)
        if self.pool is not None:
            x = self.pool(x, layout.pooled)
        x = x + self.position(x, layout)
        mask = layout.windows.mask
        mask = None if mask is None else mask[:, None, None]
        return layout.windows.merge(self.block(layout.windows.split(x), mask))


class CurvePosition(nn.Module):
    """Conditional positional encoding along a curve: the features and offsets of the next rows on both sides.

    ``norm(linear(sum_k w_k x_(i+k)) + offsets([p_(i+k) - p_i]_k))``, where each end of a sequence is repeated.
    """

    def __init__(self, dim: int, grid: int, kernel: int) -> None:
        super().__init__()
        self.grid = grid
        self.weight = nn.Parameter(torch.empty(kernel, dim))
        nn.init.uniform_(self.weight, -kernel ** -0.5, kernel ** -0.5)  # as Conv1d with one input channel
        self.linear = nn.Linear(dim, dim)
        self.offsets = nn.Linear(3 * kernel, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,          # (P, D)
        layout: Layout,     # of P rows
    ) -> Tensor:            # (P, D)
        kernel = len(self.weight)
        features, count = x[layout.wide], len(layout.wide) - kernel + 1
        mixed = sum(features[k:k + count] * weight for k, weight in enumerate(self.weight))[layout.slots]
        neighbors = layout.positions[layout.wide].unfold(0, kernel, 1).transpose(1, 2)[layout.slots]  # (P, kernel, 3)
        offsets = ((neighbors - layout.positions[:, None]) * self.grid).flatten(1)
        return self.norm(self.linear(mixed) + self.offsets(offsets.to(x.dtype)))


class GridPool(nn.Module):
    """Maximum over the rows of each cell, after a linear layer; the grid pooling of PTv3."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.norm = nn.BatchNorm1d(out_channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        return self.act(self.norm(groups.reduce(self.linear(x), 'max')))


def _pad(x: Tensor, lengths: Tensor) -> Tensor:
    """Put rows (P, D), object after object, into a batch (B, M, D), zero at padding."""
    return pad_sequence(x.split(lengths.tolist()), batch_first=True)


def _mask(lengths: Tensor) -> Tensor:
    """Return the mask of rows in the result of :func:`_pad`, (B, M) bool."""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]


def _check_stages(widths: Sequence[int], depths: Sequence[int], num_heads: Sequence[int],
                  cells: Sequence[int]) -> None:
    count = len(widths)
    if count < 2 or len(depths) != count or len(num_heads) != count or len(cells) != count - 1:
        raise ValueError(f'widths={widths}, depths={depths}, num_heads={num_heads}, cells={cells}: expected widths, '
                         'depths and num_heads of equal length, at least 2, and one entry of cells less')
    for depth in depths:
        check_count('depths', depth)
    if any(grid.bit_count() != 1 or not 1 <= grid <= 2 ** BITS for grid in cells):
        raise ValueError(f'cells={cells}: expected powers of two from 1 to {2 ** BITS}')
    if any(later >= earlier for earlier, later in pairwise(cells)):
        raise ValueError(f'cells={cells}: expected fewer cells at each stage')
