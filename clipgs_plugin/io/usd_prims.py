"""Splat prims of an OpenUSD stage as numpy arrays; run as a program, they go to an ``.npz``.

The module imports numpy and usd-core alone, so that it starts quickly in a process of its own.
"""
from __future__ import annotations

import sys
from typing import Any

import numpy as np

TYPE = 'ParticleField3DGaussianSplat'
# Attributes by field; a name ending in h holds half floats and counts if the other is absent.
ATTRIBUTES = {'means': 'positions', 'quats': 'orientations', 'scales': 'scales', 'opacities': 'opacities',
              'sh': 'radiance:sphericalHarmonicsCoefficients'}
DEGREE = 'radiance:sphericalHarmonicsDegree'


def load(path: str) -> dict[str, np.ndarray]:
    """Return the prims of a stage.

    Returns:
        ``up`` ('y' or 'z') and, for the prim i, its ``i/name``, ``i/matrix`` (4, 4) on column vectors, ``i/degree``,
        and ``i/FIELD`` of each attribute at the first frame, (elements, values); empty if it is absent.

    Raises:
        ValueError: The file is damaged, holds no splat prim, or refers to other files.
    """
    from pxr import Sdf, Usd, UsdGeom

    layer = Sdf.Layer.FindOrOpen(path)
    if layer is None:
        raise ValueError('damaged or not an OpenUSD file; download or export it again')
    if others := layer.GetCompositionAssetDependencies():
        raise ValueError(f'refers to {others[0][:100]!a}, which is not followed; flatten it into one file with usdcat '
                         '--flatten')
    stage = Usd.Stage.Open(layer)
    first = Usd.TimeCode.EarliestTime()
    transforms, found = UsdGeom.XformCache(first), {'up': np.array(str(UsdGeom.GetStageUpAxis(stage)).lower())}
    prims = [prim for prim in stage.Traverse() if prim.GetTypeName() == TYPE]
    if not prims:
        raise ValueError(f'holds no prim of type {TYPE}; name a splat file')
    for i, prim in enumerate(prims):
        degree = prim.GetAttribute(DEGREE)
        found |= {f'{i}/name': np.array(str(prim.GetPath())),
                  f'{i}/matrix': np.array(transforms.GetLocalToWorldTransform(prim), np.float64).T,
                  f'{i}/degree': np.array(degree.Get() if degree else 3),
                  **{f'{i}/{field}': _values(prim, name, first) for field, name in ATTRIBUTES.items()}}
    return found


def _values(prim: Any, name: str, first: Any) -> np.ndarray:
    """Return an attribute, (elements, values)."""
    for attribute in (prim.GetAttribute(name), prim.GetAttribute(f'{name}h')):
        value = attribute.Get(first) if attribute else None
        if value is not None and len(value):
            return np.array(value).reshape(len(value), -1)
    return np.zeros((0, 1), np.float32)


if __name__ == '__main__':
    try:
        np.savez(sys.argv[2], **load(sys.argv[1]))
    except Exception as error:  # the library maps errors of C++ to many types; the caller names the file
        text = f'{error}' if type(error) is ValueError else f'damaged or not an OpenUSD file ({ascii(error)[:200]})'
        np.savez(sys.argv[2], error=np.array(text))
