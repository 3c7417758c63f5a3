from torch_geometric.data.datapipes import functional_transform

from clipgs_plugin.datasets.transforms import SampleGaussians as _Sample
from clipgs_plugin.geometric.transforms.base import GaussianTransform


@functional_transform('sample_gaussians')
class SampleGaussians(GaussianTransform):
    """Samples Gaussians without replacement; smaller objects are unchanged (functional name:
    :obj:`sample_gaussians`).

    All attributes of the nodes are sampled alike.

    Args:
        num: Number of Gaussians to sample.
        method: ``'random'``, ``'importance'`` (opacity times cross-section) or ``'fps'``, which is deterministic; see
            :class:`clipgs_plugin.datasets.transforms.SampleGaussians`.
    """

    def __init__(self, num: int, method: str = 'random') -> None:
        self.step = _Sample(num, method)
