from torch_geometric.data.datapipes import functional_transform

from clipgs_plugin.datasets.transforms import RotateGaussians
from clipgs_plugin.geometric.transforms.base import GaussianTransform


@functional_transform('random_rotate_gaussians')
class RandomRotateGaussians(GaussianTransform):
    r"""Rotates the Gaussians about an axis by a random angle (functional name: :obj:`random_rotate_gaussians`).

    Quaternions and all SH bands rotate along with the positions, the only attribute that
    :class:`torch_geometric.transforms.RandomRotate` turns:

    .. math:: \mathbf{p}_i \leftarrow \mathbf{R} \mathbf{p}_i, \quad q_i \leftarrow q_{\mathbf{R}} \, q_i, \quad
        \mathbf{c}_i^{(l)} \leftarrow \mathbf{D}^{(l)}(\mathbf{R}) \, \mathbf{c}_i^{(l)}

    Args:
        axis: Axis ``'x'``, ``'y'`` or ``'z'``, or ``'any'`` for an axis uniform on the sphere.
        max_angle: Maximum angle in degrees. ``axis='any'`` with 180 samples all rotations uniformly.
    """

    def __init__(self, axis: str = 'y', max_angle: float = 180.0) -> None:
        self.step = RotateGaussians(axis, max_angle)
