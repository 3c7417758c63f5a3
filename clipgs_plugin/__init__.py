"""CLIP-GS (arXiv 2412.19142): 3D Gaussian Splatting objects in the embedding space of CLIP.

The import loads structures, operations and file formats. Models, datasets and interfaces load at first use.
"""
import importlib
from os.path import abspath, dirname, isdir, isfile, join

_here = dirname(abspath(__file__))
_root = dirname(_here)
if not isdir(join(_here, 'registry')) and isfile(join(_root, 'registry', '__init__.py')):
    __path__.append(_root)  # a source checkout: registry, configs and tools lie beside the package

from clipgs_plugin import io, ops, structures  # noqa: E402
from clipgs_plugin.io import read_gaussians, write_gaussians  # noqa: E402
from clipgs_plugin.structures import GaussianBatch, GaussianCloud  # noqa: E402
from clipgs_plugin.version import __version__  # noqa: E402

# Public names of heavier modules, loaded at first use (PEP 562).
_LAZY = {
    'CLIPGSInferencer': 'clipgs_plugin.apis',
    'get_config': 'clipgs_plugin.apis',
    'get_model': 'clipgs_plugin.apis',
    'list_models': 'clipgs_plugin.apis',
    'load_point_cloud_checkpoint': 'clipgs_plugin.models.checkpoints',
}
_SUBPACKAGES = ('apis', 'datasets', 'engine', 'evaluation', 'generation', 'models', 'registry', 'scenes', 'toy_world',
                'triplets', 'visualization')

__all__ = [
    'GaussianBatch', 'GaussianCloud', '__version__', 'io', 'ops', 'read_gaussians', 'structures', 'write_gaussians',
    *_LAZY, *_SUBPACKAGES,
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f'clipgs_plugin.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted(__all__)
