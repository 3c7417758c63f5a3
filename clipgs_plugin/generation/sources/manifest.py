"""Tables that say which objects there are, where they lie, and what is known of them."""
from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clipgs_plugin import io
from clipgs_plugin.generation.objects import Content, Listed
from clipgs_plugin.generation.rendering.surfaces import turned
from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.generation.sources.posed_images import CAMERA_FILES
from clipgs_plugin.io import ply
from clipgs_plugin.io.sog import META
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.triplets.layout import MAX_UID

COLUMNS = dict(uid='uid', path='path', category='category', caption='caption', captions='captions', split='split')
SUFFIXES = ('.csv', '.tsv', '.parquet')
_MESHES = ('.glb', '.gltf', '.obj', '.off', '.stl')
_POINTS = ('.pcd', '.npz', '.npy', '.xyz', '.txt')
# Files that make their folder one object, and the source that reads it; the first decides.
FOLDER_FILES = {**dict.fromkeys(CAMERA_FILES['nerf'], 'NerfSource'),
                **dict.fromkeys(CAMERA_FILES['colmap'], 'ColmapSource'), META: 'SplatSource'}
_MODELS = ('sparse/0', 'sparse', '')
_ENDINGS = re.compile('(' + '|'.join(re.escape(suffix) for suffix in (  # the longest first
    '.compressed.ply', *_MESHES, '.ply', *_POINTS, *io.SUFFIXES)) + ')$', re.IGNORECASE)


