"""The way of a batch onto the model's device."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseDataPreprocessor

from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch, GaussianCloud, stack_values


@MODELS.register_module()
class GaussianDataPreprocessor(BaseDataPreprocessor):
    """Moves ``inputs`` and ``data_samples`` to the model's device.

    Takes what ``collate_gaussians`` makes, a :class:`GaussianBatch` and one dict of stacked values, and also the
    lists that mmengine's default ``pseudo_collate`` makes, which are padded and stacked here: slower, as every
    tensor then travels from the loader's worker on its own.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """The batch on the device.

        Raises:
            TypeError: ``inputs`` is neither a GaussianBatch nor GaussianClouds.
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
