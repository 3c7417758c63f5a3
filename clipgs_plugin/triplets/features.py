"""A teacher's features of views and captions, computed once and kept beside the shards.

::

    OUT/features/TEACHER/teacher.json        name, width, weights, precision: what made the features
    OUT/features/TEACHER/00000.safetensors   of shard 00000: image (n,V,E) and text (n,T,E) float16, text_counts (n,),
                                             caption_ids (n,T) int64; the uids in the metadata
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.triplets.codecs import caption_id, to_json
from clipgs_plugin.triplets.layout import TEACHER, feature_folder
from clipgs_plugin.triplets.shards import ShardReader


class FeatureWriter:
    """Writes a teacher's features shard by shard; killed and started again it goes on with the missing shards. ::

        writer = FeatureWriter(reader, 'toy-clip', width=128, weights=sha256)
        for shard, rows in writer.pending():
            image = ...                                            # (n, V, E) unit vectors
            text = [encode(writer.captions(row)) for row in rows]  # n of (T_i, E)
            writer.write(shard, image, text)

    Args:
        reader: The triplets.
        teacher: Name of the features; names the folder.
        width: E, the teacher's embedding dimension.
        weights: What tells the teacher's weights from others', as a rule a hash of the file.
        precision: In which the teacher computes.

    Raises:
        ValueError: The folder holds the features of other weights, another width or precision.
    """

    def __init__(self, reader: ShardReader, teacher: str, width: int, weights: str, precision: str = 'fp32') -> None:
        self.reader = reader
        self.folder = feature_folder(reader.root, teacher)
        self.teacher = dict(name=teacher, width=width, weights=weights, precision=precision)
        path = self.folder / TEACHER
        if path.is_file():
            found = {'precision': 'fp32', **json.loads(path.read_text(encoding='utf-8'))}
            if found != self.teacher:
                raise ValueError(f'{self.folder} holds features of {found}, not of {self.teacher}; give these another '
                                 'name, or delete the folder')
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, [to_json(self.teacher, indent=2)])

    def pending(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each shard without features and the indices of its objects."""
        for shard in np.unique(self.reader.shards).tolist():
            if not self._path(shard).is_file():
                yield shard, self.rows(shard)

    def rows(self, shard: int) -> np.ndarray:
        """Indices of the objects of a shard, ascending."""
        return np.flatnonzero(self.reader.shards == shard)

    def captions(self, index: int) -> list[str]:
        """The captions of an object in the order its text features must have."""
        return [caption['text'] for caption in self.reader.read_record(index)['captions']]

    def _path(self, shard: int) -> Path:
        return self.folder / f'{shard:05d}.safetensors'

    def write(self, shard: int, image, text: Sequence) -> None:
        """Features of all objects of one shard.

        Args:
            shard: Its number.
            image: (n, V, E), V the dataset's number of views.
            text: n arrays (T_i, E), T_i the object's number of captions.

        Raises:
            ValueError: Shapes that do not fit the shard, or values that are not finite.
        """
        rows, width = self.rows(shard), self.teacher['width']
        captions = [self.captions(row) for row in rows]
        image = np.asarray(image, np.float16)
        if image.shape != (len(rows), self.reader.num_views, width):
            raise ValueError(f'image features of shard {shard} have shape {image.shape}, expected '
                             f'{(len(rows), self.reader.num_views, width)}')
        if len(text) != len(rows):
            raise ValueError(f'text features of {len(text)} objects for shard {shard}, which holds {len(rows)}')
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
        if not (np.isfinite(image).all() and np.isfinite(padded).all()):
            raise ValueError(f'features of shard {shard} hold NaN or infinite values')
        tensors = dict(image=image, text=padded, text_counts=counts, caption_ids=ids)
        # One metadata key only: the library writes several in no fixed order.
        uids = json.dumps([self.reader.uids[row] for row in rows])
        write_whole(self._path(shard), [safetensors.numpy.save(tensors, metadata={'uids': uids})])


