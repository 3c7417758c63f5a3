"""Point clouds in numpy's files: tables in ``.npy``, and one cloud or many in ``.npz``."""
from __future__ import annotations

from pathlib import Path

from numpy import ndarray

from clipgs_plugin.generation.sources.point_files import split_columns
from clipgs_plugin.io import arrays as numpy_files

_KEYS = dict(positions=('points', 'xyz', 'positions', 'pos', 'vertices'), colors=('colors', 'rgb', 'color'),
             normals=('normals', 'normal'))


def read_npy(path: Path) -> dict[str, ndarray]:
    """Read a table of 3, 6 or 9 columns.

    Raises:
        ValueError: The file is damaged, pickled, or another table.
    """
    return split_columns(str(path), numpy_files.read_npy(path))


def read_npz(path: Path) -> dict[str, ndarray]:
    """Read an archive of one cloud.

    Raises:
        ValueError: The archive is damaged or holds several clouds.
    """
    arrays = read_arrays(path)
    if arrays['positions'].ndim == 3:
        list_rows(path)  # reports damaged names and labels first
        raise ValueError(f'{path}: holds {len(arrays["positions"])} clouds; list it with PointSource, and load one row')
    return cloud_of(str(path), arrays)


def read_arrays(path: Path) -> dict[str, ndarray]:
    """Read ``positions`` and, if present, ``colors`` and ``normals`` of one cloud or of several.

    Raises:
        ValueError: The archive is damaged, or its arrays do not fit each other.
    """
    keys = numpy_files.npz_keys(path)
    found = {kind: key for kind, choices in _KEYS.items()
             if (key := next((key for key in choices if key in keys), None)) is not None}
    if 'positions' not in found:
        raise ValueError(f'{path}: holds {", ".join(sorted(keys))[:200] or "nothing"}, expected an array named '
                         f'{" or ".join(_KEYS["positions"])}')
    members = numpy_files.read_npz(path, found.values())
    arrays = {kind: members[key] for kind, key in found.items()}
    for kind, array in arrays.items():
        if array.shape[:-1] != arrays['positions'].shape[:-1]:
            raise ValueError(f'{path}: {kind} have shape {array.shape}, the positions {arrays["positions"].shape}')
    return arrays


def cloud_of(where: str, arrays: dict[str, ndarray]) -> dict[str, ndarray]:
    """Return the arrays of one cloud, which may be a single table of several columns."""
    return split_columns(where, arrays['positions']) if len(arrays) == 1 else arrays


def list_rows(path: Path) -> list[tuple[str, str | None]] | None:
    """List the name and the category of each cloud of an archive; None for an archive of one cloud.

    Clouds without ``names`` are named by the file and a number.

    Raises:
        ValueError: The archive is damaged, or ``names`` or ``labels`` do not fit it.
    """
    keys = numpy_files.npz_keys(path)
    position = next((key for key in _KEYS['positions'] if key in keys), None)
    if position is None:
        return None
    shape = numpy_files.npz_shape(path, position)
    if len(shape) != 3:
        return None
    columns = numpy_files.read_npz(path, keys & {'names', 'labels', 'classes'})
    for key in ('names', 'labels'):
        if key in columns and columns[key].shape != shape[:1]:
            raise ValueError(f'{path}: {key} have shape {columns[key].shape}, expected ({shape[0]},), one per cloud')
        if key == 'names' and key in columns and columns[key].dtype.kind not in 'Uiu':
            raise ValueError(f'{path}: names are {columns[key].dtype}, expected text')
    names = [str(name) for name in columns.get('names', [f'{path.stem}_{i:05d}' for i in range(shape[0])])]
    labels, classes = columns.get('labels'), columns.get('classes')
    if labels is not None and labels.dtype.kind == 'U':
        return list(zip(names, map(str, labels)))
    if labels is None or classes is None:
        return [(name, None) for name in names]
    if classes.ndim != 1 or classes.dtype.kind != 'U':
        raise ValueError(f'{path}: classes are {classes.dtype} of shape {classes.shape}, expected a list of names')
    if labels.dtype.kind not in 'iu' or (len(labels) and not 0 <= labels.min() <= labels.max() < len(classes)):
        raise ValueError(f'{path}: labels are {labels.dtype} that do not all lie in 0..{len(classes) - 1}, the rows of '
                         'classes')
    return [(name, str(classes[label])) for name, label in zip(names, labels)]
