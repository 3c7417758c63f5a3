"""One object of 3D Gaussians as a graph of torch-geometric."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from clipgs_plugin.structures import SH_C0, GaussianCloud

# Stored node attributes, and the fields of a GaussianCloud that they hold bit for bit.
NODE_FIELDS = {'pos': 'means', 'rotation': 'quats', 'log_scale': 'log_scales', 'opacity_logit': 'opacity_logits',
               'sh': 'sh'}
DERIVED = ('scale', 'opacity', 'rgb')


class GaussianData(Data):
    r"""Graph whose nodes are the 3D Gaussians of one object (Kerbl et al., "3D Gaussian Splatting", arXiv 2308.04079).

    The raw parameters are stored, so that :meth:`from_cloud` and :meth:`to_cloud` keep every bit. The activated values
    are computed from them at each access, and setting one sets the parameter behind it:

    .. math:: \mathrm{scale} = e^{\mathrm{log\_scale}}, \quad \mathrm{opacity} = \sigma(\mathrm{opacity\_logit}), \quad
        \mathrm{rgb} = 0.5 + C_0 \, \mathrm{sh}_0

    Graph-level tensors have a leading dimension of 1, which batching turns into B: ``text`` (1, E) and ``views``
    (1, K, E) are embeddings of a teacher, ``y`` (1,) is the class. Graph-level strings, such as ``caption``,
    ``category`` and ``uid``, become lists.

    Shapes:
        - **pos:** positions :math:`(N, 3)`
        - **rotation:** quaternions wxyz, not necessarily unit, :math:`(N, 4)`
        - **log_scale**, **scale:** standard deviations along the axes :math:`(N, 3)`
        - **opacity_logit**, **opacity:** :math:`(N)`
        - **sh:** spherical harmonics, DC first, :math:`(N, (\mathrm{degree} + 1)^2, 3)`
        - **rgb:** view-independent sRGB in :math:`[0, 1]`, :math:`(N, 3)`
    """

    @classmethod
    def from_cloud(cls, cloud: GaussianCloud, **graph: Tensor | str | list | float) -> GaussianData:
        """Wrap a cloud, whose tensors are shared.

        Args:
            cloud: The Gaussians of one object.
            graph: Graph-level attributes. A tensor or array gets a leading dimension of 1, a number becomes a tensor
                (1,), strings and lists stay.

        Raises:
            ValueError: The name of an attribute contains "index" or "batch", by which batching would shift its values.
        """
        data = cls(**{name: getattr(cloud, field) for name, field in NODE_FIELDS.items()})
        for name, value in graph.items():
            if 'index' in name or 'batch' in name:
                raise ValueError(f'graph attribute {name!r}: torch-geometric adds offsets to every attribute with '
                                 '"index" or "batch" in its name when it makes a batch; choose another name')
            data[name] = value if isinstance(value, str | list) else torch.as_tensor(value)[None]
        return data

    def to_cloud(self) -> GaussianCloud:
        """Return the Gaussians, sharing the tensors.

        Raises:
            ValueError: This is a batch of objects, or a node attribute is missing.
        """
        if 'ptr' in self:
            raise ValueError(f'a batch of {self.num_graphs} objects is not one GaussianCloud; convert each of '
                             'batch.to_data_list(), or all with to_gaussian_batch(batch)')
        missing = [name for name in NODE_FIELDS if name not in self]
        if missing:
            raise ValueError(f'{type(self).__name__} lacks {", ".join(missing)}, which a GaussianCloud needs; make it '
                             'with GaussianData.from_cloud(cloud)')
        return GaussianCloud(**{field: self[name] for name, field in NODE_FIELDS.items()})

    # Activated values

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    @scale.setter
    def scale(self, value: Tensor) -> None:
        self.log_scale = value.log()

    @property
    def opacity(self) -> Tensor:
        return self.opacity_logit.sigmoid()

    @opacity.setter
    def opacity(self, value: Tensor) -> None:
        self.opacity_logit = value.logit()

    @property
    def rgb(self) -> Tensor:
        return (0.5 + SH_C0 * self.sh[:, 0]).clamp(0, 1)

    @rgb.setter
    def rgb(self, value: Tensor) -> None:
        self.sh = torch.cat([((value - 0.5) / SH_C0)[:, None], self.sh[:, 1:]], dim=1)

    def __getitem__(self, key: str):
        return getattr(self, key) if key in DERIVED else super().__getitem__(key)

    def __setitem__(self, key: str, value) -> None:
        if key in DERIVED:
            setattr(self, key, value)
        else:
            super().__setitem__(key, value)

    # Batching

    def __cat_dim__(self, key: str, value, *args, **kwargs):
        return 0 if key in NODE_FIELDS else super().__cat_dim__(key, value, *args, **kwargs)

    def __inc__(self, key: str, value, *args, **kwargs):
        return 0 if key in NODE_FIELDS else super().__inc__(key, value, *args, **kwargs)
