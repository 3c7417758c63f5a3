"""Table of the backends of points and rasterisation.

A backend is a module of ``clipgs_plugin.ops.kernels`` with one function for each operation it offers. Modules are
imported at first use, so importing the library needs neither numba nor gsplat nor pytorch3d.
"""
from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch


class Backend(NamedTuple):
    """One implementation of an operation."""

    module: str         # in clipgs_plugin.ops.kernels
    package: str        # needed to import it
    install: str        # command that installs the package
    device: str | None  # type of device it is made for; None works on every device


# The official line; pytorch3d has no package for Linux on PyPI.
INSTALL_PYTORCH3D = 'pip install "git+https://github.com/facebookresearch/pytorch3d.git@stable"'
_NUMBA = 'pip install numba'
_TORCH = 'pip install torch'
_GSPLAT = 'pip install gsplat'

_POINTS = {
    'cpu': Backend('points_numba', 'numba', _NUMBA, 'cpu'),
    'reference': Backend('points_reference', 'torch', _TORCH, None),
    'pytorch3d': Backend('points_pytorch3d', 'pytorch3d', INSTALL_PYTORCH3D, None),
}
_RASTER = {
    'cpu': Backend('raster_numba', 'numba', _NUMBA, 'cpu'),
    'reference': Backend('raster_reference', 'torch', _TORCH, None),
    'gsplat': Backend('raster_gsplat', 'gsplat', _GSPLAT, 'cuda'),
}
_BALL_QUERY = {name: _POINTS[name] for name in ('reference', 'pytorch3d')}
_BACKENDS = {'fps': _POINTS, 'knn': _POINTS, 'ball_query': _BALL_QUERY, 'render': _RASTER}


@cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None


def available_backends(op: str) -> list[str]:
    """Return the values of ``backend=`` that are installed for an operation, fastest on the CPU first.

    Args:
        op: ``'fps'``, ``'knn'``, ``'ball_query'`` or ``'render'``.

    Raises:
        ValueError: Unknown operation.
    """
    if op not in _BACKENDS:
        raise ValueError(f'op={op!r}: expected one of {sorted(_BACKENDS)}')
    return [name for name, backend in _BACKENDS[op].items() if _installed(backend.package)]


def load_backend(op: str, name: str, device: torch.device) -> ModuleType:
    """Import the module that runs an operation on a device.

    Args:
        op: ``'fps'``, ``'knn'``, ``'ball_query'`` or ``'render'``.
        name: ``'auto'`` or a backend of the operation.
        device: Device of the tensors.

    Raises:
        ValueError: Unknown backend, or the backend does not work on the device.
        ModuleNotFoundError: The package of the backend is not installed.
    """
    available = available_backends(op)
    if name == 'auto':
        name = _automatic(op, device)
    if name not in _BACKENDS[op]:
        raise ValueError(f"backend={name!r}: expected 'auto' or one of {available} for {op}")
    backend = _BACKENDS[op][name]
    if backend.device not in (None, device.type):
        raise ValueError(f'backend={name!r} of {op} works on {backend.device}, got tensors on {device}; move them '
                         f"with .to({backend.device!r}), or use backend='auto'")
    if name not in available:
        raise ModuleNotFoundError(f'backend={name!r} of {op} on {device} needs the package {backend.package}: '
                                  f"{backend.install}; backend='reference' works without it, slowly")
    return importlib.import_module(f'clipgs_plugin.ops.kernels.{backend.module}')


def _automatic(op: str, device: torch.device) -> str:
    """Return the backend made for a device, or ``'reference'``.

    Without numba, point operations fall back to plain torch, which returns the same indices. Rendering does not fall
    back: plain torch takes about 50 times as long, so a missing package is an error.
    """
    names = [name for name, backend in _BACKENDS[op].items()
             if backend.device == device.type and (op == 'render' or _installed(backend.package))]
    return names[0] if names else 'reference'
