"""Toy training of the engine tests: a few fixed clouds, a small encoder with dropout, and a hook that kills."""
import os
import signal

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from torch import nn
from torch.utils.data import Dataset

from clipgs_plugin import GaussianBatch, GaussianCloud
from clipgs_plugin.registry import DATASETS, FUNCTIONS, HOOKS, METRICS, MODELS

WIDTH = 8


@DATASETS.register_module(force=True)
class EngineToyClouds(Dataset):
    """Clouds of different sizes, whose text and views are noisy projections of where and how red they are."""

    def __init__(self, size=16):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        g = torch.Generator().manual_seed(index)
        n = 5 + index % 4
        draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
        center, red = 3 * draw(3), draw(1)
        sh = 0.1 * draw(n, 1, 3)
        sh[..., 0] += red
        cloud = GaussianCloud(draw(n, 3) + center, draw(n, 4), draw(n, 3), draw(n), sh)
        text = torch.cat([center, red]) @ torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(99))
        return {'inputs': cloud, 'uid': f'object-{index}', 'label': index % 2, 'text': text + 0.1 * draw(WIDTH),
                'views': text + 0.5 * draw(5, WIDTH)}


@FUNCTIONS.register_module(force=True)
def engine_toy_collate(items):
    samples = {key: [item[key] for item in items] for key in ('uid', 'label', 'text', 'views')}
    samples['label'] = torch.tensor(samples['label'])
    samples['caption_id'] = torch.tensor([int(uid.split('-')[1]) for uid in samples['uid']])
    samples['text'], samples['views'] = torch.stack(samples['text']), torch.stack(samples['views'])
    return {'inputs': GaussianBatch.from_clouds([item['inputs'] for item in items]), 'data_samples': samples}


@MODELS.register_module(force=True)
class EngineToyEncoder(nn.Module):
    def __init__(self, dropout=0.3, norm='LayerNorm'):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), getattr(nn, norm)(16), nn.GELU(), nn.Dropout(dropout),
                                    nn.Linear(16, WIDTH))

    def forward(self, batch):
        x = torch.cat([batch.means, batch.rgb], -1) * batch.mask[..., None]
        return self.layers(x.sum(1) / batch.lengths[:, None])


@METRICS.register_module(force=True)
class EngineToyMean(BaseMetric):
    """A number that changes with any change of the embeddings."""

    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += [float((sample['embedding'].double() * torch.arange(1, WIDTH + 1)).sum())
                         for sample in data_samples]

    def compute_metrics(self, results):
        return {'mean': sum(results) / len(results)}


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """Kills the process in the middle of an epoch, as a power cut would."""

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)
