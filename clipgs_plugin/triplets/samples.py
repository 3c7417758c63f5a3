"""One object as a sample of WebDataset: a piece of a tar file, and its row of the index."""
from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import encode_gaussians, encode_view, to_json, views_array
from clipgs_plugin.triplets.layout import GAUSSIANS, MAX_UID, RECORD


@dataclass(frozen=True)
class Sample:
    """An encoded object, which any process may make and a :class:`~clipgs_plugin.triplets.ShardWriter` only copies.

    Attributes:
        data: Its members as they lie in a tar file, headers and padding included.
        row: Of the index, but for the shard; offsets count from the start of ``data``.
    """

    data: bytes
    row: dict

    def row_in(self, shard: int, start: int) -> dict:
        """The row of the index when ``data`` begins at byte ``start`` of a shard."""
        row = dict(self.row, shard=shard, view_offsets=[start + offset for offset in self.row['view_offsets']])
        return row | {name: start + row[name] for name in ('gaussians_offset', 'record_offset')}


def encode_sample(uid: str, gaussians: GaussianCloud, views=(), *, captions: Iterable[str | dict],
                  category: str | None = None, split: str = 'train', source: dict | None = None,
                  quality: dict | None = None, attributes: dict | None = None, cameras: str = 'dataset',
                  sh_degree: int = 0, dtype: str = 'float16', webp_quality: int | None = 90) -> Sample:
    """Check an object and encode it.

    Args:
        uid: 1 to 78 letters, digits, ``_`` or ``-``; unique in the dataset.
        gaussians: The object, in the dataset's frame.
        views: sRGB images, (V, H, W, 3) uint8; V is the same for all objects of a dataset.
        captions: At least one: texts, or ``dict(text=..., source=...)`` that says who wrote it.
        category: Class name, if there is one.
        split: ``'train'``, ``'val'``, ``'test'`` or another name.
        source: Where the object is from (file, licence, author, ...).
        quality: Measurements by name, e.g. ``dict(psnr=36.2)``; the index holds ``psnr``, in dB.
        attributes: Anything else, as JSON.
        cameras: Which cameras the views are from; ``'dataset'``: those in ``dataset.json``.
        sh_degree: Of the stored Gaussians; lower ones are filled with zeros, higher ones are cut.
        dtype: As :func:`~clipgs_plugin.triplets.codecs.encode_gaussians` takes.
        webp_quality: As :func:`~clipgs_plugin.triplets.codecs.encode_view` takes.

    Raises:
        ValueError: A name, shape or value that the format cannot hold.
    """
    if not re.fullmatch(rf'[A-Za-z0-9_-]{{1,{MAX_UID}}}', uid):
        raise ValueError(f'uid {uid!r}: expected 1 to {MAX_UID} letters, digits, "_" or "-" (a dot or slash would '
                         'split the name of a tar member)')
    captions = [dict(text=c, source=None) if isinstance(c, str) else {'source': None, **c} for c in captions]
    if not captions or not all(isinstance(c.get('text'), str) and c['text'].strip() for c in captions):
        raise ValueError(f'{uid}: captions {captions!r}, expected at least one and none of them empty')
    cloud = encode_gaussians(gaussians.with_sh_degree(sh_degree), dtype)
    pictures = [encode_view(view, webp_quality) for view in views_array(views)]
    record = dict(
        uid=uid, captions=captions, category=category, split=split, source=source or {}, quality=quality or {},
        attributes=attributes or {}, cameras=cameras, num_gaussians=len(gaussians), num_views=len(pictures),
        sha256=content_hash([cloud, *pictures]))
    data, row = bytearray(), dict(uid=uid, **indexed(record))
    row['gaussians_offset'], row['gaussians_size'] = _append(data, f'{uid}.{GAUSSIANS}', cloud)
    members = [_append(data, f'{uid}.{i:03d}.webp', picture) for i, picture in enumerate(pictures)]
    row['view_offsets'], row['view_sizes'] = [offset for offset, _ in members], [size for _, size in members]
    row['record_offset'], row['record_size'] = _append(data, f'{uid}.{RECORD}', to_json(record))
    return Sample(bytes(data), row)


def content_hash(members: Iterable[bytes]) -> str:
    """The sha256 of an object's Gaussians and views one after another, which its record tells.

    A changed byte of a picture mostly still decodes; this tells.
    """
    digest = hashlib.sha256()
    for content in members:
        digest.update(content)
    return digest.hexdigest()


def indexed(record: dict) -> dict:
    """What the index repeats of a record."""
    return dict(category=record['category'], split=record['split'], quality=record['quality'].get('psnr'),
                num_gaussians=record['num_gaussians'], num_captions=len(record['captions']))


def _append(tar: bytearray, name: str, content: bytes) -> tuple[int, int]:
    """Append a member; returns the offset and size of its content."""
    info = tarfile.TarInfo(name)  # owner, time and mode are constants, so bytes depend on content only
    info.size = len(content)
    tar += info.tobuf(tarfile.USTAR_FORMAT)
    offset = len(tar)
    tar += content
    tar += bytes(-len(content) % tarfile.BLOCKSIZE)
    return offset, len(content)
