"""Transforms of a data pipeline, applied to ``results['gaussians']``."""
from clipgs_plugin.datasets.transforms.attribute_dropout import DropAttributes
from clipgs_plugin.datasets.transforms.base import BaseTransform, build_pipeline
from clipgs_plugin.datasets.transforms.color import DropColor
from clipgs_plugin.datasets.transforms.floaters import DropFloaters
from clipgs_plugin.datasets.transforms.geometry import (
    ChangeUp,
    JitterGaussians,
    NormaliseGaussians,
    RotateGaussians,
    ScaleGaussians,
    up_matrix,
)
from clipgs_plugin.datasets.transforms.loading import LoadGaussians, PackGaussians
from clipgs_plugin.datasets.transforms.other_fits import DrawFit
from clipgs_plugin.datasets.transforms.partial import CutGaussians, OccludeGaussians
from clipgs_plugin.datasets.transforms.points import SplatsToPoints
from clipgs_plugin.datasets.transforms.selection import FilterOpacity, SampleGaussians
from clipgs_plugin.datasets.transforms.shading import ShadeGaussians
from clipgs_plugin.datasets.transforms.surroundings import CropGaussians, LargestCluster, RemovePlane
from clipgs_plugin.datasets.transforms.taming import TameGaussians
from clipgs_plugin.datasets.transforms.variation import VaryFitter

__all__ = ['BaseTransform', 'ChangeUp', 'CropGaussians', 'CutGaussians', 'DrawFit', 'DropAttributes', 'DropColor',
           'DropFloaters', 'FilterOpacity', 'JitterGaussians', 'LargestCluster', 'LoadGaussians', 'NormaliseGaussians',
           'OccludeGaussians', 'PackGaussians', 'RemovePlane', 'RotateGaussians', 'SampleGaussians', 'ScaleGaussians',
           'ShadeGaussians', 'SplatsToPoints', 'TameGaussians', 'VaryFitter', 'build_pipeline', 'up_matrix']
