from torch_geometric.data.datapipes import functional_transform

from clipgs_plugin.datasets.transforms import FilterOpacity
from clipgs_plugin.geometric.transforms.base import GaussianTransform


@functional_transform('drop_opacity')
class DropOpacity(GaussianTransform):
    """Drops nearly transparent Gaussians, which are invisible but attract farthest point sampling (functional name:
    :obj:`drop_opacity`).

    Args:
        threshold: Minimum opacity to keep, in [0, 1].
        minimum: Minimum number of Gaussians to keep, the most opaque ones.
    """

    def __init__(self, threshold: float = 0.05, minimum: int = 1) -> None:
        self.step = FilterOpacity(threshold, minimum)
