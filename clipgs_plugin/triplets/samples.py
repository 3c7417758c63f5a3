"""Encoding of one object as a WebDataset sample: a piece of a tar file and a row of the index."""
from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import encode_gaussians, encode_view, to_json, views_array
from clipgs_plugin.triplets.layout import GAUSSIANS, MAX_UID, RECORD, view_member

MEASURES = ('psnr', 'psnr_foreground', 'ssim')  # entries of a record's quality that the index repeats

UID = re.compile(rf'[A-Za-z0-9_-]{{1,{MAX_UID}}}')
_NUMBER = (float, None)
_RECORD = dict(uid=str, captions=[dict(text=str)], category=(str, None), split=str, num_gaussians=int,
               quality={f'{name}?': _NUMBER for name in MEASURES})


@dataclass(frozen=True)
class Sample:
    """Encoded object, which any process may make and a :class:`~clipgs_plugin.triplets.ShardWriter` copies.

    Attributes:
        data: Members in the tar format, with headers and padding.
        row: Row of the index without the shard; offsets count from the start of ``data``.
    """

    data: bytes
    row: dict

    def row_in(self, shard: int, start: int) -> dict:
        """Return the row of the index for ``data`` at byte ``start`` of a shard."""
        row = dict(self.row, shard=shard, view_offsets=[start + offset for offset in self.row['view_offsets']])
        return row | {name: start + row[name] for name in ('gaussians_offset', 'record_offset')}


def encode_sample(uid: str, gaussians: GaussianCloud, views=(), *, captions: Iterable[str | dict],
                  category: str | None = None, split: str = 'train', source: dict | None = None,
                  quality: dict | None = None, attributes: dict | None = None, cameras: str = 'dataset',
                  sh_degree: int = 0, dtype: str = 'float16', webp_quality: int | None = 90) -> Sample:
    """Check an object and encode it.

    Args:
        uid: 1 to 78 letters, digits, ``_`` or ``-``; unique in the dataset.
        gaussians: Gaussians of the object, in the dataset's frame.
        views: sRGB images, (V, H, W, 3) uint8; V is the same for all objects of a dataset.
        captions: At least one text, or ``dict(text=..., source=...)`` with its author.
        category: Class name, or None.
        split: ``'train'``, ``'val'``, ``'test'`` or another name.
        source: Origin of the object (file, licence, author, ...).
        quality: Measurements by name, e.g. ``dict(psnr=36.2)``. The index repeats ``psnr`` and ``psnr_foreground``, in
            dB, and ``ssim``.
        attributes: Any other metadata, as JSON.
        cameras: Cameras of the views: ``'dataset'`` for the cameras in ``dataset.json``, ``'own'`` for
            ``source['cameras']``.
        sh_degree: SH degree of the stored Gaussians; lower degrees are filled with zeros, higher degrees are cut.
        dtype: Argument of :func:`~clipgs_plugin.triplets.codecs.encode_gaussians`.
        webp_quality: Argument of :func:`~clipgs_plugin.triplets.codecs.encode_view`.

    Raises:
        ValueError: A name, shape or value does not fit the format.
    """
    if not UID.fullmatch(uid):
        raise ValueError(f'uid {uid!r}: expected 1 to {MAX_UID} letters, digits, "_" or "-" (a dot or slash would '
                         'split the name of a tar member)')
    captions = [dict(text=c, source=None) if isinstance(c, str) else {'source': None, **c} for c in captions]
    if not captions or not all(isinstance(c.get('text'), str) and c['text'].strip() for c in captions):
        raise ValueError(f'{uid}: captions {captions!r}, expected at least one, none empty')
    invalid = {name: value for name, value in (quality or {}).items()
               if name in MEASURES and not isinstance(value, int | float | None)}
    if invalid:
        raise ValueError(f'{uid}: quality {invalid!r}, expected numbers or None')
    cloud = encode_gaussians(gaussians.with_sh_degree(sh_degree), dtype)
    encoded_views = [encode_view(view, webp_quality) for view in views_array(views)]
    record = dict(
        uid=uid, captions=captions, category=category, split=split, source=source or {}, quality=quality or {},
        attributes=attributes or {}, cameras=cameras, num_gaussians=len(gaussians), num_views=len(encoded_views),
        sha256=content_hash([cloud, *encoded_views]))
    data, row = bytearray(), dict(uid=uid, **index_fields(record))
    row['gaussians_offset'], row['gaussians_size'] = _append(data, f'{uid}.{GAUSSIANS}', cloud)
    members = [_append(data, f'{uid}.{view_member(i)}', view) for i, view in enumerate(encoded_views)]
    row['view_offsets'], row['view_sizes'] = [offset for offset, _ in members], [size for _, size in members]
    row['record_offset'], row['record_size'] = _append(data, f'{uid}.{RECORD}', to_json(record))
    return Sample(bytes(data), row)


def content_hash(members: Iterable[bytes]) -> str:
    """Compute the sha256 over an object's Gaussians and views, which its record stores.

    Most changed bytes of a view still decode; the hash finds them.
    """
    digest = hashlib.sha256()
    for content in members:
        digest.update(content)
    return digest.hexdigest()


def parse_record(data: bytes, name: str, uid: str) -> dict:
    """Parse the record of an object and check the fields that this library reads.

    Args:
        data: Bytes of the record.
        name: Beginning of the error messages.
        uid: Name of the object.

    Raises:
        ValueError: The bytes are not JSON, a field is absent or of another type, or the record is of another object.
    """
    record = read_json(data, name, _RECORD)
    if record['uid'] != uid:
        raise ValueError(f'{name} is of object {record["uid"]!r:.100}; the index and the shard do not belong together: '
                         'rebuild the index with clipgs_plugin.triplets.rebuild_index, or download the shard again')
    if not 0 <= record['num_gaussians'] < 2 ** 63:
        raise ValueError(f'{name}: num_gaussians is {record["num_gaussians"]}; download the shard again')
    return record


def index_fields(record: dict) -> dict:
    """Select the fields of a record that the index repeats."""
    return dict(category=record['category'], split=record['split'],
                **{name: record['quality'].get(name) for name in MEASURES},
                num_gaussians=record['num_gaussians'], num_captions=len(record['captions']))


def _append(tar: bytearray, name: str, content: bytes) -> tuple[int, int]:
    """Append a member and return the offset and size of its content."""
    info = tarfile.TarInfo(name)  # owner, time and mode are constant, so the bytes depend on the content alone
    info.size = len(content)
    tar += info.tobuf(tarfile.USTAR_FORMAT)
    offset = len(tar)
    tar += content
    tar += bytes(-len(content) % tarfile.BLOCKSIZE)
    return offset, len(content)
