"""First and last step of a pipeline."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.io import read_gaussians
from clipgs_plugin.registry import TRANSFORMS

SAMPLE_KEYS = ('uid', 'split', 'category', 'label', 'caption', 'caption_id', 'text', 'views', 'view_pixels',
               'floaters')


@TRANSFORMS.register_module()
class LoadGaussians(BaseTransform):
    """Reader of ``results['path']``; keeps ``results['gaussians']`` if the dataset has loaded it.

    Args:
        sh_degree: Degree to which spherical harmonics are truncated or zero-padded; None keeps that of the file.
            Models that use view-independent colour need only degree 0.
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
    """Last step of a pipeline, which returns ``dict(inputs=GaussianCloud, data_samples=dict)``.

    Args:
        keys: Keys to copy from the results to ``data_samples``; missing ones are skipped.
    """

    def __init__(self, keys: Sequence[str] = SAMPLE_KEYS) -> None:
        self.keys = tuple(keys)

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians'].to(torch.float32)
        return dict(inputs=cloud, data_samples={key: results[key] for key in self.keys if key in results})
