"""Lists of Objaverse-LVIS: those of OpenShape, Uni3D and ULIP-2 name different objects of the same 1,156 classes."""
from __future__ import annotations

from pathlib import Path

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import read_text

# A row is uid, category, and where the list says that the points lie ('' if it does not).
Rows = list[tuple[str, str, str]]


def read_lvis_list(path: str | Path) -> Rows:
    """Read the uids, categories and files of a list.

    - OpenShape, ``meta_data/split/lvis.json``: a list of objects with ``uid``, ``category``, ``group``, ``data_path``.
    - Uni3D, ``lvis_testset.txt``: lines ``LABEL,CATEGORY,UID,/PATH.npy``.
    - ULIP-2, ``objaverse_lvis_metadata.json``: ``value_to_key_mapping``, a category by uid. ``lvis.json`` beside it
      maps uids to files; objects that it lacks have no points.

    Raises:
        FileNotFoundError: The list does not exist.
        ValueError: The list is none of the three.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is no file; expected the lvis.json of OpenShape, the lvis_testset.txt of '
                                'Uni3D, or the objaverse_lvis_metadata.json of ULIP-2')
    if path.suffix == '.txt':
        return _read_uni3d(path)
    content = read_json(path)
    if isinstance(content, list):
        content = read_json(path, schema=[{'uid': str, 'category': str, 'data_path?': str}])
        return [(item['uid'], item['category'], item.get('data_path', '')) for item in content]
    if 'value_to_key_mapping' in content:
        return _read_ulip(path)
    raise ValueError(f'{path}: none of the known lists of Objaverse-LVIS; ULIP-2 names the categories in '
                     'objaverse_lvis_metadata.json, and only the files in lvis.json')


def _read_uni3d(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        _, comma, rest = line.strip().partition(',')
        category, uid, file = (rest.rsplit(',', 2) + ['', '', ''])[:3]  # a name may have a comma
        if not comma or not uid or not file:
            raise ValueError(f'{path}: line {number} is {line[:80]!r}, expected LABEL,CATEGORY,UID,/PATH.npy; download '
                             'the list again')
        rows.append((uid, category, file.lstrip('/')))
    return rows


def _read_ulip(path: Path) -> Rows:
    categories = read_json(path, schema={'value_to_key_mapping': dict})['value_to_key_mapping']
    beside = path.with_name('lvis.json')
    files = read_json(beside, schema=dict) if beside.is_file() else {}
    if not all(isinstance(value, str) for value in (*categories.values(), *files.values())):
        raise ValueError(f'{path}: holds categories or files that are not text; download the list again')
    return [(uid, category, files.get(uid, '')) for uid, category in categories.items()]
