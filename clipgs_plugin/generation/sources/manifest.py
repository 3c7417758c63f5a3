"""Source of objects that a table lists, with their paths and metadata."""
from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from clipgs_plugin import io
from clipgs_plugin.generation.objects import Content, Listed
from clipgs_plugin.generation.rendering.surfaces import turned
from clipgs_plugin.generation.sources import colmap, nerf
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.generation.sources.listing import clean_uid
from clipgs_plugin.io import ply
from clipgs_plugin.io.arrays import one_line
from clipgs_plugin.io.sog import META
from clipgs_plugin.registry import TASK_UTILS

COLUMNS = dict(uid='uid', path='path', category='category', caption='caption', captions='captions', split='split')
SUFFIXES = ('.csv', '.tsv', '.parquet')
_MESHES = ('.glb', '.gltf', '.obj', '.off', '.stl')
_POINTS = ('.pcd', '.npz', '.npy', '.xyz', '.txt')
# Files that make their folder one object, and the source that reads it; the first one present decides.
FOLDER_FILES = {**dict.fromkeys(nerf.CAMERA_FILES, 'NerfSource'),
                **dict.fromkeys(colmap.CAMERA_FILES, 'ColmapSource'), META: 'SplatSource'}
_ENDINGS = re.compile('(' + '|'.join(re.escape(suffix) for suffix in (  # the longest first
    '.compressed.ply', *_MESHES, '.ply', *_POINTS, *io.SUFFIXES)) + ')$', re.IGNORECASE)


@TASK_UTILS.register_module()
class ManifestSource:
    """Objects of a CSV, TSV or Parquet table, one per row; other sources load the files.

    The columns are ``uid``, ``path``, ``category``, ``caption``, ``captions`` (a list; JSON in CSV) and ``split``
    (train by default). The table needs uid or path; other columns become attributes. A path names a file, a folder of
    posed images or a folder of a SOG. Without ``path``, the file or folder below ``files`` that is named after the uid
    is used. A CSV of two columns without a header has Cap3D's layout, uid and caption; rows with the same uid are
    captions of one object.

    A missing file is an error when its object is loaded.

    Args:
        source: Config of the source that loads the files; None selects it by the ending of a file, the header of a
            ``.ply`` and the camera files in a folder.
        files: Folder that relative paths start from; None is the manifest's own.
        columns: Names of columns that differ from the default, such as ``dict(uid='object_id')``.
        only_present: Skip rows whose file does not exist.
        up: Up axis of the files; None is that of ``source``, or the default of the source of each file, from which
            objects are then rotated to y.
    """

    def __init__(self, source: dict | None = None, files: str | Path | None = None,
                 columns: Mapping[str, str] | None = None, only_present: bool = False, up: str | None = None) -> None:
        unknown = sorted(set(columns or {}) - set(COLUMNS))
        if unknown:
            raise ValueError(f'columns names {", ".join(unknown)}, expected {", ".join(COLUMNS)}')
        self.source: Source | None = None if source is None else TASK_UTILS.build(source)
        self.suffixes = SUFFIXES
        self.up = up or (self.source.up if self.source else 'y')
        self._up_is_given = up is not None
        self.files = None if files is None else Path(files)
        self.columns = {**COLUMNS, **(columns or {})}
        self.only_present = only_present
        self._sources: dict[str, Source] = {}

    def list(self, root: Path) -> ManifestRows:
        """List the objects of a manifest, in its order.

        Raises:
            FileNotFoundError: The manifest does not exist.
            ValueError: Another ending, a damaged table, neither uid nor path, or a repeated uid.
        """
        root = Path(root)
        if not root.is_file():
            raise FileNotFoundError(f'{root}: no such manifest')
        if root.suffix.lower() not in SUFFIXES:
            raise ValueError(f'{root}: a manifest ends in {", ".join(SUFFIXES)}')
        table = _read_parquet(root) if root.suffix.lower() == '.parquet' else _read_csv(root, self.columns)
        return self._make_rows(root, table)

    def load(self, listed: Listed) -> Content:
        """Load the file of an object.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: No source reads the file, or it is damaged.
        """
        if not listed.path.exists():
            raise FileNotFoundError(f'{listed.path}: the file of {listed.uid} does not exist; correct the manifest or '
                                    'the folder of files')
        if self.source is not None:
            return self.source.load(listed)
        kind = source_type(listed.path)
        if kind not in self._sources:
            axis = dict(up=self.up) if self._up_is_given else {}
            self._sources[kind] = TASK_UTILS.build(dict(type=f'clipgs_plugin.{kind}', **axis))
        source = self._sources[kind]
        content = source.load(listed)
        return content if source.up == self.up else turned(content, source.up)

    def _make_rows(self, path: Path, table: dict[str, list]) -> ManifestRows:
        """Rename the columns to the library's names, clean and check the uids, and find the files."""
        columns = {field: table.pop(name) for field, name in self.columns.items() if name in table}
        if not {'uid', 'path'} & set(columns):
            raise ValueError(f'{path}: none of its columns {", ".join([*columns, *table])} is {self.columns["uid"]!r} '
                             f'or {self.columns["path"]!r}; name them, columns=dict(uid=...)')
        for field in ('uid', 'path'):
            missing = [i for i, value in enumerate(columns.get(field, ())) if value in (None, '')]
            if missing:
                raise ValueError(f'{path}: {len(missing)} rows have no {field}, the first is row {missing[0] + 1}')
        # Absolute, since the nodes of a cluster have other working directories.
        files = (self.files if self.files is not None else path.parent).absolute()
        if 'uid' not in columns:
            columns['uid'] = [re.sub(r'\.\w+$', '', str(value)).replace('/', '-') for value in columns['path']]
        originals = [str(uid) for uid in columns['uid']]
        uids = columns['uid'] = [clean_uid(uid) for uid in originals]
        _check_distinct(path, uids, originals)
        if uids != originals:
            table['original_uid'] = originals
        if 'path' in columns:
            present = ((files / str(name)).exists() for name in columns['path'])
        else:
            found = _find_by_name(files)
            columns['path'] = [found.get(uid, uid) for uid in originals]
            present = (uid in found for uid in originals)
        order = [i for i, exists in enumerate(present) if exists] if self.only_present else range(len(uids))
        return ManifestRows(files, columns, table, order)


