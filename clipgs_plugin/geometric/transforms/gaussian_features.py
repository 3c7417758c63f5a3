from __future__ import annotations

from collections.abc import Sequence

from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from clipgs_plugin.geometric.data import GaussianData
from clipgs_plugin.structures.attributes import attribute_names, linearise, pack


@functional_transform('gaussian_features')
class GaussianFeatures(BaseTransform):
    """Sets ``data.x`` to linearised attributes of the Gaussians, for any network of torch-geometric (functional name:
    :obj:`gaussian_features`).

    Args:
        attributes: ``'paper'`` (CLIP-GS, 19 channels), ``'gauge_free'`` (13 channels that do not depend on the
            labelling of a Gaussian's axes), ``'shape'`` (the same without the size), or a tuple of names, see
            :mod:`clipgs_plugin.structures.attributes`.
        scale: Quantity of the scale: ``'sigmoid'`` of the logarithm (the paper's), ``'log'`` or ``'linear'``.
    """

    def __init__(self, attributes: str | Sequence[str] = 'paper', scale: str = 'sigmoid') -> None:
        self.attributes = attribute_names(attributes)
        self.scale = scale

    def forward(self, data: GaussianData) -> GaussianData:
        data.x = linearise(pack(data.to_cloud()), self.attributes, self.scale)
        return data

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.attributes}, scale={self.scale!r})'
