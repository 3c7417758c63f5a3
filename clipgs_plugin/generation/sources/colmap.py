"""Source of posed images with a sparse model of COLMAP, text or binary.

The files are parsed here, since pycolmap 4.2 trusts the counts of binary files: of 169 damaged models it read 25 until
memory was refused at 6 GiB and 9 for more than 15 s, and it accepts a truncated cameras.bin.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.objects import Points
from clipgs_plugin.generation.sources.lens_distortion import CAMERA_MODELS, UNDISTORT_REMEDY, Lens
from clipgs_plugin.generation.sources.posed_images import PosedSource, View, find_mask, image_size, scale_camera
from clipgs_plugin.ops.camera_conventions import viewmats_from_colmap
from clipgs_plugin.registry import TASK_UTILS

CAMERA_FILES = ('cameras.bin', 'cameras.txt')
MODEL_FOLDERS = ('sparse/0', 'sparse', '')
_IMAGES, _MAX_NAME = 'images', 1000
# Indexed by the model id of binary files.
_MODEL_IDS = ('SIMPLE_PINHOLE', 'PINHOLE', 'SIMPLE_RADIAL', 'RADIAL', 'OPENCV', 'OPENCV_FISHEYE', 'FULL_OPENCV', 'FOV',
              'SIMPLE_RADIAL_FISHEYE', 'RADIAL_FISHEYE', 'THIN_PRISM_FISHEYE', 'RAD_TAN_THIN_PRISM_FISHEYE')


@TASK_UTILS.register_module()
class ColmapSource(PosedSource):
    """Folders with a COLMAP model in ``sparse/0``, ``sparse`` or the folder itself, and its images in ``images``.

    Alpha or masks separate the object from its surroundings. The mask of ``images/a.jpg`` is ``masks/a.jpg.png``, as
    in COLMAP, or ``masks/a.png``; if the folder of masks exists, every image needs one. The points of the model are
    read as well. Camera models are all but ``FOV`` and the thin prisms. Images may be smaller than the model states.

    Args:
        up: Up axis of the files. COLMAP does not define one; photographs taken upright give about -y.
        size, max_views: As in :class:`~.posed_images.PosedSource`.

    Source: Schoenberger and Frahm, "Structure-from-Motion Revisited", 2016; the format as COLMAP documents it.
    """

    def __init__(self, up: str = '-y', size: int | None = 512, max_views: int | None = 100) -> None:
        super().__init__(up, size, max_views)

    def _is_object(self, folder: Path) -> bool:
        return _find_model(folder) is not None

    def _object_folder(self, path: Path) -> Path:
        """Return the folder of an object, given that folder, its model's or its camera file."""
        folder = super()._object_folder(path)
        for parts in (('sparse', '0'), ('sparse',)):
            if folder.parts[-len(parts):] == parts:
                return folder.parents[len(parts) - 1]
        return folder

    def _read_cameras(self, folder: Path) -> list[View]:
        found = _find_model(folder)
        if found is None:
            raise FileNotFoundError(f'{folder}: no cameras and images, .bin or .txt, in sparse/0, sparse or the folder '
                                    'itself')
        model, ending = found
        binary = ending == '.bin'
        cameras = (_read_binary_cameras if binary else _read_text_cameras)(model / f'cameras{ending}')
        poses = (_read_binary_poses if binary else _read_text_poses)(model / f'images{ending}')
        views = []
        for pose in sorted(poses, key=lambda pose: pose.name):
            if pose.camera not in cameras:
                raise ValueError(f'{model / f"images{ending}"}: {pose.name} has camera {pose.camera}, which '
                                 f'cameras{ending} does not define')
            camera = cameras[pose.camera]
            path = folder / _IMAGES / pose.name
            if not path.is_file():
                raise FileNotFoundError(f'{path}: the model names this image, which does not exist')
            size = image_size(path)
            views.append(View(path, find_mask(folder, pose.name), size, _viewmat(model, pose),
                              scale_camera(path, camera.focal, camera.center, camera.size, size), camera.lens))
        return views

    def _read_points(self, folder: Path) -> Points | None:
        model, ending = _find_model(folder)
        file = model / f'points3D{ending}'
        if not file.is_file():
            return None
        rows = (_read_binary_points if ending == '.bin' else _read_text_points)(file)
        if not len(rows):
            return None
        if not np.isfinite(rows).all():
            raise ValueError(f'{file}: some points are not finite')
        return Points(rows[:, :3].astype(np.float32), (rows[:, 3:] / 255).astype(np.float32))


