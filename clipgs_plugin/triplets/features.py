"""Cached teacher features of views and captions, one file per shard.

::

    OUT/features/TEACHER/teacher.json        name, width, weights and precision of the teacher
    OUT/features/TEACHER/00000.safetensors   features of shard 00000: image (n,V,E) and text (n,T,E) float16,
                                             text_counts (n,), caption_ids (n,T) int64; uids in the metadata
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.triplets.codecs import caption_id, to_json
from clipgs_plugin.triplets.layout import TEACHER, feature_folder, feature_path
from clipgs_plugin.triplets.parsing import parsing
from clipgs_plugin.triplets.reader import ShardReader


class FeatureWriter:
    """Resumable writer of a teacher's features, shard by shard. ::

        writer = FeatureWriter(reader, 'toy-clip', width=128, weights=sha256)
        for shard, rows in writer.pending():
            image = ...                                            # (n, V, E) unit vectors
            text = [encode(writer.captions(row)) for row in rows]  # n of (T_i, E)
            writer.write(shard, image, text)

    Args:
        reader: Reader of the dataset.
        teacher: Name of the teacher and of the features' folder.
        width: Embedding dimension of the teacher, E.
        weights: Identifier of the teacher's weights, usually a hash of the file.
        precision: Precision of the teacher's computation.

    Raises:
        ValueError: The folder contains features of other weights, another width or precision.
    """

    def __init__(self, reader: ShardReader, teacher: str, width: int, weights: str, precision: str = 'fp32') -> None:
        self.reader = reader
        self.folder = feature_folder(reader.root, teacher)
        self.teacher = dict(name=teacher, width=width, weights=weights, precision=precision)
        path = self.folder / TEACHER
        if path.is_file():
            found = read_teacher(path)
            if found != self.teacher:
                raise ValueError(f'{self.folder} contains features of {found}, not of {self.teacher}; choose another '
                                 'name, or delete the folder')
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, [to_json(self.teacher, indent=2)])

    def pending(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each shard without features, with the indices of its objects."""
        for shard in np.unique(self.reader.shards).tolist():
            if not feature_path(self.reader.root, self.teacher['name'], shard).is_file():
                yield shard, self.rows(shard)

    def rows(self, shard: int) -> np.ndarray:
        """Return the indices of the objects of a shard, ascending."""
        return np.flatnonzero(self.reader.shards == shard)

    def captions(self, index: int) -> list[str]:
        """Return the captions of an object in the order of its text features."""
        return [caption['text'] for caption in self.reader.read_record(index)['captions']]

    def write(self, shard: int, image, text: Sequence) -> None:
        """Write the features of all objects of one shard.

        Args:
            shard: Number of the shard.
            image: View features, (n, V, E), where V is the dataset's number of views.
            text: Caption features, n arrays (T_i, E), where T_i is the object's number of captions.

        Raises:
            ValueError: The shapes do not fit the shard, or a value is not finite.
        """
        rows, width = self.rows(shard), self.teacher['width']
        image = np.ascontiguousarray(image, np.float16)  # safetensors stores the memory as it lies
        expected = len(rows), self.reader.num_views, width
        if image.shape != expected:
            raise ValueError(f'image features of shard {shard} have shape {image.shape}, expected {expected}')
        tensors = dict(image=image, **self._pad_text(shard, rows, text))
        if not (np.isfinite(image).all() and np.isfinite(tensors['text']).all()):
            raise ValueError(f'features of shard {shard} contain NaN or infinite values')
        # One metadata key only: the library writes several in no fixed order.
        uids = json.dumps([self.reader.uids[row] for row in rows])
        write_whole(feature_path(self.reader.root, self.teacher['name'], shard),
                    [safetensors.numpy.save(tensors, metadata={'uids': uids})])

    def _pad_text(self, shard: int, rows: np.ndarray, text: Sequence) -> dict[str, np.ndarray]:
        """Pad caption features and caption ids to the most captions of an object of the shard."""
        width = self.teacher['width']
        if len(text) != len(rows):
            raise ValueError(f'text features of {len(text)} objects for shard {shard}, expected {len(rows)}')
        captions = [self.captions(row) for row in rows]
        counts = np.array([len(c) for c in captions], np.int64)
        padded = np.zeros((len(rows), counts.max(), width), np.float16)
        ids = np.zeros((len(rows), counts.max()), np.int64)
        for i, (features, texts) in enumerate(zip(text, captions)):
            features = np.asarray(features, np.float16)
            if features.shape != (len(texts), width):
                raise ValueError(f'text features of {self.reader.uids[rows[i]]} have shape {features.shape}, expected '
                                 f'{(len(texts), width)}')
            padded[i, :len(texts)] = features
            ids[i, :len(texts)] = [caption_id(caption) for caption in texts]
        return dict(text=padded, text_counts=counts, caption_ids=ids)


