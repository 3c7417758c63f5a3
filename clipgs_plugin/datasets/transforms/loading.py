"""Into the pipeline and out of it."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.io import read_gaussians
from clipgs_plugin.registry import TRANSFORMS

SAMPLE_KEYS = ('uid', 'category', 'label', 'caption', 'caption_id', 'text', 'views', 'view_pixels')


@TRANSFORMS.register_module()
class LoadGaussians(BaseTransform):
    """Reads ``results['path']``, unless the dataset has put the object in ``results['gaussians']`` already.

    Args:
        sh_degree: Cut or fill spherical harmonics to this degree; None keeps the file's. Models that look at
            view-independent colour need degree 0 only.
    """

    def __init__(self, sh_degree: int | None = None) -> None:
        self.sh_degree = sh_degree

    def transform(self, results: dict) -> dict:
        cloud = results.get('gaussians')
        if cloud is None:
            cloud = read_gaussians(results['path'])
        results['gaussians'] = cloud if self.sh_degree is None else cloud.with_sh_degree(self.sh_degree)
        return results


@TRANSFORMS.register_module()
class PackGaussians(BaseTransform):
    """Ends a pipeline: ``dict(inputs=GaussianCloud, data_samples=dict)``.

    Args:
        keys: What ``data_samples`` takes from the results; keys that the dataset has not are left out.
    """

    def __init__(self, keys: Sequence[str] = SAMPLE_KEYS) -> None:
        self.keys = tuple(keys)

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians'].to(torch.float32)
        return dict(inputs=cloud, data_samples={key: results[key] for key in self.keys if key in results})
