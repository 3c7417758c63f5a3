"""Scenes on disk: a splat with the object of each Gaussian, a record of the objects, and a picture."""
from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.generation.scenes.make import MadeScene
from clipgs_plugin.io import inria_ply, ply
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import to_json

SPLAT, RECORD, PICTURE = 'scene.ply', 'scene.json', 'preview.png'
LABEL = 'object'  # property of the vertices
SCHEMA = dict(format_version=int, gaussians=int, objects=[dict(
    id=int, uid=str, name=str, category=(str, None), up=str, low=[float] * 3, high=[float] * 3, yaw_degrees=float,
    scale=float)])


@dataclass(frozen=True, eq=False)
class TruthScene:
    """A scene read from its folder.

    Attributes:
        cloud: Gaussians, y up.
        labels: Object of each Gaussian, 1 to M, 0 for the room, -1 where it is unsure, (N,) int64.
        objects: Records of the objects, in the order of their ids.
        record: All of ``scene.json``.
    """

    cloud: GaussianCloud
    labels: torch.Tensor
    objects: list[dict]
    record: dict


def write_scene(scene: MadeScene, folder: Path) -> None:
    """Write a scene to a folder; the record comes last, so a folder with a record is complete."""
    from PIL import Image
    folder.mkdir(parents=True, exist_ok=True)
    inria_ply.write(scene.cloud, folder / SPLAT, normals=False, columns={LABEL: scene.labels.astype('<i4')})
    picture = io.BytesIO()
    Image.fromarray(scene.pictures).save(picture, 'png')
    write_whole(folder / PICTURE, [picture.getvalue()])
    write_whole(folder / RECORD, [to_json(scene.record, indent=1)])


def scene_folders(root: Path) -> list[Path]:
    """List the complete scenes below a folder, by name.

    Raises:
        FileNotFoundError: There are none.
    """
    folders = sorted(path.parent for path in Path(root).glob(f'*/{RECORD}'))
    if not folders:
        raise FileNotFoundError(f'{root}: holds no scene, a folder with {RECORD}; make some with tools/make_scenes.py')
    return folders


def read_scene(folder: Path) -> TruthScene:
    """Read a scene.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, or the two do not fit; the message says which.
    """
    record = read_json(folder / RECORD, schema=SCHEMA)
    file = ply.open_ply(folder / SPLAT)
    cloud = inria_ply.from_ply(file)
    if LABEL not in file['vertex'].properties:
        raise ValueError(f'{folder / SPLAT}: its vertices have no property {LABEL!r}; make the scene again')
    labels = torch.from_numpy(file.read()['vertex'][LABEL].astype(np.int64))
    ids = [item['id'] for item in record['objects']]
    least, most = (int(x) for x in labels.aminmax()) if len(labels) else (0, 0)
    if ids != list(range(1, len(ids) + 1)) or most > len(ids) or least < -1:
        raise ValueError(f'{folder}: labels run from {least} to {most} and {RECORD} has the objects {ids}; make the '
                         'scene again')
    return TruthScene(cloud, labels, record['objects'], record)
