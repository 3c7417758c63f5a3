"""Which implementation of an operation runs.

A backend is a module of ``clipgs_plugin.ops.kernels`` with a function for each operation it offers. Modules are
imported when first used, so that neither numba nor pytorch3d is needed to import the library.
"""
from __future__ import annotations

import importlib
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch

# Backend -> the package it needs. In the order of 'auto' on the CPU.
_NEEDS = {'cpu': 'numba', 'reference': 'torch', 'pytorch3d': 'pytorch3d', 'gsplat': 'gsplat'}
_MODULES = {'cpu': 'numba'}
_OPERATIONS = {'fps': ('cpu', 'reference', 'pytorch3d'), 'knn': ('cpu', 'reference', 'pytorch3d'),
               'render': ('cpu', 'reference', 'gsplat')}


@lru_cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None


def available_backends(op: str) -> list[str]:
    """Names that ``backend=`` of an operation takes in this environment, fastest on the CPU first.

    Args:
        op: ``'fps'``, ``'knn'`` or ``'render'``.
    """
    if op not in _OPERATIONS:
        raise ValueError(f'op={op!r}: expected one of {sorted(_OPERATIONS)}')
    return [name for name in _OPERATIONS[op] if _installed(_NEEDS[name])]


def load_backend(op: str, backend: str, device: torch.device) -> ModuleType:
    """The module that runs ``op`` on ``device``; ``'auto'`` is numba on the CPU and plain torch elsewhere."""
    available = available_backends(op)
    if backend == 'auto':
        backend = available[0] if device.type == 'cpu' else 'reference'
    if backend not in _OPERATIONS[op]:
        raise ValueError(f"backend={backend!r}: expected 'auto' or one of {available} for {op}")
    if backend not in available:
        raise ModuleNotFoundError(f"backend={backend!r} needs the package {_NEEDS[backend]}; install it, or use "
                                  f"backend='auto'")
    if backend == 'cpu' and device.type != 'cpu':
        raise ValueError(f"backend='cpu' takes tensors on the CPU, got {device}; use 'auto' or 'reference'")
    return importlib.import_module(f'clipgs_plugin.ops.kernels.points_{_MODULES.get(backend, backend)}')
