"""Objects into a batch."""
from __future__ import annotations

from collections.abc import Sequence

import mmengine.registry
import torch

from clipgs_plugin.registry import FUNCTIONS
from clipgs_plugin.structures import GaussianBatch


# A Runner looks collate functions up in the root registry without regard to the scope, hence both.
@mmengine.registry.FUNCTIONS.register_module()
@FUNCTIONS.register_module()
def collate_gaussians(batch: Sequence[dict]) -> dict:
    """Items of ``PackGaussians`` as ``dict(inputs=GaussianBatch, data_samples=dict)``.

    Tensors are stacked, whole numbers become int64, other numbers float32, everything else a list. One dict of
    stacked values rather than an object per item, because each tensor that a worker sends costs a file descriptor.

    Raises:
        ValueError: Items with different keys, or tensors of different shapes.
    """
    samples = [item['data_samples'] for item in batch]
    for sample in samples:
        differing = set(sample) ^ set(samples[0])
        if differing:
            raise ValueError(f'{sorted(differing)} is in the data samples of some objects of a batch only, of '
                             f'{sample.get("uid")!r} or {samples[0].get("uid")!r}')
    return dict(inputs=GaussianBatch.from_clouds([item['inputs'] for item in batch]),
                data_samples={key: _stack(key, [sample[key] for sample in samples]) for key in samples[0]})


def _stack(key: str, values: list):
    first = values[0]
    if isinstance(first, torch.Tensor):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise ValueError(f'{key!r} has the shapes {sorted(shapes)} in one batch; batch equal ones only')
        return torch.stack(values)
    if isinstance(first, int):
        return torch.tensor(values, dtype=torch.int64)
    if isinstance(first, float):
        return torch.tensor(values, dtype=torch.float32)
    return values
