"""Compilation of numba kernels."""
from __future__ import annotations

from collections.abc import Callable

import numba


def kernel(*signatures: str, **options) -> Callable[[Callable], Callable]:
    """Return ``numba.njit`` that releases the interpreter's lock and caches machine code on disk if possible.

    Numba caches beside the source or in the user's cache folder, and raises if neither is writable, as in a read-only
    container. The kernel is then compiled in each process.
    """
    def decorate(function: Callable) -> Callable:
        signature = list(signatures) or None
        try:
            return numba.njit(signature, nogil=True, cache=True, **options)(function)
        except RuntimeError as error:
            if 'no locator available' not in str(error):
                raise
            return numba.njit(signature, nogil=True, **options)(function)
    return decorate