class ManifestRows(Sequence):
    """Rows of a manifest as objects, created on access."""

    def __init__(self, files: Path, columns: dict[str, list], attributes: dict[str, list],
                 order: Sequence[int]) -> None:
        self.files = files
        self.columns = columns
        self.attributes = attributes
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return ManifestRows(self.files, self.columns, self.attributes, self.order[index])
        i = self.order[index]
        row = {field: values[i] for field, values in self.columns.items()}
        attributes = {name: _to_json(values[i]) for name, values in self.attributes.items()}
        return Listed(
            row['uid'], self.files / str(row['path']), _text(row.get('category')),
            tuple(dict(text=text, source='manifest') for text in _texts(row.get('caption'), row.get('captions'))),
            _text(row.get('split')) or 'train',
            {name: value for name, value in attributes.items() if value is not None})

    def __iter__(self) -> Iterator[Listed]:
        return (self[i] for i in range(len(self)))


def source_type(path: Path) -> str:
    """Return the registered source that reads a file, or a folder that is one object.

    Raises:
        ValueError: No source reads it, or a .ply file has no header.
    """
    name = path.name.lower()
    if path.is_dir():
        for file, kind in FOLDER_FILES.items():
            folders = colmap.MODEL_FOLDERS if kind == 'ColmapSource' else ('',)
            if any((path / folder / file).is_file() for folder in folders):
                return kind
        raise ValueError(f'{path}: the folder has none of {", ".join(FOLDER_FILES)}; name a file')
    if name in FOLDER_FILES:
        return FOLDER_FILES[name]
    if name.endswith('.ply') and not name.endswith('.compressed.ply'):
        if path.stat().st_size == 0:
            raise ValueError(f'{path}: the file is empty; download or export it again')
        file = ply.open_ply(path)
        properties = file['vertex'].properties if 'vertex' in file else ()
        if 'f_dc_0' in properties or 'packed_position' in properties:
            return 'SplatSource'
        faces = any(element.name in ('face', 'tristrips') and element.count for element in file.elements)
        return 'MeshSource' if faces else 'PointSource'
    for suffixes, kind in ((_MESHES, 'MeshSource'), (_POINTS, 'PointSource'), (io.SUFFIXES, 'SplatSource')):
        if name.endswith(tuple(suffixes)):
            return kind
    raise ValueError(f'{path}: no source reads this ending; name one, source=dict(type=...)')


