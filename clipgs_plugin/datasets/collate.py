"""Objects into a batch."""
from __future__ import annotations

from collections.abc import Sequence

import mmengine.registry

from clipgs_plugin.registry import FUNCTIONS
from clipgs_plugin.structures import GaussianBatch, stack_values


# A Runner looks collate functions up in the root registry without regard to the scope, hence both.
@mmengine.registry.FUNCTIONS.register_module()
@FUNCTIONS.register_module()
def collate_gaussians(batch: Sequence[dict]) -> dict:
    """Items of ``PackGaussians`` as ``dict(inputs=GaussianBatch, data_samples=dict)``.

    Values are stacked by :func:`~clipgs_plugin.structures.stack_values`. One dict of stacked values rather than an
    object per item, because each tensor that a worker sends costs a file descriptor.

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
                data_samples={key: stack_values(key, [sample[key] for sample in samples]) for key in samples[0]})