class _Camera(NamedTuple):
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]
    lens: Lens | None


class _Pose(NamedTuple):
    name: str
    camera: int
    quat: tuple[float, ...]                  # wxyz, world to camera
    translation: tuple[float, ...]


def _find_model(folder: Path) -> tuple[Path, str] | None:
    """Find the folder of the model and the ending of its files."""
    for model in MODEL_FOLDERS:
        for ending in ('.bin', '.txt'):  # COLMAP prefers binary files as well
            if all((folder / model / f'{name}{ending}').is_file() for name in ('cameras', 'images')):
                return folder / model, ending
    return None


def _parameter_names(where: str, model: str) -> tuple[str, ...]:
    if model not in CAMERA_MODELS:
        raise ValueError(f'{where}: camera model {model[:100]}, expected one of {", ".join(CAMERA_MODELS)}; '
                         f'{UNDISTORT_REMEDY}')
    return CAMERA_MODELS[model]


def _make_camera(where: str, model: str, size: tuple[int, int], values: Sequence[float]) -> _Camera:
    names = _parameter_names(where, model)
    if len(values) != len(names):
        raise ValueError(f'{where}: {len(values)} parameters for a {model}, expected {len(names)}: {", ".join(names)}')
    named = dict(zip(names, values))
    focal = (named['f'], named['f']) if 'f' in named else (named['fx'], named['fy'])
    if not (np.isfinite(values).all() and min(*focal, *size) > 0):
        raise ValueError(f'{where}: {model} of {size[0]} x {size[1]} pixels with {list(values)}, expected finite '
                         'numbers, and focal lengths and sizes above 0')
    lens = Lens.from_coefficients(named, model.endswith('FISHEYE'))
    return _Camera(focal, (named['cx'], named['cy']), size, lens)


def _viewmat(model: Path, pose: _Pose) -> ndarray:
    """Convert a pose to a matrix (4, 4), world to camera."""
    quat, translation = (torch.tensor(values, dtype=torch.float64) for values in (pose.quat, pose.translation))
    if not (quat.isfinite().all() and translation.isfinite().all() and quat.norm() > 1e-6):
        raise ValueError(f'{model}: the camera of {pose.name} has quaternion {list(pose.quat)} and translation '
                         f'{list(pose.translation)}, expected finite numbers and a quaternion that is not zero')
    return viewmats_from_colmap(quat, translation).numpy()


# Text files