@TASK_UTILS.register_module()
class ManifestSource:
    """Objects of a CSV, TSV or Parquet table, one a row; the files are loaded by another source.

    Columns ``uid``, ``path``, ``category``, ``caption``, ``captions`` (a list, in CSV as JSON) and ``split``, of which
    one of uid and path must be there; others are kept as attributes. A path is that of a file, or of a folder of posed
    images or of a SOG. Without ``path`` the file or folder is the one below ``files`` that is named after the uid. A
    CSV of two columns without a header is in Cap3D's layout, uid and caption, and the rows of one uid are its captions.

    A file that is not there is an error when its object is loaded, not before.

    Args:
        source: Config of the source that loads the files; None takes the one of each file's ending: meshes, points
            or splats (which of them a ``.ply`` is, its header says), and of the cameras in a folder.
        files: Folder from which relative paths go; None takes the manifest's own.
        columns: Names of the columns that are called otherwise, ``dict(uid='object_id')``.
        split: Where the table does not say.
        only_present: Leave out the objects without a file, of a table that has more than you have.
        up: The axis that points up in the files; None is that of ``source``, or of each kind of file the one that its
            source takes by itself, from which objects are then turned to y.
    """

    def __init__(self, source: dict | None = None, files: str | Path | None = None,
                 columns: Mapping[str, str] | None = None, split: str = 'train', only_present: bool = False,
                 up: str | None = None) -> None:
        unknown = sorted(set(columns or {}) - set(COLUMNS))
        if unknown:
            raise ValueError(f'columns names {", ".join(unknown)}, expected {", ".join(COLUMNS)}')
        self.source: Source | None = None if source is None else TASK_UTILS.build(source)
        self.suffixes = SUFFIXES
        self.up = up or (self.source.up if self.source else 'y')
        self._up_is_given = up is not None
        self.files = None if files is None else Path(files)
        self.columns = {**COLUMNS, **(columns or {})}
        self.split = split
        self.only_present = only_present
        self._sources: dict[str, Source] = {}

    def list(self, root: Path) -> ManifestRows:
        """The objects of a manifest, in its order.

        Raises:
            FileNotFoundError: No such file.
            ValueError: Another ending, a damaged table, neither uid nor path in it, or a uid twice.
        """
        root = Path(root)
        if not root.is_file():
            raise FileNotFoundError(f'{root}: no such manifest')
        if root.suffix.lower() not in SUFFIXES:
            raise ValueError(f'{root}: a manifest ends in {", ".join(SUFFIXES)}')
        table = _read_parquet(root) if root.suffix.lower() == '.parquet' else self._read_csv(root)
        return self._rows(root, table)

    def load(self, listed: Listed) -> Content:
        """What the file of an object holds.

        Raises:
            FileNotFoundError: It is not there.
            ValueError: No source reads it, or it is damaged.
        """
        if not listed.path.exists():
            raise FileNotFoundError(f'{listed.path}: the file of {listed.uid} is not there; correct the manifest or '
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

    def _read_csv(self, path: Path) -> dict[str, list]:
        """Columns of a text table, every value a string and an empty one None."""
        try:
            with path.open(encoding='utf-8-sig', newline='') as file:
                reader = csv.reader(file, delimiter='\t' if path.suffix.lower() == '.tsv' else ',', strict=True)
                first = next(reader, None)
                if first is None:
                    raise ValueError(f'{path}: the manifest is empty')
                headed = set(self.columns.values()) & set(first)
                if not headed and len(first) != 2:
                    raise ValueError(f'{path}: its header {first} has neither {self.columns["uid"]!r} nor '
                                     f'{self.columns["path"]!r}; name the columns, columns=dict(uid=...)')
                names = first if headed else [self.columns['uid'], self.columns['caption']]
                if len(set(names)) != len(names):
                    raise ValueError(f'{path}: its header {names} names a column twice')
                values: list[list] = [[] for _ in names]
                for row in ([] if headed else [first]):
                    _append(values, row)
                for row in reader:
                    if row and len(row) != len(names):
                        raise ValueError(f'{path}, line {reader.line_num}: {len(row)} values, expected {len(names)}; '
                                         'put quotes round those with a comma')
                    if row:
                        _append(values, row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f'{path}: not a table in UTF-8 ({error})') from None
        return dict(zip(names, values)) if headed else _grouped(self.columns, *values)

    def _rows(self, path: Path, table: dict[str, list]) -> ManifestRows:
        """The table with names of the library's own, uids made fit for files and checked."""
        named = {field: table.pop(name) for field, name in self.columns.items() if name in table}
        if not {'uid', 'path'} & set(named):
            raise ValueError(f'{path}: of its columns {", ".join([*named, *table])} none is {self.columns["uid"]!r} or '
                             f'{self.columns["path"]!r}; name them, columns=dict(uid=...)')
        # Absolute, since nodes of a cluster have other working directories.
        files = (self.files if self.files is not None else path.parent).absolute()
        count = len(next(iter(named.values())))
        for field in ('uid', 'path'):
            missing = [i for i, value in enumerate(named.get(field, ())) if value in (None, '')]
            if missing:
                raise ValueError(f'{path}: {len(missing)} rows have no {field}, the first number {missing[0] + 1}')
        if 'uid' not in named:
            named['uid'] = [re.sub(r'\.\w+$', '', str(value)).replace('/', '-') for value in named['path']]
        originals = [str(uid) for uid in named['uid']]
        uids = [_clean(uid) for uid in originals]
        _refuse_repeated(path, uids, originals)
        by_name = 'path' not in named
        if by_name:
            found = _by_stem(files)
            named['path'] = [found.get(uid, uid) for uid in originals]
            there = [uid in found for uid in originals]
        rows = dict(named, uid=uids)
        attributes = dict(table)
        if uids != originals:
            attributes['original_uid'] = originals
        keep = range(count)
        if self.only_present:
            keep = [i for i in keep if (there[i] if by_name else (files / str(rows['path'][i])).exists())]
        return ManifestRows(files, self.split, rows, attributes, keep)


class ManifestRows(Sequence):
    """The rows of a manifest as objects, made when they are asked for."""

    def __init__(self, files: Path, split: str, columns: dict[str, list], attributes: dict[str, list],
                 order: Sequence[int]) -> None:
        self.files = files
        self.split = split
        self.columns = columns
        self.attributes = attributes
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return ManifestRows(self.files, self.split, self.columns, self.attributes, self.order[index])
        i = self.order[index]
        get = lambda field: self.columns[field][i] if field in self.columns else None  # noqa: E731
        attributes = {name: _plain(values[i]) for name, values in self.attributes.items()}
        return Listed(
            self.columns['uid'][i], self.files / str(get('path')), _text(get('category')),
            tuple(dict(text=text, source='manifest') for text in _texts(get('caption'), get('captions'))),
            _text(get('split')) or self.split, {name: value for name, value in attributes.items() if value is not None})

    def __iter__(self) -> Iterator[Listed]:
        return (self[i] for i in range(len(self)))


def source_type(path: Path) -> str:
    """The registered source that reads a file, or a folder that is one object.

    Raises:
        ValueError: No source reads it, or a .ply without a header.
    """
    name = path.name.lower()
    if path.is_dir():
        for file, kind in FOLDER_FILES.items():
            if any((path / place / file).is_file() for place in (_MODELS if kind == 'ColmapSource' else ('',))):
                return kind
        raise ValueError(f'{path}: the folder has none of {", ".join(FOLDER_FILES)}; name a file')
    if name in FOLDER_FILES:
        return FOLDER_FILES[name]
    if name.endswith('.compressed.ply'):
        return 'SplatSource'
    if name.endswith('.ply'):
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
    raise ValueError(f'{path}: no source is known for this ending; name one, source=dict(type=...)')


def _read_parquet(path: Path) -> dict[str, list]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f'{path}: no Parquet table ({error}); it is damaged or has the wrong suffix') from None
    return {name: table[name].to_pylist() for name in table.column_names}


