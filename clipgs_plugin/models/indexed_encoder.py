"""Encoder whose patches are given as indices, for graphs of torch.compile, torch.export and ONNX."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from clipgs_plugin.models.gs_encoder import GSEncoder
from clipgs_plugin.models.tokenizers.gs_tokenizer import GSTokenizer
from clipgs_plugin.models.tokenizers.patches import XYZ, canonicalise, extract, group_points, start_in_use
from clipgs_plugin.structures import GaussianBatch
from clipgs_plugin.structures.attributes import pack


class IndexedEncoder(nn.Module):
    """The layers of a :class:`GSEncoder` on patches whose Gaussians are given as indices.

    Sampling, neighbours and curve orders choose indices. They have no gradients, run in numba, and end a graph, so
    they are inputs here, made by :func:`encoder_inputs`. What is left is one graph of tensor operations in the dtype
    of the weights, differentiable in ``gaussians``. It shares its weights with the encoder.

    B, N and G are free in every call. An object with n < ``num_groups`` Gaussians has n patches, so objects of one
    batch have the same number of patches.

    Args:
        encoder: Encoder with a :class:`GSTokenizer`.

    Raises:
        ValueError: The encoder has no GSTokenizer.
    """

    def __init__(self, encoder: GSEncoder) -> None:
        super().__init__()
        tokenizer = getattr(encoder, 'tokenizer', None)
        if not isinstance(tokenizer, GSTokenizer):
            raise ValueError(f'the {type(encoder).__name__} has a tokenizer of type {type(tokenizer).__name__}, '
                             'expected a GSTokenizer; a backbone that takes Gaussians finds neighbours between layers')
        self.encoder = encoder

    @property
    def num_orders(self) -> int:
        """Number O of orders of a patch: 0 without the refinement branch, 1 if the orders take turns."""
        tokenizer = self.encoder.tokenizer
        if tokenizer.refinement is None:
            return 0
        return 1 if tokenizer.combine == 'turn' else len(tokenizer.orders)

    def forward(
        self,
        gaussians: Tensor,               # (B, N, 14) raw channels, see clipgs_plugin.structures.attributes.pack
        center_idx: Tensor,              # (B, G) int64, centres of the patches
        neighbor_idx: Tensor,            # (B, G, K) int64, Gaussians of each patch, nearest first
        orders: Tensor | None = None,    # (B, G, O, K) int64, places in the patch along each curve; none for O = 0
    ) -> Tensor:                         # (B, E), not normalised
        patches = extract(gaussians, center_idx, neighbor_idx)
        if orders is not None:
            orders = orders.flatten(0, 1).transpose(0, 1)
        return self.encoder.embed_tokens(self.encoder.tokenizer.encode(patches, orders))


@torch.no_grad()
def encoder_inputs(encoder: GSEncoder, batch: GaussianBatch) -> dict[str, Tensor]:
    """Make the inputs of an :class:`IndexedEncoder` by their names.

    The embedding is that of ``encoder(batch)``.

    Args:
        encoder: Encoder in eval mode, or in training mode for random starts.
        batch: Prepared objects, of at least ``num_groups`` Gaussians each or of equal length.

    Raises:
        ValueError: The objects have different numbers of patches.
    """
    tokenizer = encoder.tokenizer
    counts = batch.lengths.clamp(max=tokenizer.num_groups).tolist()
    if len(set(counts)) > 1:
        raise ValueError(f'the objects have {", ".join(map(str, sorted(set(counts))))} patches, and a graph takes '
                         'equal numbers in a batch; embed objects of fewer Gaussians than num_groups='
                         f'{tokenizer.num_groups} one by one')
    gaussians = pack(batch).float()
    if isinstance(tokenizer.start, str):
        gaussians = canonicalise(gaussians, batch.lengths)
    start = start_in_use(tokenizer.start, tokenizer.training)
    center_idx, neighbor_idx = group_points(gaussians[..., XYZ], counts[0], tokenizer.group_size, batch.lengths, start,
                                            tokenizer.rule, tokenizer.radius)
    inputs = {'gaussians': gaussians, 'center_idx': center_idx, 'neighbor_idx': neighbor_idx}
    if tokenizer.refinement is not None:
        orders = tokenizer.order(extract(gaussians, center_idx, neighbor_idx))
        inputs['orders'] = orders.transpose(0, 1).unflatten(0, center_idx.shape)
    return inputs
