"""OpenUSD scenes with ``ParticleField3DGaussianSplat`` prims (OpenUSD 26.03), read by Pixar's ``usd-core``.

Scales and opacities are activated, quaternions are wxyz, harmonics are grouped by Gaussian, band by band. The
transforms of the prims and the up axis of the stage apply: up becomes -y, as in an INRIA file.

usd-core 26.11 ends the process at some damaged files, 1 of 300, so it runs in a process of its own.
"""
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from clipgs_plugin.io import quantise, usd_prims
from clipgs_plugin.io.arrays import npz_keys, read_npz
from clipgs_plugin.io.files import check_ratio, cloud_from_arrays
from clipgs_plugin.io.placement import join, place
from clipgs_plugin.ops.rotations import axis_change
from clipgs_plugin.structures import GaussianCloud

BINARY, TEXT = b'PXR-', b'#usd'
SUFFIXES = ('.usd', '.usda', '.usdc', '.usdz')
SECONDS = 300
_WIDTHS = {'means': 3, 'quats': 4, 'scales': 3, 'opacities': 1, 'sh': 3}


def read(path: Path) -> GaussianCloud:
    """Read every splat prim of a stage into the INRIA frame; of an animation, the first frame.

    Raises:
        ImportError: usd-core is not installed.
        ValueError: The file is damaged, holds no Gaussians, refers to other files, or a prim is sheared or mirrored.
    """
    if importlib.util.find_spec('pxr') is None:
        raise ImportError(f'{path}: reading OpenUSD needs usd-core, the extra usd; pip install usd-core')
    found = _load(path)
    check_ratio(path, 'its prims hold', sum(value.nbytes for value in found.values()), path.stat().st_size)
    clouds = []
    for i in range(len(found) // (len(_WIDTHS) + 3)):
        name = f'{path}: {str(found[f"{i}/name"])[:100]}'
        cloud = _cloud(name, {field: found[f'{i}/{field}'] for field in _WIDTHS}, int(found[f'{i}/degree']))
        clouds.append(place(cloud, found[f'{i}/matrix'], name))
    return join(clouds).transform(axis_change(str(found['up']), '-y'))


def _load(path: Path) -> dict[str, np.ndarray]:
    """Return what :func:`clipgs_plugin.io.usd_prims.load` returns, from a process of its own."""
    with tempfile.TemporaryDirectory(prefix='usd-') as folder:
        result = Path(folder) / 'prims.npz'
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        # The text of the module: the folder of a script would come first among the places of modules.
        command = [sys.executable, '-c', Path(usd_prims.__file__).read_text('utf-8'), str(path.resolve()), str(result)]
        try:
            subprocess.run(command, env=environment, cwd=folder, timeout=SECONDS, capture_output=True, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise ValueError(f'{path}: damaged or not an OpenUSD file, usd-core ended with '
                             f'{getattr(error, "returncode", "no answer")}; export it again') from None
        found = read_npz(result, npz_keys(result))
    if 'error' in found:
        raise ValueError(f'{path}: {found["error"]}')
    return found


def _cloud(name: str, values: dict[str, np.ndarray], degree: int) -> GaussianCloud:
    """Return the Gaussians of a prim in its local space.

    Raises:
        ValueError: An attribute is absent or too short, or values are outside their range.
    """
    count, bands = len(values['means']), (degree + 1) ** 2
    for field, width in _WIDTHS.items():
        expected = count * (bands if field == 'sh' else 1)
        if not count or values[field].shape[1] != width or len(values[field]) < expected or not 0 <= degree <= 10:
            raise ValueError(f'{name}: {usd_prims.ATTRIBUTES[field]} holds {len(values[field])} elements, expected '
                             f'{expected} of {width} values for {count} positions and SH degree {degree}; export it '
                             'again')
        values[field] = values[field][:expected]  # longer ones are cut, as the schema says
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
