"""Readers of labels of scenes, and of tables of their objects."""
from pathlib import Path

import numpy as np
import torch
from harness import Target
from targets_io import cloud

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.scenes import find_labels, read_labels, split_by_labels
from clipgs_plugin.scenes.objects import SceneObjects
from clipgs_plugin.scenes.table import describe_objects, read_table, write_table

IDS = np.arange(60) % 4


def labelled(folder: Path) -> Path:
    """Write a scene with a property of ids."""
    write_gaussians(cloud(sh_degree=0), folder / 'scene.ply', columns={'object': IDS.astype(np.int32)})
    return folder / 'scene.ply'


def array(folder: Path) -> Path:
    """Write a scene and an array of its labels."""
    write_gaussians(cloud(sh_degree=0), folder / 'scene.ply')
    np.save(folder / 'labels.npy', IDS)
    return folder / 'labels.npy'


def grouping(folder: Path) -> Path:
    """Write a scene of gaussian-grouping with its classifier."""
    features = np.random.default_rng(0).standard_normal((16, 60)).astype(np.float32)
    write_gaussians(cloud(sh_degree=0), folder / 'scene.ply',
                    columns={f'obj_dc_{i}': column for i, column in enumerate(features)})
    torch.manual_seed(0)
    torch.save(torch.nn.Conv2d(16, 8, 1).state_dict(), folder / 'classifier.pth')
    return folder / 'classifier.pth'


def clusters(folder: Path) -> Path:
    """Write a scene of OpenGaussian with its clusters."""
    names = [f'ins_feat_{name}' for name in ('r', 'g', 'b', 'r2', 'g2', 'b2')]
    write_gaussians(cloud(sh_degree=0), folder / 'scene.ply', columns=dict.fromkeys(names, np.zeros(60, np.float32)))
    np.savez(folder / 'cluster_lang.npz', leaf_feat=np.zeros((4, 8), np.float32), leaf_ind=IDS,
             occu_count=np.full(4, 3.0))
    return folder / 'cluster_lang.npz'


def table(folder: Path) -> Path:
    """Write a table of objects."""
    objects = SceneObjects.from_labels(torch.from_numpy(IDS), 1)
    write_table(folder / 'scene.objects.parquet', describe_objects(cloud(), objects), torch.eye(4), {'model': 'm'})
    return folder / 'scene.objects.parquet'


def split(path: Path) -> torch.Tensor:
    """Return the labels of the scene beside a file."""
    scene = path.with_name('scene.ply')
    source = path if path != scene else find_labels(scene)
    return split_by_labels(read_gaussians(scene), read_labels(scene, source or 'object'), name=str(source or scene))


def not_labels(labels: torch.Tensor) -> str | None:
    return None if labels.dtype == torch.int64 and (labels >= -1).all() else f'labels {labels}'


def not_rows(content: tuple) -> str | None:
    rows, embeddings, _ = content
    return None if embeddings is None or len(embeddings) == len(rows) else f'{len(rows)} rows, {embeddings.shape}'


TARGETS = [Target(f'labels of a scene, {name}', files, split, not_labels, share=0.5)
           for name, files in dict(property=labelled, array=array, classifier=grouping, clusters=clusters).items()]
TARGETS.append(Target('objects of a scene', table, read_table, not_rows))
