"""Names of the files of an index, those of clip-retrieval's folders where it has them."""
from __future__ import annotations

from pathlib import Path

CARD = 'index.json'
REMOVED = 'tombstones.npy'  # positions of rows that are superseded or gone, ascending
# Codes for approximate search: what they cover, their tables, the codes themselves.
RECORD, TABLES, CODES = 'approximate.json', 'approximate.npz', 'approximate.codes'
PENDING = '.pending'        # folder of files that a commit is about to put in place
REMEDY = 'copy it again, or delete the folder and embed the files once more with tools/embed.py'

# Columns that every index has; a writer may add others of plain values.
COLUMNS = dict(image_path='string', caption='string', path='string', size='int64', mtime_ns='int64',
               gaussians='int64', sh_degree='int64', up='string', up_confidence='double')


def vectors_name(shard: int) -> str:
    """Return the name of a shard's vectors, (rows, E) in float16."""
    return f'img_emb/img_emb_{shard:05d}.npy'


def metadata_name(shard: int) -> str:
    """Return the name of a shard's metadata, one row a vector."""
    return f'metadata/metadata_{shard:05d}.parquet'


def is_index(path: str | Path) -> bool:
    """Return True for a folder with the card of an index."""
    return (Path(path) / CARD).is_file()
