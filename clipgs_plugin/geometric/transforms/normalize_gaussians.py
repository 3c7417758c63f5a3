from torch_geometric.data.datapipes import functional_transform

from clipgs_plugin.datasets.transforms import NormaliseGaussians
from clipgs_plugin.geometric.transforms.base import GaussianTransform


@functional_transform('normalize_gaussians')
class NormalizeGaussians(GaussianTransform):
    r"""Centres the Gaussians on their mean and scales them into the unit sphere (functional name:
    :obj:`normalize_gaussians`).

    Extents scale with positions, which :class:`torch_geometric.transforms.NormalizeScale` leaves as they are:

    .. math:: \mathbf{p}_i \leftarrow (\mathbf{p}_i - \bar{\mathbf{p}}) / r, \quad
        \mathbf{s}_i \leftarrow \mathbf{s}_i / r, \quad r = \max_j \|\mathbf{p}_j - \bar{\mathbf{p}}\|
    """

    def __init__(self) -> None:
        self.step = NormaliseGaussians()
