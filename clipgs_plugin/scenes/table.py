"""The table of the objects of a scene: a parquet file with one row an object."""
from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.scenes.objects import SceneObjects
from clipgs_plugin.structures import GaussianCloud

VERSION = 1
_EXTENT = (0.01, 0.99)  # quantiles of the means between which an object extends


@dataclass(frozen=True)
class ObjectRow:
    """Description of an object in the frame of the scene."""

    object: int
    gaussians: int
    center: tuple[float, float, float]  # of the extent
    extent: tuple[float, float, float]  # along x, y and z, without the outermost 1 % of the Gaussians at each end
    label: str = ''                     # most probable class, or the query
    score: float | None = None          # probability of the class, or cosine to the query
    path: str = ''                      # of its .ply, from the folder of the table


def describe_objects(cloud: GaussianCloud, objects: SceneObjects) -> list[ObjectRow]:
    """Measure the objects of a scene."""
    rows = []
    for number, members in zip(objects.ids.tolist(), objects.members):
        low, high = np.quantile(cloud.means[members].double().numpy(), _EXTENT, axis=0)
        rows.append(ObjectRow(number, len(members), tuple(map(float, (low + high) / 2)), tuple(map(float, high - low))))
    return rows


def write_table(path: Path, rows: Sequence[ObjectRow], embeddings: Tensor | None, notes: dict) -> None:
    """Write a parquet file with one row an object and, with embeddings (M, E), their unit vectors.

    Args:
        path: File to write.
        rows: Description of each object.
        embeddings: Unit vectors; None leaves the column out.
        notes: Facts of the whole table that JSON can hold, such as the scene and the model; they become its metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    columns = dict(
        object=pa.array([row.object for row in rows], pa.int64()),
        label=pa.array([row.label for row in rows], pa.string()),
        score=pa.array([row.score for row in rows], pa.float32()),
        gaussians=pa.array([row.gaussians for row in rows], pa.int64()),
        **{f'{name}_{axis}': pa.array([getattr(row, name)[i] for row in rows], pa.float64())
           for name in ('center', 'extent') for i, axis in enumerate('xyz')},
        path=pa.array([row.path for row in rows], pa.string()))
    if embeddings is not None:
        flat = pa.array(embeddings.float().numpy().reshape(-1), pa.float32())
        columns['embedding'] = pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
    table = pa.table(columns).replace_schema_metadata({'clipgs_plugin': json.dumps({'version': VERSION, **notes})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_whole(path, [buffer.getbuffer()])


def read_table(path: Path) -> tuple[list[ObjectRow], Tensor | None, dict]:
    """Read a file of :func:`write_table`: the rows, the embeddings (M, E) or None, and the notes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no table of objects.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; make it with tools/label_scene.py')
    try:
        table = pq.read_table(path, memory_map=False)
        notes = json.loads((table.schema.metadata or {})[b'clipgs_plugin'])
        if notes.get('version') != VERSION:
            raise ValueError(f'its version is {notes.get("version")}, expected {VERSION}')
        rows = [ObjectRow(row['object'], row['gaussians'], *(tuple(row[f'{name}_{axis}'] for axis in 'xyz')
                                                             for name in ('center', 'extent')),
                          row['label'], row['score'], row['path'])
                for row in table.drop_columns([name for name in ('embedding',) if name in table.column_names]
                                              ).to_pylist()]
        embeddings = None
        if 'embedding' in table.column_names:
            column = table.column('embedding').combine_chunks()
            embeddings = torch.from_numpy(column.flatten().to_numpy().reshape(len(rows), -1).copy())
    except (pa.ArrowException, KeyError, ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise ValueError(f'{path}: not a table of the objects of a scene ({ascii(str(error))[1:200]}); make it again '
                         'with tools/label_scene.py') from error
    return rows, embeddings, notes
