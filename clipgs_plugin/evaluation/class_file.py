"""Class embeddings in a file, for machines that the teacher does not fit on."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.io.arrays import npz_keys, read_npz_of
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import write_npz, write_whole

SUFFIXES = ('.npz', '.safetensors')


@dataclass(frozen=True, repr=False)
class ClassEmbeddings:
    """Names of classes, their unit vectors, and the teacher whose space they lie in.

    A file is an ``.npz`` with the arrays ``names`` (C,) and ``embeddings`` (C, E) and, if known, ``teacher`` (); or
    ``.safetensors`` with the tensor ``embeddings`` and ``names`` (a JSON list) and ``teacher`` in its metadata. Rows of
    any length but zero are read as directions.

    Raises:
        ValueError: The numbers of names and rows differ, a name repeats, or a row is zero or not finite.
    """

    names: tuple[str, ...]
    embeddings: Tensor  # (C, E) float32, normalised here
    teacher: str = ''   # name in the catalogue of teachers, or architecture and tag; empty if unknown

    def __post_init__(self) -> None:
        object.__setattr__(self, 'names', tuple(self.names))
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.names) or not self.names:
            raise ValueError(f'{len(self.names)} class names for embeddings of shape {tuple(self.embeddings.shape)}, '
                             'expected one row a name')
        repeated = next((name for i, name in enumerate(self.names) if name in self.names[:i]), None)
        if repeated is not None:
            raise ValueError(f'the class {repeated!r} is named twice')
        wrong = ~self.embeddings.isfinite().all(1) | ~self.embeddings.any(1)
        if wrong.any():
            raise ValueError(f'the embedding of {self.names[int(wrong.int().argmax())]!r} is zero, NaN or infinite')
        object.__setattr__(self, 'embeddings', normalize(self.embeddings.double(), dim=1).float())

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} classes in {self.width} dimensions, teacher={self.teacher!r})'

    @property
    def width(self) -> int:
        return self.embeddings.shape[1]

    def select(self, names: Sequence[str]) -> ClassEmbeddings:
        """Return the classes of some names, in their order.

        Raises:
            ValueError: A name is not among the classes.
        """
        rows = {name: i for i, name in enumerate(self.names)}
        missing = [name for name in names if name not in rows]
        if missing:
            raise ValueError(f'the class embeddings lack {len(missing)} of {len(names)} names '
                             f'({", ".join(missing[:5])}); they have {len(self)}, such as {", ".join(self.names[:3])}')
        return ClassEmbeddings(tuple(names), self.embeddings[[rows[name] for name in names]], self.teacher)

    def save(self, path: str | PathLike) -> None:
        """Write ``.npz`` or ``.safetensors``, by the name of the file."""
        path = Path(path)
        if _suffix(path) == '.safetensors':
            from safetensors.torch import save
            write_whole(path, [save({'embeddings': self.embeddings.contiguous()},
                                    {'names': json.dumps(self.names), 'teacher': self.teacher})])
        else:
            write_npz(path, dict(names=np.array(self.names), embeddings=self.embeddings.numpy(),
                                 teacher=np.array(self.teacher)))

    @classmethod
    def load(cls, path: str | PathLike) -> ClassEmbeddings:
        """Read a file of :meth:`save`, or another one of that layout.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged or of another layout.
        """
        path = Path(path)
        suffix = _suffix(path)
        if not path.is_file():
            raise FileNotFoundError(f'class embeddings {path} do not exist; write them with ClassEmbeddings.save')
        names, embeddings, teacher = (_read_safetensors if suffix == '.safetensors' else _read_npz)(path)
        try:
            return cls(tuple(names), embeddings, teacher)
        except ValueError as error:
            raise ValueError(f'{path}: {error}; write the file with ClassEmbeddings.save') from error


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f'{path}: the name of a file of class embeddings ends in {" or ".join(SUFFIXES)}')
    return suffix


def _read_npz(path: Path) -> tuple[Sequence[str], Tensor, str]:
    teacher = {'teacher': ('U', 0)} if 'teacher' in npz_keys(path) else {}
    content = read_npz_of(path, {'names': ('U', 1), 'embeddings': ('f', 2), **teacher})
    embeddings = torch.from_numpy(content['embeddings'].astype(np.float32))
    return content['names'].tolist(), embeddings, str(content.get('teacher', ''))


def _read_safetensors(path: Path) -> tuple[Sequence[str], Tensor, str]:
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, 'pt') as file:
            metadata, embeddings = file.metadata() or {}, file.get_tensor('embeddings').float()
    except SafetensorError as error:
        raise ValueError(f'{path} does not hold a tensor embeddings ({error}); write it with ClassEmbeddings.save'
                         ) from error
    names = read_json(metadata.get('names', '').encode(), f'{path}: names in its metadata', [str])
    return names, embeddings, metadata.get('teacher', '')
