"""Tokenizer and encoder of Gaussians with the interface of torch-geometric's modules."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from clipgs_plugin.apis import get_model
from clipgs_plugin.geometric.conversion import channels_to_batch, to_gaussian_batch
from clipgs_plugin.geometric.data import GaussianData
from clipgs_plugin.models import GSEncoder, GSTokenizer
from clipgs_plugin.structures import GaussianBatch


class GaussianTokenizer(nn.Module):
    r"""Serialised Gaussian tokens (CLIP-GS, arXiv 2412.19142, Sec. 4.1), from nodes to fewer nodes.

    .. math:: t_g = E_{pc}([P_g; C_g]) + W \, \mathrm{pool}(\mathrm{conv}_{1\times3}(\pi(A_g)))

    Args:
        tokenizer: :class:`~clipgs_plugin.models.GSTokenizer`, or the arguments of one.
        options: Arguments of a new GSTokenizer.

    Shapes:
        - **input:** :class:`GaussianData` or a batch of them; or node channels :math:`(N, 11)`, positions
          :math:`(N, 3)` and the batch vector :math:`(N)`
        - **output:** features of the patches :math:`(M, C)`, centres :math:`(M, 3)`, batch vector :math:`(M)`;
          an object has ``min(num_groups, its Gaussians)`` patches
    """

    def __init__(self, tokenizer: GSTokenizer | None = None, **options) -> None:
        super().__init__()
        self.tokenizer = GSTokenizer(**options) if tokenizer is None else tokenizer

    def forward(self, x: Tensor | GaussianData, pos: Tensor | None = None,
                batch: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.tokenizer(padded(x, pos, batch))
        mask = tokens.mask
        if mask is None:
            mask = tokens.features.new_ones(tokens.features.shape[:2], dtype=torch.bool)
        return tokens.features[mask], tokens.centers[mask], mask.nonzero()[:, 0]

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({self.tokenizer.channels}, num_groups={self.tokenizer.num_groups}, '
                f'group_size={self.tokenizer.group_size})')


class GaussianEncoder(nn.Module):
    """Encoder from Gaussians to CLIP's embedding space (CLIP-GS, arXiv 2412.19142).

    The result equals that of the encoder on a padded :class:`~clipgs_plugin.GaussianBatch`.

    Args:
        encoder: :class:`~clipgs_plugin.models.GSEncoder`, or the name of a model or config whose encoder is taken, see
            :func:`clipgs_plugin.get_model`. ``'clipgs_toy'`` comes with the package.

    Shapes:
        - **input:** :class:`GaussianData` or a batch of them; or node channels :math:`(N, 11)`, positions
          :math:`(N, 3)` and the batch vector :math:`(N)`
        - **output:** embeddings :math:`(B, E)`, not normalised
    """

    def __init__(self, encoder: GSEncoder | str) -> None:
        super().__init__()
        self.encoder = get_model(encoder).encoder if isinstance(encoder, str) else encoder

    def forward(self, x: Tensor | GaussianData, pos: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        return self.encoder(padded(x, pos, batch))

    def __repr__(self) -> str:
        return f'{type(self).__name__}({type(self.encoder.backbone).__name__}, {self.encoder.embed_dim})'


def padded(x: Tensor | GaussianData, pos: Tensor | None, batch: Tensor | None) -> GaussianBatch:
    """Return the padded form of a graph, or of channels, positions and a batch vector."""
    if isinstance(x, GaussianData):
        return to_gaussian_batch(x)
    if pos is None:
        raise TypeError(f'x is a {type(x).__name__} without pos; give a GaussianData, or node channels x (N, 11) with '
                        'their positions pos (N, 3)')
    return channels_to_batch(x, pos, batch)
