"""Collation of objects into a batch."""
from __future__ import annotations

from collections.abc import Sequence

import mmengine.registry

from clipgs_plugin.registry import FUNCTIONS
from clipgs_plugin.structures import GaussianBatch, stack_values


# A Runner looks up collate functions in the root registry and ignores the scope, so both registries need it.
@mmengine.registry.FUNCTIONS.register_module()
@FUNCTIONS.register_module()
def collate_gaussians(batch: Sequence[dict]) -> dict:
    """Collate the items of ``PackGaussians`` into ``dict(inputs=GaussianBatch, data_samples=dict)``.

    ``data_samples`` is one dict of stacked values (:func:`~clipgs_plugin.structures.stack_values`) rather than a list
    of items, because each tensor that a worker sends costs a file descriptor.

    Raises:
        ValueError: Items have different keys, or tensors different shapes.
    """
    samples = [item['data_samples'] for item in batch]
    for sample in samples:
        differing = set(sample) ^ set(samples[0])
        if differing:
            raise ValueError(f'{sorted(differing)} is in the data samples of only one of the objects '
                             f'{sample.get("uid")!r} and {samples[0].get("uid")!r}, expected equal keys in a batch; '
                             'check the pipeline')
    return dict(inputs=GaussianBatch.from_clouds([item['inputs'] for item in batch]),
                data_samples={key: stack_values(key, [sample[key] for sample in samples]) for key in samples[0]})