class ShardFeatures:
    """Memory-mapped access to the features of a teacher, by the index of the reader.

    May be forked; pickling it opens the files again.

    Attributes:
        teacher: ``teacher.json``: name, width, weights, precision.

    Raises:
        FileNotFoundError: No features of this teacher, or not of this shard.
        ValueError: Features that do not belong to these triplets.
    """

    def __init__(self, reader: ShardReader, teacher: str) -> None:
        self.reader, self.name = reader, teacher
        self.folder = feature_folder(reader.root, teacher)
        self._remedy = f'run tools/cache_features.py {reader.root} --teacher {teacher}'
        path = self.folder / TEACHER
        if not path.is_file():
            there = sorted(p.parent.name for p in self.folder.parent.glob('*/teacher.json'))
            raise FileNotFoundError(f'{reader.root} has no features of teacher {teacher!r} (it has {there or "none"}); '
                                    f'{self._remedy}')
        self.teacher = json.loads(path.read_text(encoding='utf-8'))
        missing = [shard for shard in np.unique(reader.shards).tolist() if not self._path(shard).is_file()]
        if missing:
            raise FileNotFoundError(f'{self.folder} lacks the features of {len(missing)} shards, the first '
                                    f'{missing[0]:05d}; {self._remedy}, which goes on where it stopped')
        # Position of each object in its shard; shards are contiguous in the index.
        self._first = {int(shard): int(first) for shard, first in zip(*np.unique(reader.shards, return_index=True))}
        self._maps: dict[int, dict[str, np.ndarray]] = {}

    def __reduce__(self):
        return type(self), (self.reader, self.name)

    def _path(self, shard: int) -> Path:
        return self.folder / f'{shard:05d}.safetensors'

    def _at(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        """The mapped arrays of the object's shard and its position there."""
        shard = int(self.reader.shards[index])
        if shard not in self._maps:
            arrays, metadata = _map_safetensors(self._path(shard))
            first = self._first[shard]
            uids = json.loads(metadata['uids'])
            if uids != self.reader.uids[first:first + len(uids)] or np.sum(self.reader.shards == shard) != len(uids):
                raise ValueError(f'{self._path(shard)} holds features of other objects than shard {shard:05d}; delete '
                                 f'{self.folder} and {self._remedy}')
            self._maps[shard] = arrays
        return self._maps[shard], index - self._first[shard]

    def image(self, index: int) -> np.ndarray:
        """Features of the views of an object, (V, E) float16."""
        arrays, i = self._at(index)
        return arrays['image'][i]

    def text(self, index: int) -> np.ndarray:
        """Features of the captions of an object, (T, E) float16."""
        arrays, i = self._at(index)
        return arrays['text'][i, :arrays['text_counts'][i]]

    def caption_ids(self, index: int) -> np.ndarray:
        """:func:`~clipgs_plugin.triplets.codecs.caption_id` of the captions that were encoded, (T,) int64."""
        arrays, i = self._at(index)
        return arrays['caption_ids'][i, :arrays['text_counts'][i]]


def _map_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file as read-only memory maps, and its metadata."""
    dtypes = {'F16': np.float16, 'F32': np.float32, 'I64': np.int64}
    size = path.stat().st_size
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        header = file.read(length) if length <= size else b''
    if len(header) != length:
        raise ValueError(f'{path} is truncated: {size} bytes; delete it and run tools/cache_features.py again')
    entries = json.loads(header)
    metadata = entries.pop('__metadata__', {})
    end = 8 + length + max(entry['data_offsets'][1] for entry in entries.values())
    if end != size:
        raise ValueError(f'{path} is truncated: {size} bytes, expected {end}; delete it and run '
                         'tools/cache_features.py again')
    arrays = {name: np.memmap(path, dtypes[entry['dtype']], 'r', 8 + length + entry['data_offsets'][0],
                              tuple(entry['shape']))
              for name, entry in entries.items()}
    return arrays, metadata
