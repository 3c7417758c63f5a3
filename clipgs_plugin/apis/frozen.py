"""Frozen features of a dataset, computed once per checkpoint, data and pipeline."""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset

from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.datasets import FrozenFeatures
from clipgs_plugin.datasets.preparation import prepare_object
from clipgs_plugin.io.archives import visible_files
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.structures import GaussianBatch, GaussianCloud


def frozen_features(
    clipgs: CLIPGSInferencer,
    dataset: dict,
    cache: Path | None = None,
    batch_size: int = 32,
    workers: int = 0,
    track: Callable[[Iterable], Iterable] = iter,
) -> FrozenFeatures:
    """Embed the labelled objects of a dataset, or read what an earlier call wrote for equal arguments.

    Args:
        clipgs: Model with its pipeline.
        dataset: Config of a dataset that loads clouds with a label; objects without a class are left out. Its own
            pipeline comes before that of the model.
        cache: Path of the file to write; it is read if its fingerprint is that of model, data and pipeline.
        batch_size: Number of objects in a forward pass.
        workers: Number of processes that load objects.
        track: Wrapper of the batches, such as a progress bar.
    """
    clipgs.require_embeddings()
    mark = fingerprint(clipgs, dataset)
    if cache is not None and cache.is_file():
        found = FrozenFeatures.load(cache)
        if found.fingerprint == mark:
            return found
    objects = DATASETS.build(dict(dataset))
    loader = DataLoader(_Prepared(objects, clipgs), batch_size=batch_size, num_workers=workers, collate_fn=list,
                        multiprocessing_context='spawn' if workers else None)
    embeddings, labels, uids = [], [], []
    for batch in track(loader):
        kept = [item for item in batch if item[1] >= 0]
        if kept:
            with torch.inference_mode():
                found = clipgs.model(GaussianBatch.from_clouds([cloud for cloud, _, _ in kept]).to(clipgs.device),
                                     mode='tensor')
            embeddings.append(normalize(found.float(), dim=-1).cpu())
            labels += [label for _, label, _ in kept]
            uids += [uid for _, _, uid in kept]
    if not labels:
        raise ValueError(f'none of the {len(objects)} objects of {objects!r} has a class; few-shot tasks need classes')
    features = FrozenFeatures(torch.cat(embeddings), torch.tensor(labels), uids, objects.classes, mark)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        features.save(cache)
    return features


class _Prepared(Dataset):
    """Objects of a dataset after the pipeline of a model: cloud, label, uid."""

    def __init__(self, objects: Dataset, clipgs: CLIPGSInferencer) -> None:
        self.objects = objects
        self.transform = clipgs.transform

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> tuple[GaussianCloud, int, str]:
        item = self.objects[index]
        prepared = prepare_object(self.transform, item['gaussians'], f'object {item["uid"]!r}')
        return prepared, int(item['label']), item['uid']


def fingerprint(clipgs: CLIPGSInferencer, dataset: dict) -> str:
    """Return a SHA-256 of the weights, the model's config and pipeline, the dataset's config, and its files.

    Files count by name, size and time of change. They are those below the dataset's ``root``, without hidden ones such
    as the index of archives, and those that its other options name, such as ``labels``.
    """
    digest = hashlib.sha256(clipgs.weights_sha256().encode())
    cfg = clipgs.model.cfg
    for part in (cfg.model, cfg.test_dataloader.dataset.pipeline, dataset):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    for path in _files(dataset):
        state = os.stat(path)
        digest.update(f'{path} {state.st_size} {state.st_mtime_ns}'.encode())
    return digest.hexdigest()


def _files(dataset: dict) -> list[Path]:
    named = [Path(value).expanduser() for value in dataset.values()
             if isinstance(value, (str, Path)) and os.path.isfile(os.path.expanduser(value))]
    root = dataset.get('root')
    return named + (visible_files(Path(root).expanduser()) if root is not None else [])
