"""Transforms of the data pipeline as transforms of torch-geometric."""
from __future__ import annotations

import numpy as np
import torch
from torch_geometric.transforms import BaseTransform

from clipgs_plugin.datasets.transforms.selection import SelectGaussians
from clipgs_plugin.geometric.data import NODE_FIELDS, GaussianData


class GaussianTransform(BaseTransform):
    """Base class of the transforms of :class:`GaussianData`, which run a transform of the mmengine pipeline.

    A subclass sets ``step``. Randomness comes from torch's default generator, which ``torch.manual_seed`` and the
    workers of a data loader seed. Other attributes of the nodes and of the graph stay.
    """

    def forward(self, data: GaussianData) -> GaussianData:
        if not isinstance(data, GaussianData):
            raise TypeError(f'{type(self).__name__} takes a GaussianData, got {type(data).__name__}; make one with '
                            'GaussianData.from_cloud(cloud)')
        rng = np.random.default_rng(torch.randint(2 ** 63 - 1, ()).item())
        cloud = data.to_cloud()
        if isinstance(self.step, SelectGaussians):
            # By index, so that every attribute of the nodes follows.
            index = self.step.select(cloud, rng)
            return data if index is None else data.subgraph(index)
        cloud = self.step.transform(dict(gaussians=cloud, rng=rng))['gaussians']
        for name, field in NODE_FIELDS.items():
            data[name] = getattr(cloud, field)
        return data

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={value!r}' for name, value in vars(self.step).items() if name[0] != '_')
        return f'{type(self).__name__}({settings})'
