"""The folder of a labelled scene: a table, splats of the scene and of its objects, and an index of the objects."""
from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.io import write_gaussians
from clipgs_plugin.io.files import write_npz
from clipgs_plugin.io.lock import LOCK
from clipgs_plugin.scenes.colors import colored
from clipgs_plugin.scenes.embedding import Track, silent
from clipgs_plugin.scenes.labelled import LabelledScene
from clipgs_plugin.scenes.replacing import COLOURED, INDEX, LABELLED, MARK, OBJECTS, SCORES, TABLE, replaced_together
from clipgs_plugin.scenes.table import read_table, write_table
from clipgs_plugin.search import IndexWriter


def check_scene_folder(folder: str | os.PathLike) -> None:
    """Check that a folder can be written: it is absent or empty, or a labelled scene that may be replaced.

    Raises:
        PermissionError: The system does not let this process write there.
        ValueError: It is a file, or holds something else.
    """
    folder = Path(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    for place in (there, folder / OBJECTS, folder / INDEX):
        if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(f'{folder}: {place} cannot be written; name another folder')
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'{folder} is a file; name a folder')
    _check_places(folder)
    if folder.is_dir() and not (folder / MARK).is_file() and any(path.name != LOCK for path in folder.iterdir()):
        try:
            read_table(folder / TABLE)
        except (ValueError, OSError) as error:
            raise ValueError(f'{folder} is not empty and was not written by this program; name another '
                             'folder') from error


def _check_places(folder: Path) -> None:
    """Check that each result can take its place: a folder that of a folder, a file that of a file, on one disk."""
    for name in (OBJECTS, INDEX):
        if os.path.lexists(folder / name) and not (folder / name).is_dir():
            raise ValueError(f'{folder / name} is not a folder, which this program writes there; remove it')
    for name in (TABLE, LABELLED, COLOURED, SCORES):
        if (folder / name).is_dir():
            raise ValueError(f'{folder / name} is a folder, where this program writes a file; remove it')
    if (folder / OBJECTS).is_dir() and device_of(folder / OBJECTS) != device_of(folder):
        raise ValueError(f'{folder / OBJECTS} is on another disk than {folder}, so that files cannot be moved there at '
                         'once; remove it, or name a folder on that disk')


def device_of(path: Path) -> int:
    """Return the number of the disk that a path leads to."""
    return path.stat().st_dev


def write_scene_folder(labelled: LabelledScene, folder: str | os.PathLike, track: Track = silent) -> None:
    """Write a labelled scene; the files of an earlier one are replaced, and no others.

    They stay until the new ones are complete, also if this fails or is killed.

    Args:
        labelled: The scene.
        folder: Folder to write.
        track: Function that shows the progress.

    Raises:
        OSError: The system cannot write, or another process writes this folder.
        ValueError: The folder holds something else.
    """
    out = Path(folder)
    check_scene_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with replaced_together(out) as new:
        for row, members in track(list(zip(labelled.rows, labelled.objects.members)), 'writing'):
            write_gaussians(labelled.scene.cloud[members], new / row.path)
        _write_scenes(labelled, new)
        _write_index(labelled, new, out)
        write_table(new / TABLE, labelled.rows, labelled.embeddings.to(torch.float32), _notes(labelled))


def _write_scenes(labelled: LabelledScene, out: Path) -> None:
    """Write the scene with the objects and scores of its Gaussians, and the coloured scene."""
    cloud, objects, texts = labelled.scene.cloud, labelled.objects, labelled.texts
    extra = {name: values for name, values in labelled.scene.columns.items() if name != 'score'}  # of an earlier run
    extra['object'] = objects.labels.clamp_min(0).numpy().astype(np.int32)
    if texts:
        least = -1.0 if texts.kind == 'cosine' else 0.0
        extra['score'] = objects.spread(texts.scores.max(1).values, least).numpy().astype(np.float32)
        write_npz(out / SCORES, dict(objects=objects.ids.numpy(), texts=np.array(texts.names),
                                     kind=np.array(texts.kind), scores=texts.scores.numpy().astype(np.float32)))
    write_gaussians(cloud, out / LABELLED, columns=extra)
    write_gaussians(colored(cloud, objects), out / COLOURED)


def _write_index(labelled: LabelledScene, new: Path, out: Path) -> None:
    """Write an index of the objects, which lie in ``new`` and will be in ``out``."""
    degree = labelled.scene.cloud.sh_degree
    with IndexWriter(new / INDEX, labelled.card) as index:
        for row, embedding in zip(labelled.rows, labelled.embeddings):
            words = dict(category=row.label, label_score=row.score) if labelled.texts else {}
            file = (new / row.path).stat()
            index.add(out / row.path, embedding, size=file.st_size, mtime_ns=file.st_mtime_ns, gaussians=row.gaussians,
                      sh_degree=degree, up=labelled.up, up_confidence=1.0, object=row.object, **words)


def _notes(labelled: LabelledScene) -> dict:
    """Describe how the objects were found and embedded."""
    card = asdict(labelled.card)
    return dict(scene=str(labelled.scene.path.absolute()) if labelled.scene.path else '',
                gaussians=len(labelled.scene.cloud), way=labelled.way, up=labelled.up, turns=labelled.turns,
                balanced=labelled.balanced,
                **{name: card[name] for name in ('model', 'checkpoint', 'teacher')},
                texts=list(labelled.texts.names) if labelled.texts else [])
