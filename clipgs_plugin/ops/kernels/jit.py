"""Compilation of numba kernels."""
from __future__ import annotations

from collections.abc import Callable

import numba


def kernel(*signatures: str, **options) -> Callable[[Callable], Callable]:
    """``numba.njit`` without the interpreter's lock, its machine code kept on disk where a folder can be written.

    Numba keeps it beside the source or in the user's cache folder and refuses when neither can be written, as in a
    read-only container; the kernel is then compiled anew in each process.
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