def _append(values: list[list], row: Sequence[str]) -> None:
    for column, value in zip(values, row):
        column.append(value or None)


def _grouped(columns: Mapping[str, str], uids: list, captions: list) -> dict[str, list]:
    """The rows of each uid as one, in the order of the first."""
    grouped: dict[str, list] = {}
    for uid, caption in zip(uids, captions):
        grouped.setdefault(uid, []).append(caption)
    return {columns['uid']: list(grouped), columns['captions']: list(grouped.values())}


def _clean(uid: str) -> str:
    return re.sub(r'[^A-Za-z0-9_-]+', '_', uid).strip('_')[-MAX_UID:] or 'object'


def _refuse_repeated(path: Path, uids: Sequence[str], originals: Sequence[str]) -> None:
    first: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for uid, original in zip(uids, originals):
        if uid in first:
            repeated[original if original == first[uid] else f'{first[uid]} and {original}'] = None
        first.setdefault(uid, original)
    if repeated:
        shown = ', '.join(list(repeated)[:5]) + (', ...' if len(repeated) > 5 else '')
        raise ValueError(f'{path}: {len(repeated)} uids come more than once: {shown}; give every object its own (only '
                         'letters, digits, _ and - of a uid count)')


def _by_stem(files: Path) -> dict[str, str]:
    """Files and folders below a folder that are objects, by their names without an ending; of several the first.

    A folder with one object has its name as well.
    """
    found: dict[str, str] = {}
    alone: dict[str, str] = {}
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
            alone.setdefault(os.path.basename(here), objects[0])
    return {**alone, **found}


def _text(value) -> str | None:
    return None if value in (None, '') else str(value)


def _texts(caption, captions) -> list[str]:
    """Captions of one and of many; a string that is a JSON list is many."""
    texts: list = []
    for value in (*(caption if isinstance(caption, list) else [caption]),
                  *(captions if isinstance(captions, list) else [captions])):
        if isinstance(value, str) and value.lstrip().startswith('['):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                value = [value]
        texts += value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text.strip() for text in map(_text, texts) if text and text.strip()))


def _plain(value):
    """A value as JSON has it; None for what it has not."""
    if isinstance(value, (str, bool, int, type(None))):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)
