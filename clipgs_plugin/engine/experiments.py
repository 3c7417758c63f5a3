"""Resumable experiments: runs that leave a file with their results, and tables of their means over seeds."""
from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from clipgs_plugin.datasets import collate_gaussians
from clipgs_plugin.engine.launch import launched, load_config
from clipgs_plugin.io.files import write_whole


def resumable(path: Path, experiment: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Run an experiment, or read its results from the file that an earlier run left.

    Args:
        path: Path of the JSON file; it appears when the experiment has ended.
        experiment: Function that returns results by name.

    Returns:
        The results and ``seconds``, the duration of the experiment.
    """
    if path.is_file():
        return json.loads(path.read_text(encoding='utf-8'))
    started = time.perf_counter()
    results = {**experiment(), 'seconds': time.perf_counter() - started}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [json.dumps(results).encode()])
    return results


def last_epoch_config(name: str, work_dir: Path, options: dict) -> Config:
    """Load the config of a run without validation, which keeps no checkpoint and takes the weights of its last epoch.

    Args:
        name: Path of a config, or name of a shipped one.
        work_dir: Folder of the run.
        options: Further settings, by dotted keys.
    """
    cfg = load_config(name, str(work_dir), {
        'log_level': 'WARNING', 'default_hooks.checkpoint.interval': -1, 'default_hooks.checkpoint.save_best': None,
        'default_hooks.checkpoint.save_last': False, **options})
    for part in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        cfg[part] = None
    cfg.experiment_name = f'{work_dir.name}-{time.time_ns()}'
    return cfg


def train(cfg: Config) -> nn.Module:
    """Train the model of a config; return it in eval mode."""
    with launched(cfg) as runner:
        runner.train()
    return runner.model.eval()


@torch.no_grad()
def embed_dataset(
    model: nn.Module,    # CLIPGS or MultiViewCLIP
    dataset: Dataset,    # with labels
    batch_size: int = 32,
) -> tuple[Tensor, Tensor, Tensor]:  # (N, D), (N, E), (N,)
    """Compute pooled features, unit embeddings and labels of a dataset's objects.

    The embeddings of a model without an encoder are its features.
    """
    encoder, pooled, labels = getattr(model, 'encoder', None), [], []
    device = next((each.device for each in model.parameters()), torch.device('cpu'))
    for batch in DataLoader(dataset, batch_size=batch_size, collate_fn=collate_gaussians):
        inputs = batch['inputs'].to(device)
        if encoder is None:
            pooled.append(model(inputs))
        else:
            pooled.append(encoder.backbone(inputs if encoder.tokenizer is None else encoder.tokenizer(inputs)))
        labels.append(batch['data_samples']['label'])
    features = torch.cat(pooled)
    embeddings = features if encoder is None else encoder.projection(features)
    return features.cpu(), nn.functional.normalize(embeddings, dim=-1).cpu(), torch.cat(labels)


def mean_and_spread(values: Sequence[float]) -> str:
    """Format the mean and standard deviation over seeds; a dash without values."""
    if not values:
        return '-'
    found = torch.tensor(values)
    return f'{found.mean():.1f}' + (f' ± {found.std():.1f}' if len(values) > 1 else '')


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return '\n'.join([f'| {" | ".join(columns)} |', '|---' * len(columns) + '|',
                      *(f'| {" | ".join(row)} |' for row in rows)])