class ShardFeatures:
    """Memory-mapped access to the features of a teacher, by the index of the reader.

    It may be forked; pickling it reopens the files.

    Attributes:
        teacher: Contents of ``teacher.json``: name, width, weights, precision.

    Raises:
        FileNotFoundError: The features of this teacher, or of a shard, are missing.
        ValueError: A file is damaged or belongs to another dataset (raised at the first access to its shard).
    """

    def __init__(self, reader: ShardReader, teacher: str) -> None:
        self.reader, self.name = reader, teacher
        self.folder = feature_folder(reader.root, teacher)
        self._remedy = f'run tools/cache_features.py {reader.root} --teacher {teacher}'
        path = self.folder / TEACHER
        if not path.is_file():
            others = sorted(p.parent.name for p in self.folder.parent.glob(f'*/{TEACHER}'))
            raise FileNotFoundError(f'{reader.root} has no features of teacher {teacher!r} (it has '
                                    f'{others or "none"}); {self._remedy}')
        self.teacher = read_teacher(path)
        missing = [shard for shard in np.unique(reader.shards).tolist()
                   if not feature_path(reader.root, teacher, shard).is_file()]
        if missing:
            raise FileNotFoundError(f'{self.folder} lacks the features of {len(missing)} shards, the first '
                                    f'{missing[0]:05d}; {self._remedy}, which continues where it stopped')
        # First row of each shard; the objects of a shard are contiguous in the index.
        self._first = {int(shard): int(first) for shard, first in zip(*np.unique(reader.shards, return_index=True))}
        self._slices: dict[int, dict] = {}

    def __reduce__(self):
        return type(self), (self.reader, self.name)

    def _locate(self, index: int) -> tuple[dict, int]:
        """Return the lazy tensors of an object's shard and the object's position in them."""
        shard = int(self.reader.shards[index])
        if shard not in self._slices:
            self._slices[shard] = self._open(shard)
        return self._slices[shard], int(index) - self._first[shard]

    def _open(self, shard: int) -> dict:
        """Map the tensors of a shard, after a check that they belong to its objects."""
        path, first = feature_path(self.reader.root, self.name, shard), self._first[shard]
        with parsing(path, f'delete it and {self._remedy}'):
            file = safetensors.safe_open(path, 'numpy')
            uids = json.loads((file.metadata() or {}).get('uids', 'null'))
            slices = {name: file.get_slice(name) for name in ('image', 'text', 'text_counts', 'caption_ids')}
            count = int(np.sum(self.reader.shards == shard))
            _check_tensors(slices, count, self.reader.num_views, self.teacher['width'])
        if uids != self.reader.uids[first:first + count]:
            raise ValueError(f'{path} contains features of other objects than shard {shard:05d}; delete '
                             f'{self.folder} and {self._remedy}')
        return slices

    def image(self, index: int) -> np.ndarray:
        """Read the features of an object's views, (V, E) float16."""
        slices, i = self._locate(index)
        return self._finite(slices['image'][i], index)

    def text(self, index: int) -> np.ndarray:
        """Read the features of an object's captions, (T, E) float16."""
        return self._finite(self._read_captions('text', index), index)

    def caption_ids(self, index: int) -> np.ndarray:
        """Read the :func:`~clipgs_plugin.triplets.codecs.caption_id` of the encoded captions, (T,) int64."""
        return self._read_captions('caption_ids', index)

    def _read_captions(self, name: str, index: int) -> np.ndarray:
        """Read an object's row of a tensor without its padding."""
        slices, i = self._locate(index)
        return slices[name][i, :int(slices['text_counts'][i])]

    def _finite(self, features: np.ndarray, index: int) -> np.ndarray:
        if not np.isfinite(features).all():
            path = feature_path(self.reader.root, self.name, int(self.reader.shards[index]))
            raise ValueError(f'{path} contains NaN or infinite features of {self.reader.uids[index]}; delete it and '
                             f'{self._remedy}')
        return features


def read_teacher(path: Path) -> dict:
    """Read ``teacher.json``; early files lack the precision, which was fp32.

    Raises:
        ValueError: The file is not JSON, or a field is absent or of another type.
    """
    fields = {'name': str, 'width': int, 'weights': str, 'precision?': str}
    return {'precision': 'fp32', **read_json(path, schema=fields)}


def _check_tensors(slices: dict, count: int, num_views: int, width: int) -> None:
    """Check the types and the shapes of the lazy tensors of a shard of ``count`` objects, and its numbers of captions.

    Raises:
        ValueError: A tensor does not fit the shard.
    """
    longest = slices['text'].get_shape()[1:2]
    for name, shape, dtype in (('image', [count, num_views, width], 'F16'), ('text', [count, *longest, width], 'F16'),
                               ('text_counts', [count], 'I64'), ('caption_ids', [count, *longest], 'I64')):
        found = slices[name].get_shape(), slices[name].get_dtype()
        if found != (shape, dtype):
            raise ValueError(f'{name} is {found[1]} of shape {found[0]}, expected {dtype} of {shape}')
    counts = slices['text_counts'][:]
    if len(counts) and not 0 <= counts.min() <= counts.max() <= longest[0]:
        raise ValueError(f'text_counts lie in {counts.min()}..{counts.max()}, expected 0..{longest[0]}')
