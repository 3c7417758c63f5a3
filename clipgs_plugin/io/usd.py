"""OpenUSD scenes with ``ParticleField3DGaussianSplat`` prims (OpenUSD 26.03), read by Pixar's ``usd-core``.

Scales and opacities are activated, quaternions are wxyz, harmonics are grouped by Gaussian, band by band. The
transforms of the prims and the up axis of the stage apply: up becomes -y, as in an INRIA file.
"""
from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from clipgs_plugin.io import quantise
from clipgs_plugin.io.files import check_ratio, cloud_from_arrays
from clipgs_plugin.io.placement import join, place
from clipgs_plugin.ops.rotations import axis_change
from clipgs_plugin.structures import GaussianCloud

BINARY, TEXT = b'PXR-', b'#usd'
SUFFIXES = ('.usd', '.usda', '.usdc', '.usdz')
TYPE = 'ParticleField3DGaussianSplat'
# Attribute and numbers an element; a name ending in h holds half floats and counts if the other is absent.
_ATTRIBUTES = {'means': ('positions', 3), 'quats': ('orientations', 4), 'scales': ('scales', 3),
               'opacities': ('opacities', 1), 'sh': ('radiance:sphericalHarmonicsCoefficients', 3)}
_DEGREE = 'radiance:sphericalHarmonicsDegree'


def read(path: Path) -> GaussianCloud:
    """Read every splat prim of a stage into the INRIA frame; of an animation, the first frame.

    Raises:
        ImportError: usd-core is not installed.
        ValueError: The file is damaged, holds no Gaussians, refers to other files, or a prim is sheared or mirrored.
    """
    try:
        from pxr import Sdf, Tf, Usd, UsdGeom
    except ImportError as error:
        raise ImportError(f'{path}: reading OpenUSD needs usd-core; pip install "clipgs_plugin[usd]"') from error
    try:
        layer = Sdf.Layer.FindOrOpen(str(path))
        if layer is None:
            raise ValueError(f'{path}: damaged or not an OpenUSD file; download or export it again')
        if others := layer.GetCompositionAssetDependencies():
            raise ValueError(f'{path}: refers to {others[0][:100]!a}, which is not followed; flatten it into one file '
                             'with usdcat --flatten')
        stage = Usd.Stage.Open(layer)
        prims = [prim for prim in stage.Traverse() if prim.GetTypeName() == TYPE]
        if not prims:
            raise ValueError(f'{path}: holds no prim of type {TYPE}; name a splat file')
        transforms = UsdGeom.XformCache(Usd.TimeCode.EarliestTime())
        clouds = []
        for prim in prims:
            name = f'{path}: {str(prim.GetPath())[:100]}'
            values = {key: _values(prim, *attribute) for key, attribute in _ATTRIBUTES.items()}
            check_ratio(path, 'its prims hold', sum(value.nbytes for value in values.values()),
                        path.stat().st_size)
            degree = prim.GetAttribute(_DEGREE).Get() if prim.HasAttribute(_DEGREE) else 3
            matrix = np.array(transforms.GetLocalToWorldTransform(prim), np.float64).T
            clouds.append(place(_cloud(name, values, degree), matrix, name))
        up = str(UsdGeom.GetStageUpAxis(stage)).lower()
    except Tf.ErrorException as error:
        raise ValueError(f'{path}: damaged or not an OpenUSD file ({ascii(str(error))[1:200]}); export it '
                         'again') from None
    return join(clouds).transform(axis_change(up, '-y'))


def _values(prim: Any, name: str, width: int) -> np.ndarray:
    """Return an attribute at the first frame, (elements, width); empty if it is absent."""
    from pxr import Usd

    for attribute in (prim.GetAttribute(name), prim.GetAttribute(f'{name}h')):
        value = attribute.Get(Usd.TimeCode.EarliestTime()) if attribute else None
        if value is not None and len(value):
            return np.array(value).reshape(len(value), -1)
    return np.zeros((0, width), np.float32)


def _cloud(name: str, values: dict[str, np.ndarray], degree: int) -> GaussianCloud:
    """Return the Gaussians of a prim in its local space.

    Raises:
        ValueError: An attribute is absent or too short, or values are outside their range.
    """
    count, bands = len(values['means']), (degree + 1) ** 2
    for key, (attribute, width) in _ATTRIBUTES.items():
        expected = count * (bands if key == 'sh' else 1)
        if values[key].shape[1] != width or len(values[key]) < expected or not count or not 0 <= degree <= 10:
            raise ValueError(f'{name}: {attribute} holds {len(values[key])} elements of {values[key].shape[1]} values, '
                             f'expected {expected} of {width} for {count} positions and SH degree {degree}; export it '
                             'again')
        values[key] = values[key][:expected]  # longer ones are cut, as the schema says
    scales, opacities = values['scales'], values['opacities'][:, 0]
    if (scales < 0).any() or ((opacities < 0) | (opacities > 1)).any():
        raise ValueError(f'{name}: scales below 0 or opacities outside [0, 1], expected activated values; export it '
                         'again')
    if degree > 3:
        warnings.warn(f'{name}: harmonics of degree {degree} were cut to degree 3', stacklevel=4)
    return cloud_from_arrays(
        means=values['means'], quats=values['quats'][:, [3, 0, 1, 2]],  # numpy sees the memory of a Gf.Quatf, xyzw
        log_scales=quantise.log_scales(scales), opacity_logits=quantise.logits(opacities),
        sh=values['sh'].reshape(count, bands, 3)[:, :16])
