"""Files of predictions."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from clipgs_plugin.io.files import write_npz
from clipgs_plugin.registry import METRICS

_LEFT_OUT = ('text', 'views')


@METRICS.register_module()
class DumpPredictions(BaseMetric):
    """Writer of predictions as an ``.npz`` of arrays with one row an object: embedding, uid, label and so on.

    Teacher features are left out. In a distributed evaluation the main process writes the predictions of all.

    Args:
        path: Path of the ``.npz`` file.
    """

    default_prefix = 'predictions'

    def __init__(self, path: str | Path, collect_device: str = 'cpu'):
        super().__init__(collect_device=collect_device)
        self.path = Path(path)
        if self.path.suffix != '.npz':
            raise ValueError(f'{path}: predictions are written as .npz')

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            self.results.append({key: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
                                 for key, value in sample.items() if key not in _LEFT_OUT})

    def compute_metrics(self, results: list[dict]) -> dict:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(self.path, {key: np.stack([np.asarray(result[key]) for result in results]) for key in results[0]})
        return {}
