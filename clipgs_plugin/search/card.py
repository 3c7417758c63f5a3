"""Card of an index: the model that made its vectors, and its shards."""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Protocol

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.search.layout import CARD, REMEDY

FORMAT, VERSION = 'clipgs_plugin index', 1
_SCHEMA = {'format': str, 'version': int, 'model': str, 'width': int, 'checkpoint': str, 'checkpoint_sha256': str,
           'options': [str], 'teacher': str, 'shards': [{'rows': int, 'sha256': str, 'metadata_sha256?': str}],
           'tombstones_sha256?': str}
MAX_WIDTH, MAX_BYTES = 1 << 16, 1 << 26  # of an embedding, of the card


class HasWeights(Protocol):
    """Model that knows the hash of its weights."""

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the weights."""


@dataclass(frozen=True)
class IndexCard:
    """Origin of the vectors of an index, without which a query cannot be compared with them.

    Raises:
        ValueError: The width is out of range.
    """

    model: str                     # name or config for CLIPGSInferencer, which embeds queries
    width: int                     # numbers of an embedding
    checkpoint: str = ''
    checkpoint_sha256: str = ''    # of the weights; empty where they are not known
    options: tuple[str, ...] = ()  # of tools/embed.py, which prepared the objects, like '--up=-y'
    teacher: str = ''              # CLIP model that embeds texts and images

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(f'embeddings of {self.width} numbers, expected 1 to {MAX_WIDTH}')

    def refuse_other(self, other: IndexCard, folder: str | Path) -> None:
        """Refuse to join vectors of two origins.

        Args:
            other: Card of vectors that are to join those of this card.
            folder: Folder of the index, for the message.

        Raises:
            ValueError: The model, the weights, the width or the options differ.
        """
        for name, what in (('model', 'model'), ('checkpoint_sha256', 'weights (SHA-256)'), ('width', 'width'),
                           ('options', 'options')):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                raise ValueError(f'{folder} was made with {what} {_words(mine)}, not {_words(others)}; the vectors '
                                 'cannot be compared, write another index')

    def refuse_foreign_config(self, index: Path) -> None:
        """Refuse a config that may have come with the index, since a config is Python, which a query runs.

        Args:
            index: Folder or file of the index.

        Raises:
            ValueError: The model is the path of a config, and it is relative or leads into the folder.
        """
        if self.model.endswith('.py') and not self.model.startswith('clipgs_plugin::') and (
                not os.path.isabs(self.model) or Path(os.path.realpath(self.model)).is_relative_to(
                    os.path.realpath(index))):
            raise ValueError(f'{index} names the config {self.model!r} as its model, a program that may have come with '
                             'it; embed the files again with a config that lies elsewhere')

    def refuse_other_weights(self, model: HasWeights, folder: str | Path) -> None:
        """Refuse a model for queries whose weights are not those of the vectors.

        Args:
            model: Inferencer of the model's name.
            folder: Folder of the index, for the message.

        Raises:
            ValueError: The hashes of both are known and differ.
        """
        if self.checkpoint_sha256 and model.weights_sha256() != self.checkpoint_sha256:
            raise ValueError(f'{folder} was made with other weights of {self.model} than those that are found now; '
                             'embed the files again into another index, or bring the former weights back')


@dataclass(frozen=True)
class Shard:
    """A pair of files of an index; equal ones have the same vectors."""

    rows: int
    sha256: str  # of the file of vectors
    metadata_sha256: str = field(default='', compare=False)  # likewise; empty in older indexes


def _words(value: object) -> str:
    return repr(' '.join(value) if isinstance(value, tuple) else value)


def write_card(card: IndexCard, shards: Sequence[Shard], removed_sha256: str = '') -> bytes:
    """Return the content of ``index.json``.

    Args:
        card: Origin of the vectors.
        shards: Pairs of files.
        removed_sha256: Hash of ``tombstones.npy``, empty where there is none.
    """
    return json.dumps({'format': FORMAT, 'version': VERSION, **asdict(card), 'shards': [asdict(s) for s in shards],
                       'tombstones_sha256': removed_sha256}, indent=1).encode()


def read_card(folder: Path) -> tuple[IndexCard, tuple[Shard, ...], str | None]:
    """Read ``index.json`` of an index: the card, the shards, and the hash of ``tombstones.npy``.

    The hash is empty where there is no such file, and None in older indexes.

    Raises:
        FileNotFoundError: The folder does not have it.
        ValueError: It is damaged, of another program, or of a newer version.
    """
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(f'{folder} is not an index: {CARD} does not exist in it; make one with tools/embed.py '
                                f'FILES -o {folder}')
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f'{path} has {path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}; {REMEDY}')
    head = read_json(path, schema=dict)
    if head.get('format') != FORMAT:
        raise ValueError(f'{path} is not the card of an index of this library; name a folder that tools/embed.py wrote')
    if head.get('version') != VERSION:
        raise ValueError(f'{path} has version {str(head.get("version"))[:20]}, this library reads {VERSION}; update it')
    content = read_json(path, schema=_SCHEMA)
    if any(shard['rows'] < 1 for shard in content['shards']):
        raise ValueError(f'{path}: a shard without rows; {REMEDY}')
    try:
        card = IndexCard(**{each.name: content[each.name] for each in fields(IndexCard) if each.name != 'options'},
                         options=tuple(content['options']))
    except ValueError as error:
        raise ValueError(f'{path}: {error}; {REMEDY}') from error
    card.refuse_foreign_config(folder)
    return card, tuple(Shard(shard['rows'], shard['sha256'], shard.get('metadata_sha256', ''))
                       for shard in content['shards']), content.get('tombstones_sha256')
