"""Data preprocessor that moves batches to the model's device."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseDataPreprocessor

from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch, GaussianCloud, stack_values


@MODELS.register_module()
class GaussianDataPreprocessor(BaseDataPreprocessor):
    """Preprocessor that moves ``inputs`` and ``data_samples`` to the model's device.

    It takes batches from ``collate_gaussians``: a :class:`GaussianBatch` and one dict of stacked values. It also pads
    and stacks the lists from mmengine's default ``pseudo_collate``, which is slower, because the data loader then
    sends every tensor from its worker separately.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return the batch on the model's device.

        Raises:
            TypeError: ``inputs`` is neither a GaussianBatch nor a list of GaussianClouds.
        """
        inputs = data['inputs']
        if isinstance(inputs, GaussianCloud):
            inputs = [inputs]
        if not isinstance(inputs, GaussianBatch):
            if not isinstance(inputs, Sequence) or not all(isinstance(x, GaussianCloud) for x in inputs):
                raise TypeError(f'inputs are {type(inputs).__name__}, expected a GaussianBatch or a list of '
                                'GaussianClouds; set collate_fn=dict(type=\'collate_gaussians\') in the dataloader')
            inputs = GaussianBatch.from_clouds(inputs)
        samples = {key: stack_values(key, value) if isinstance(value, list | tuple) and value else value
                   for key, value in (data.get('data_samples') or {}).items()}
        return {'inputs': inputs.to(self.device, non_blocking=self._non_blocking),
                'data_samples': self.cast_data(samples)}
