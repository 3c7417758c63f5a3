"""Values of several objects as one batched value."""
from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor


def stack_values(key: str, values: Sequence) -> Tensor | Sequence:
    """Stack tensors, arrays or numbers of several objects.

    Args:
        key: Name of the values, for the error.
        values: One value per object, at least one.

    Returns:
        Stacked tensor; whole numbers become int64, other numbers float32. Other values are returned unchanged.

    Raises:
        ValueError: Tensors have different shapes.
    """
    if all(isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in 'biuf')
           for value in values):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise ValueError(f'{key!r} has the shapes {sorted(shapes)} in one batch; batch equal ones only')
        return torch.stack([torch.as_tensor(value) for value in values])
    if all(isinstance(value, Integral) for value in values):
        return torch.tensor(values, dtype=torch.int64)
    if all(isinstance(value, Real) for value in values):
        return torch.tensor(values, dtype=torch.float32)
    return values