def _text_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the position and the text of every line except comments."""
    try:
        text = file.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f'{file}: not text ({error})') from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith('#'):
            yield f'{file}, line {number}', line.strip()


def _parse_numbers(where: str, fields: Sequence[str], count: int, kind: type = float) -> tuple:
    try:
        values = tuple(kind(field) for field in fields[:count])
    except ValueError:
        values = ()
    if len(values) < count:
        raise ValueError(f'{where}: expected {count} numbers, got {" ".join(fields[:count])[:100]!r}')
    return values


def _read_text_cameras(file: Path) -> dict[int, _Camera]:
    cameras = {}
    for where, line in _text_lines(file):
        if line:
            fields = line.split()
            if len(fields) < 4:
                raise ValueError(f'{where}: expected a number, model, width, height and parameters, got {line[:100]!r}')
            _parameter_names(where, fields[1])
            number, width, height = _parse_numbers(where, [fields[0], *fields[2:4]], 3, int)
            values = _parse_numbers(where, fields[4:], len(fields) - 4)
            cameras[number] = _make_camera(where, fields[1], (width, height), values)
    return cameras


def _read_text_poses(file: Path) -> list[_Pose]:
    poses = []
    lines = _text_lines(file)
    for where, line in lines:
        if not line:
            continue
        fields = line.split(maxsplit=9)
        if len(fields) != 10:
            raise ValueError(f'{where}: expected a number, quaternion, translation, camera and name, got '
                             f'{line[:100]!r}')
        pose = _parse_numbers(where, fields[1:], 7)
        (camera,) = _parse_numbers(where, fields[8:], 1, int)
        poses.append(_Pose(fields[9], camera, pose[:4], pose[4:]))
        where, line = next(lines, (where, ''))  # keypoints in threes, possibly none
        if len(line.split()) % 3:
            raise ValueError(f'{where}: expected the keypoints of {fields[9]}, three numbers each or an empty line, '
                             f'got {line[:60]!r}')
    return poses


def _read_text_points(file: Path) -> ndarray:
    rows = [_parse_numbers(where, line.split()[1:7], 6) for where, line in _text_lines(file) if line]
    return np.array(rows, np.float64).reshape(-1, 6)


# Binary files

class _Reader:
    """Reader of a little-endian file that checks every length against the file."""

    def __init__(self, file: Path) -> None:
        self.file, self.data, self.position = file, file.read_bytes(), 0

    def skip(self, count: int) -> int:
        """Advance, and return the position before."""
        start = self.position
        if count > len(self.data) - start:
            raise ValueError(f'{self.file}: ends in the middle, after {len(self.data)} bytes; it is probably '
                             'truncated, copy it again')
        self.position += count
        return start

    def take(self, layout: str) -> tuple:
        return struct.unpack_from(f'<{layout}', self.data, self.skip(struct.calcsize(f'<{layout}')))

    def records(self) -> Iterator[int]:
        """Iterate over the number of records that the file begins with, and check that the last one ends it."""
        yield from range(self.take('Q')[0])
        if self.position != len(self.data):
            raise ValueError(f'{self.file}: {len(self.data) - self.position} bytes follow the last record; it is '
                             'damaged or of another version')

    def text(self) -> str:
        end = self.data.find(b'\0', self.position)
        start = self.skip((end if end >= 0 else len(self.data)) + 1 - self.position)
        if end - start > _MAX_NAME:
            raise ValueError(f'{self.file}: the name of an image has {end - start} bytes; it is damaged')
        try:
            return self.data[start:end].decode('utf-8')
        except UnicodeDecodeError as error:
            raise ValueError(f'{self.file}: the name of an image is not text ({error}); it is damaged') from error


def _read_binary_cameras(file: Path) -> dict[int, _Camera]:
    reader, cameras = _Reader(file), {}
    for _ in reader.records():
        number, model, width, height = reader.take('IiQQ')
        where = f'{file}: camera {number}'
        name = _MODEL_IDS[model] if 0 <= model < len(_MODEL_IDS) else f'number {model}'
        values = reader.take(f'{len(_parameter_names(where, name))}d')
        cameras[number] = _make_camera(where, name, (width, height), values)
    return cameras


def _read_binary_poses(file: Path) -> list[_Pose]:
    reader, poses = _Reader(file), []
    for _ in reader.records():
        _, *pose, camera = reader.take('I7dI')
        poses.append(_Pose(reader.text(), camera, tuple(pose[:4]), tuple(pose[4:])))
        reader.skip(24 * reader.take('Q')[0])  # keypoints: x, y and the number of a point
    return poses


def _read_binary_points(file: Path) -> ndarray:
    reader, rows = _Reader(file), []
    for _ in reader.records():
        _, *row, _, track = reader.take('Q3d3BdQ')
        rows.append(row)
        reader.skip(8 * track)  # images that see the point
    return np.array(rows, np.float64).reshape(-1, 6)