def _read_csv(path: Path, columns: Mapping[str, str]) -> dict[str, list]:
    """Read the columns of a text table; values are strings, and None if empty."""
    rows: list[list[str | None]] = []
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            reader = csv.reader(file, delimiter='\t' if path.suffix.lower() == '.tsv' else ',', strict=True)
            for row in filter(None, reader):
                if rows and len(row) != len(rows[0]):
                    raise ValueError(f'{path}, line {reader.line_num}: {len(row)} values, expected {len(rows[0])}; '
                                     'put quotes round values with a comma')
                rows.append([value or None for value in row])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: not a table in UTF-8 ({one_line(error)})') from None
    if not rows:
        raise ValueError(f'{path}: the manifest is empty')
    names = [name or '' for name in rows[0]]
    if set(columns.values()) & set(names):
        if len(set(names)) != len(names):
            raise ValueError(f'{path}: its header {names} names a column twice')
        return {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}
    if len(names) != 2:
        raise ValueError(f'{path}: its header {names} has neither {columns["uid"]!r} nor {columns["path"]!r}; name the '
                         'columns, columns=dict(uid=...)')
    captions: dict[str, list] = {}
    for uid, caption in rows:
        captions.setdefault(uid, []).append(caption)
    return {columns['uid']: list(captions), columns['captions']: list(captions.values())}


def _read_parquet(path: Path) -> dict[str, list]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    try:
        return pq.read_table(path).to_pydict()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: not a Parquet table ({one_line(error)}); it is damaged or has the wrong '
                         'suffix') from None


def _check_distinct(path: Path, uids: Sequence[str], originals: Sequence[str]) -> None:
    first: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for uid, original in zip(uids, originals):
        if uid in first:
            repeated[original if original == first[uid] else f'{first[uid]} and {original}'] = None
        first.setdefault(uid, original)
    if repeated:
        shown = ', '.join(list(repeated)[:5]) + (', ...' if len(repeated) > 5 else '')
        raise ValueError(f'{path}: {len(repeated)} uids are repeated: {shown}; give every object its own (only '
                         'letters, digits, _ and - count)')


def _find_by_name(files: Path) -> dict[str, str]:
    """Map names without an ending to the first file or folder below a folder that is an object.

    A folder that holds a single object is also a name of that object.
    """
    found: dict[str, str] = {}
    single: dict[str, str] = {}
    for folder, below, names in os.walk(files):
        below.sort()
        here = os.path.relpath(folder, files)
        objects = []
        for name in sorted(names):
            if name.lower() in FOLDER_FILES:
                place = re.sub(r'(^|/)sparse(/0)?$', '', here) if name.lower().startswith('cameras') else here
                found.setdefault(os.path.basename(place), place)
            elif ending := _ENDINGS.search(name):
                objects.append(os.path.normpath(os.path.join(here, name)))
                found.setdefault(name[:ending.start()], objects[-1])
        if len(objects) == 1:
            single.setdefault(os.path.basename(here), objects[0])
    return {**single, **found}


def _text(value) -> str | None:
    return None if value in (None, '') else str(value)


def _texts(*columns) -> list[str]:
    """Collect captions from strings, lists, and strings that hold a JSON list."""
    texts: list = []
    for value in (item for column in columns for item in (column if isinstance(column, list) else [column])):
        if isinstance(value, str) and value.lstrip().startswith('['):
            with suppress(json.JSONDecodeError):
                value = json.loads(value)
        texts += value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text.strip() for text in map(_text, texts) if text and text.strip()))


def _to_json(value):
    """Convert a value to what JSON can store: None for NaN and infinity, a string for other types."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
