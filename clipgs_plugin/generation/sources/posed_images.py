"""Objects given by pictures with known cameras: folders of NeRF's ``transforms.json``, and of COLMAP."""
from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from PIL import Image

from clipgs_plugin.generation.objects import Listed, Points, PosedImages
from clipgs_plugin.generation.sources.base import checked_axis
from clipgs_plugin.generation.sources.listing import list_files
from clipgs_plugin.generation.sources.points import read_points
from clipgs_plugin.generation.sources.undistortion import PARAMETERS, Lens, undistorted
from clipgs_plugin.generation.sources.visual_hull import points_of_object
from clipgs_plugin.registry import TASK_UTILS

_ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.PNG', '.JPG', '.JPEG')  # tried where a frame names none
_MAX_STRETCH = 1.05  # pictures whose shapes differ by more than this are not brought to one size
_UNDISTORT = 'undistort the pictures first (colmap image_undistorter does) and give the cameras that it writes'
_DISTORTION = ('k1', 'k2', 'k3', 'k4', 'k5', 'k6', 'p1', 'p2')
# Files that tell of cameras, by the layout.
CAMERA_FILES = {'nerf': ('transforms.json', 'transforms_train.json', 'transforms_val.json', 'transforms_test.json'),
                'colmap': ('cameras.bin', 'cameras.txt')}


class Picture(NamedTuple):
    """A picture that was found, with its camera, before its pixels are read."""

    path: Path
    mask: Path | None
    size: tuple[int, int]                    # width and height of the file
    viewmat: ndarray                         # (4, 4) float64, world to camera, OpenCV axes
    intrinsics: ndarray                      # (3, 3) float64, pixels of the file
    lens: Lens | None = None                 # where it is no pinhole's


class _PosedSource:
    """What the two layouts share: folders, one an object, and pictures brought to one size.

    Args:
        masks: Folder of the masks, below the object's.
        up: The axis that points up in the files.
        size: Pictures whose longer side has more pixels are made smaller, cameras with them; None leaves them.
        max_views: Where there are more pictures, so many are chosen evenly; None takes all.
    """

    suffixes = ()

    def __init__(self, masks: str, up: str, size: int | None, max_views: int | None):
        for name, value in (('size', size), ('max_views', max_views)):
            if value is not None and value < 1:
                raise ValueError(f'{name}={value}: expected at least 1, or None')
        self.masks = masks
        self.up = checked_axis(up)
        self.size = size
        self.max_views = max_views

    def list(self, root: Path) -> list[Listed]:
        """The folders at or below ``root`` that hold cameras, in the order of their names; nothing of them is read.

        The file of cameras of an object stands for its folder.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        root = self._folder(Path(root).absolute())
        if not root.is_dir():
            raise FileNotFoundError(f'{root}: no such folder')
        return list_files(root, list(self._folders(root)))

    def load(self, listed: Listed) -> PosedImages:
        """The pictures and cameras of an object, in the frame of its files.

        Returns:
            Alpha is the file's own times its mask, 1 where there is neither. Pictures of a lens that bends straight
            lines are made into those of a pinhole (:func:`~.undistortion.undistorted`). Of the points that the file
            has, only the object's are kept where masks tell it from its surroundings.

        Raises:
            ValueError: A file is damaged, lacks something, or has a lens of a model that is not known.
            FileNotFoundError: A picture or a mask is not there.
        """
        folder = self._folder(listed.path)
        pictures = self._pictures(folder)
        if not pictures:
            raise ValueError(f'{folder}: its cameras name no pictures')
        if self.max_views is not None and len(pictures) > self.max_views:
            pictures = [pictures[i * len(pictures) // self.max_views] for i in range(self.max_views)]
        return points_of_object(read_pictures(pictures, self.size)._replace(points=self._points(folder)))

    def _folder(self, path: Path) -> Path:
        """The folder of an object, which the file of its cameras stands for."""
        return path.parent if path.is_file() and self._holds(path.parent) else path

    def _folders(self, root: Path) -> Iterator[Path]:
        for folder, below, _ in os.walk(root):
            if self._holds(Path(folder)):
                below.clear()  # what lies deeper are its pictures
                yield Path(folder)
            below[:] = sorted(name for name in below if not name.startswith('.'))

    def _holds(self, folder: Path) -> bool:
        """Whether a folder is an object."""
        raise NotImplementedError

    def _pictures(self, folder: Path) -> Sequence[Picture]:
        """The pictures of an object, in an order that depends on its files only."""
        raise NotImplementedError

    def _points(self, folder: Path) -> Points | None:
        """The points that came with the cameras."""
        raise NotImplementedError

    def _mask(self, folder: Path, name: str) -> Path | None:
        """The mask of a picture by its name; None where the object has no folder of masks."""
        masks = folder / self.masks
        if not masks.is_dir():
            return None
        for mask in (masks / f'{name}.png', (masks / name).with_suffix('.png'), masks / name):
            if mask.is_file():
                return mask
        raise FileNotFoundError(f'{masks / name}.png: no mask for this picture, although {masks} is there; every '
                                'picture needs one, or none')


@TASK_UTILS.register_module()
class NerfSource(_PosedSource):
    """Folders with a ``transforms.json`` (instant-ngp, nerfstudio) or a ``transforms_train.json`` (NeRF's own scenes).

    Read are the focal lengths (``fl_x``, ``fl_y``, or ``camera_angle_x``, ``camera_angle_y``), ``cx``, ``cy``, ``w``,
    ``h`` and the lens (``k1``, ``k2``, ``k3``, ``p1``, ``p2``; ``k1`` to ``k4`` where ``camera_model`` is
    ``OPENCV_FISHEYE`` or ``is_fisheye`` is set), of the file or of a frame, which goes first, and of each frame
    ``transform_matrix`` (camera to world, OpenGL axes), ``file_path``, with or without its ending, and ``mask_path``;
    ``ply_file_path`` of the file holds points. ``w`` and ``h`` may be those of pictures that were made smaller since.

    What is of the object is told by alpha, by ``mask_path``, or, where no frame names a mask, by a folder of masks
    that holds one for every picture: ``masks/a.png`` or ``masks/a.jpg.png`` for ``images/a.jpg``.

    Args:
        splits: The Blender scenes' files ``transforms_SPLIT.json`` to read, one after the other, those that are there.
        masks: Folder of the masks that no frame names.
        up: The axis that points up in the files.
        size: Pictures whose longer side has more pixels are made smaller, cameras with them; None leaves them.
        max_views: Where there are more pictures, so many are chosen evenly; None takes all.

    Sources: Mildenhall et al., "NeRF", 2020; Mueller et al., "Instant Neural Graphics Primitives", 2022; Tancik et
    al., "Nerfstudio", 2023.
    """

    def __init__(self, splits: Sequence[str] = ('train',), masks: str = 'masks', up: str = 'z',
                 size: int | None = 512, max_views: int | None = 100):
        super().__init__(masks, up, size, max_views)
        if isinstance(splits, str) or not splits:
            raise ValueError(f"splits={splits!r}: expected a list of names such as ['train', 'test']")
        self.splits = tuple(splits)

    def _holds(self, folder: Path) -> bool:
        return any((folder / name).is_file() for name in CAMERA_FILES['nerf'])

    def _scenes(self, folder: Path) -> Iterator[tuple[Path, dict]]:
        """The files of an object and what they hold, with ``frames`` a list of dicts."""
        if (folder / 'transforms.json').is_file():
            files = [folder / 'transforms.json']
        else:
            files = [file for split in self.splits if (file := folder / f'transforms_{split}.json').is_file()]
        if not files:
            raise FileNotFoundError(f'{folder}: no transforms.json, and none of transforms_SPLIT.json for '
                                    f'splits={list(self.splits)}; name the splits it has')
        for file in files:
            try:
                scene = json.loads(file.read_text(encoding='utf-8'))
            except ValueError as error:
                raise ValueError(f'{file}: no JSON ({error})') from error
            frames = scene.get('frames') if isinstance(scene, dict) else None
            if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
                raise ValueError(f"{file}: expected an object with a list of objects 'frames'")
            yield file, scene

    def _pictures(self, folder: Path) -> list[Picture]:
        pictures, named = [], False
        for file, scene in self._scenes(folder):
            for i, frame in enumerate(scene['frames']):
                pictures.append(_nerf_picture(file, f'{file}: frame {i}', frame, scene))
                named = named or pictures[-1].mask is not None
        if named:
            return pictures
        return [picture._replace(mask=self._mask(folder, _below_first(picture.path, folder))) for picture in pictures]

    def _points(self, folder: Path) -> Points | None:
        for file, scene in self._scenes(folder):
            if scene.get('ply_file_path'):
                return read_points(_named(file, str(file), scene, 'ply_file_path', ()))
        return None


def _below_first(path: Path, folder: Path) -> str:
    """The name of a picture in its folder of pictures: what masks are named by."""
    if not path.is_relative_to(folder):
        return path.name
    first, *rest = path.relative_to(folder).parts
    return '/'.join(rest) or first


def _nerf_picture(file: Path, where: str, frame: dict, scene: dict) -> Picture:
    merged = {**scene, **frame}
    lens = _nerf_lens(where, merged)
    path = _named(file, where, frame, 'file_path')
    mask = _named(file, where, frame, 'mask_path') if frame.get('mask_path') else None
    size = _size_of(path)
    declared = tuple(int(_number(where, merged, key)) if key in merged else pixels
                     for key, pixels in zip(('w', 'h'), size))
    focal = []
    for axis, pixels in zip('xy', declared):
        # Whichever the frame says goes before what the file says for all.
        for level in (frame, scene):
            if f'fl_{axis}' in level:
                focal.append(_number(where, level, f'fl_{axis}'))
                break
            if f'camera_angle_{axis}' in level:
                focal.append(0.5 * pixels / math.tan(0.5 * _number(where, level, f'camera_angle_{axis}')))
                break
        else:
            if axis == 'x':
                raise ValueError(f"{where}: neither 'fl_x' nor 'camera_angle_x' in the frame or the file")
            focal.append(focal[0])
    centre = [_number(where, merged, key) if key in merged else pixels / 2
              for key, pixels in zip(('cx', 'cy'), declared)]
    return Picture(path, mask, size, _viewmat_of_opengl(where, frame),
                   _intrinsics(path, focal, centre, declared, size), lens)


def _nerf_lens(where: str, merged: dict) -> Lens | None:
    """The lens of a frame merged with its file."""
    model = merged.get('camera_model') or 'OPENCV'
    if model not in PARAMETERS:
        raise ValueError(f'{where}: camera_model is {model!r}, expected one of {", ".join(PARAMETERS)}; {_UNDISTORT}')
    fisheye = 'FISHEYE' in model or bool(merged.get('is_fisheye'))
    numbers = {key: _finite(where, merged, key) for key in _DISTORTION if merged.get(key) is not None}
    if not fisheye and model != 'FULL_OPENCV' and any(numbers.get(key) for key in ('k4', 'k5', 'k6')):
        raise ValueError(f'{where}: k4, k5 and k6 mean one thing to some programs and another to others; state '
                         "camera_model 'FULL_OPENCV' or 'OPENCV_FISHEYE', or leave them out")
    return Lens.of(numbers, fisheye)


def _number(where: str, level: dict, key: str) -> float:
    value = _finite(where, level, key)
    if value <= 0:
        raise ValueError(f'{where}: {key!r} is {value:g}, expected a number above 0')
    return value


def _finite(where: str, level: dict, key: str) -> float:
    value = level[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f'{where}: {key!r} is {value!r}, expected a number')
    return float(value)


def _named(file: Path, where: str, frame: dict, key: str, endings: Sequence[str] = _ENDINGS) -> Path:
    """The file that a frame names, relative to the file of the frames, its ending left out or not."""
    name = frame.get(key)
    if not isinstance(name, str) or not name:
        raise ValueError(f'{where}: {key!r} is {name!r}, expected the name of a file')
    path = file.parent / name.replace('\\', '/')
    for ending in ('', *endings):
        if (found := path.with_name(path.name + ending)).is_file():
            return found
    tried = f', nor with {" ".join(endings)} after it' if endings else ''
    raise FileNotFoundError(f'{where}: {key} {name!r} is not there: no file {path}{tried}')


def _viewmat_of_opengl(where: str, frame: dict) -> ndarray:
    """World to camera in OpenCV axes, (4, 4), of a frame's camera to world in OpenGL's."""
    try:
        matrix = np.array(frame['transform_matrix'], np.float64)
    except KeyError:
        raise ValueError(f"{where}: no 'transform_matrix'") from None
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)) or not np.isfinite(matrix).all():
        raise ValueError(f"{where}: 'transform_matrix' is {frame['transform_matrix']!r}, expected 4 x 4 finite numbers")
    # A scaled camera sees the same picture.
    axes = matrix[:3, :3] / np.maximum(np.linalg.norm(matrix[:3, :3], axis=0), 1e-12)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3 or np.linalg.det(axes) < 0:
        raise ValueError(f"{where}: 'transform_matrix' does not turn its camera, it shears or mirrors it")
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ axes.T
    viewmat[:3, 3] = -viewmat[:3, :3] @ matrix[:3, 3]
    return viewmat


@TASK_UTILS.register_module()
class ColmapSource(_PosedSource):
    """Folders with a sparse model of COLMAP, text or binary, and its pictures.

    What is of the object is told by alpha, or by masks at ``masks/NAME.png`` for the picture ``images/NAME``
    (``a.jpg.png``, as COLMAP has it, or ``a.png``); where the folder of masks exists every picture has one. The
    model's points come along. Cameras are of any model but ``FOV`` and those of thin prisms.

    Args:
        model: Folder of the model below the object's; by default the first of ``sparse/0``, ``sparse`` and the
            object's own that holds one.
        images: Folder of the pictures; they may be smaller than the model says.
        masks: Folder of the masks.
        up: The axis that points up in the files; COLMAP has none of its own, and sets of photographs that were
            taken upright come out with about -y up.
        size: Pictures whose longer side has more pixels are made smaller, cameras with them; None leaves them.
        max_views: Where there are more pictures, so many are chosen evenly; None takes all.

    Source: Schoenberger and Frahm, "Structure-from-Motion Revisited", 2016; the format as COLMAP documents it.
    """

    def __init__(self, model: str | None = None, images: str = 'images', masks: str = 'masks', up: str = '-y',
                 size: int | None = 512, max_views: int | None = 100):
        super().__init__(masks, up, size, max_views)
        self.models = ('sparse/0', 'sparse', '.') if model is None else (model,)
        self.images = images

    def _holds(self, folder: Path) -> bool:
        return self._model(folder) is not None

    def _folder(self, path: Path) -> Path:
        """The folder of an object, which that of its model stands for, too."""
        folder = super()._folder(path)
        for model in map(Path, self.models):
            if model.parts and folder.parts[-len(model.parts):] == model.parts:
                return folder.parents[len(model.parts) - 1]
        return folder

    def _model(self, folder: Path) -> tuple[Path, str] | None:
        """The folder of the model and the ending of its files."""
        for model in self.models:
            for ending in ('.bin', '.txt'):  # COLMAP's own preference where there are both
                if all((folder / model / f'{name}{ending}').is_file() for name in ('cameras', 'images')):
                    return folder / model, ending
        return None

    def _pictures(self, folder: Path) -> list[Picture]:
        found = self._model(folder)
        if found is None:
            raise FileNotFoundError(f'{folder}: no cameras and images, .bin or .txt, in {" or ".join(self.models)}')
        model, ending = found
        binary = ending == '.bin'
        cameras = (_binary_cameras if binary else _text_cameras)(model / f'cameras{ending}')
        poses = (_binary_poses if binary else _text_poses)(model / f'images{ending}')
        pictures = []
        for pose in sorted(poses, key=lambda pose: pose.name):
            if pose.camera not in cameras:
                raise ValueError(f'{model / f"images{ending}"}: {pose.name} is of camera {pose.camera}, which '
                                 f'cameras{ending} does not have')
            camera = cameras[pose.camera]
            path = folder / self.images / pose.name
            if not path.is_file():
                raise FileNotFoundError(f'{path}: the model names this picture, which is not there')
            size = _size_of(path)
            pictures.append(Picture(path, self._mask(folder, pose.name), size, _viewmat_of_pose(model, pose),
                                    _intrinsics(path, camera.focal, camera.centre, camera.size, size), camera.lens))
        return pictures

    def _points(self, folder: Path) -> Points | None:
        model, ending = self._model(folder)
        file = model / f'points3D{ending}'
        if not file.is_file():
            return None
        rows = (_binary_points if ending == '.bin' else _text_points)(file)
        if not len(rows):
            return None
        if not np.isfinite(rows).all():
            raise ValueError(f'{file}: some points are not finite')
        return Points(rows[:, :3].astype(np.float32), (rows[:, 3:] / 255).astype(np.float32))


class _Camera(NamedTuple):
    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    lens: Lens | None


class _Pose(NamedTuple):
    name: str
    camera: int
    quat: tuple[float, ...]                  # wxyz, world to camera
    shift: tuple[float, ...]


# By the number that stands for a model in binary files.
_CAMERA_MODELS = ('SIMPLE_PINHOLE', 'PINHOLE', 'SIMPLE_RADIAL', 'RADIAL', 'OPENCV', 'OPENCV_FISHEYE', 'FULL_OPENCV',
                  'FOV', 'SIMPLE_RADIAL_FISHEYE', 'RADIAL_FISHEYE', 'THIN_PRISM_FISHEYE', 'RAD_TAN_THIN_PRISM_FISHEYE')


def _camera(where: str, model: str, size: tuple[int, int], numbers: Sequence[float]) -> _Camera:
    """A camera of the numbers of its model."""
    names = _parameters(where, model)
    if len(numbers) != len(names):
        raise ValueError(f'{where}: {len(numbers)} numbers for a {model}, expected {len(names)}: {", ".join(names)}')
    named = dict(zip(names, numbers))
    focal = (named['f'], named['f']) if 'f' in named else (named['fx'], named['fy'])
    if not (np.isfinite(numbers).all() and min(*focal, *size) > 0):
        raise ValueError(f'{where}: {model} of {size[0]} x {size[1]} pixels with {list(numbers)}, expected finite '
                         'numbers, focal lengths and sizes above 0')
    return _Camera(focal, (named['cx'], named['cy']), size, Lens.of(named, model.endswith('FISHEYE')))


def _parameters(where: str, model: str) -> tuple[str, ...]:
    """Names of the numbers of a camera model."""
    if model not in PARAMETERS:
        raise ValueError(f'{where}: camera model {model}, expected one of {", ".join(PARAMETERS)}; {_UNDISTORT}')
    return PARAMETERS[model]


def _text_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Every line but comments, without its ends, and where it stands."""
    try:
        text = file.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f'{file}: no text ({error})') from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith('#'):
            yield f'{file}, line {number}', line.strip()


def _numbers(where: str, fields: Sequence[str], count: int, kind: type = float) -> tuple:
    try:
        values = tuple(kind(field) for field in fields[:count])
    except ValueError:
        values = ()
    if len(values) < count:
        raise ValueError(f'{where}: expected {count} numbers, got {" ".join(fields[:count])!r}')
    return values


def _text_cameras(file: Path) -> dict[int, _Camera]:
    cameras = {}
    for where, line in _text_lines(file):
        if line:
            fields = line.split()
            if len(fields) < 4:
                raise ValueError(f'{where}: expected a number, a model, width, height and parameters, got {line!r}')
            _parameters(where, fields[1])
            number, width, height = _numbers(where, [fields[0], *fields[2:4]], 3, int)
            cameras[number] = _camera(where, fields[1], (width, height),
                                      _numbers(where, fields[4:], len(fields) - 4))
    return cameras


def _text_poses(file: Path) -> list[_Pose]:
    poses = []
    lines = _text_lines(file)
    for where, line in lines:
        if not line:
            continue
        fields = line.split(maxsplit=9)
        if len(fields) != 10:
            raise ValueError(f'{where}: expected a number, quaternion, translation, camera and name, got {line!r}')
        pose = _numbers(where, fields[1:], 7)
        (camera,) = _numbers(where, fields[8:], 1, int)
        poses.append(_Pose(fields[9], camera, pose[:4], pose[4:]))
        # The line after it lists points in the picture, in threes; it may be empty.
        where, line = next(lines, (where, ''))
        if len(line.split()) % 3:
            raise ValueError(f'{where}: expected the points of {fields[9]}, three numbers each or an empty line, got '
                             f'{line[:60]!r}')
    return poses


def _text_points(file: Path) -> ndarray:
    rows = [_numbers(where, line.split()[1:7], 6) for where, line in _text_lines(file) if line]
    return np.array(rows, np.float64).reshape(-1, 6)


class _Bytes:
    """A file's bytes, little endian, from the first to the last."""

    def __init__(self, file: Path):
        self.file = file
        self.data = file.read_bytes()
        self.place = 0

    def skip(self, count: int) -> int:
        """Passes over bytes; where they began."""
        start = self.place
        if count > len(self.data) - start:
            raise ValueError(f'{self.file}: ends in the middle, after {len(self.data)} bytes; it is probably '
                             'truncated, copy it again')
        self.place += count
        return start

    def take(self, layout: str) -> tuple:
        return struct.unpack_from(f'<{layout}', self.data, self.skip(struct.calcsize(f'<{layout}')))

    def name(self) -> str:
        end = self.data.find(b'\0', self.place)
        start = self.skip((end if end >= 0 else len(self.data)) + 1 - self.place)
        try:
            return self.data[start:end].decode('utf-8')
        except UnicodeDecodeError as error:
            raise ValueError(f'{self.file}: the name of a picture is no text ({error}); it is damaged') from error

    def end(self) -> None:
        if self.place != len(self.data):
            raise ValueError(f'{self.file}: {len(self.data) - self.place} bytes follow what its counts promise; it is '
                             'damaged or of another version')


def _binary_cameras(file: Path) -> dict[int, _Camera]:
    data = _Bytes(file)
    cameras = {}
    for _ in range(data.take('Q')[0]):
        number, model, width, height = data.take('IiQQ')
        where = f'{file}: camera {number}'
        name = _CAMERA_MODELS[model] if 0 <= model < len(_CAMERA_MODELS) else f'number {model}'
        cameras[number] = _camera(where, name, (width, height), data.take(f'{len(_parameters(where, name))}d'))
    data.end()
    return cameras


def _binary_poses(file: Path) -> list[_Pose]:
    data = _Bytes(file)
    poses = []
    for _ in range(data.take('Q')[0]):
        _, *pose, camera = data.take('I7dI')
        poses.append(_Pose(data.name(), camera, tuple(pose[:4]), tuple(pose[4:])))
        data.skip(24 * data.take('Q')[0])  # points in the picture: x, y, and the number of a point in space
    data.end()
    return poses


def _binary_points(file: Path) -> ndarray:
    data = _Bytes(file)
    rows = []
    for _ in range(data.take('Q')[0]):
        _, *row, _, pictures = data.take('Q3d3BdQ')
        rows.append(row)
        data.skip(8 * pictures)  # which see it
    data.end()
    return np.array(rows, np.float64).reshape(-1, 6)


def _viewmat_of_pose(model: Path, pose: _Pose) -> ndarray:
    """(4, 4) of a quaternion wxyz and a translation."""
    quat, shift = np.array(pose.quat), np.array(pose.shift)
    norm = np.linalg.norm(quat)
    if not (np.isfinite(quat).all() and np.isfinite(shift).all() and norm > 1e-6):
        raise ValueError(f'{model}: the camera of {pose.name} has quaternion {list(pose.quat)} and translation '
                         f'{list(pose.shift)}, expected finite numbers and a quaternion that is not zero')
    w, *axis = quat / norm
    cross = np.cross(np.eye(3), axis)  # rows e_i x axis: the matrix of axis x .
    viewmat = np.eye(4)
    viewmat[:3, :3] += 2 * (w * cross + cross @ cross)
    viewmat[:3, 3] = shift
    return viewmat


def _intrinsics(path: Path, focal: Sequence[float], centre: Sequence[float], declared: Sequence[int],
                size: Sequence[int]) -> ndarray:
    """(3, 3) in the pixels of a picture whose camera was given for another size of the same shape."""
    scale = np.divide(size, declared)
    # Programs that make pictures smaller drop up to a pixel.
    if abs(scale[0] / scale[1] - 1) > 1 / min(size):
        raise ValueError(f'{path}: {size[0]} x {size[1]} pixels, its camera is for {declared[0]} x {declared[1]}, '
                         'another shape; give the picture that the camera took, or one made smaller as a whole')
    return np.array([[focal[0] * scale[0], 0, centre[0] * scale[0]], [0, focal[1] * scale[1], centre[1] * scale[1]],
                     [0, 0, 1]])


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path}: no picture that Pillow reads ({error})') from error


def _size_of(path: Path) -> tuple[int, int]:
    """Width and height, of the file's header alone."""
    with _open(path) as image:
        return image.size


def _decoded(path: Path, mode: str) -> ndarray:
    """Pixels in [0, 1], (h, w) or (h, w, channels) float32."""
    with _open(path) as image:
        try:
            if image.mode.startswith('I'):  # 16 bits of grey, which Pillow would clip
                grey = (np.asarray(image, np.float32) / 65535).clip(0, 1)
                return grey if mode == 'L' else np.stack([grey, grey, grey, np.ones_like(grey)], -1)
            return np.asarray(image.convert(mode), np.float32) / 255
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f'{path}: damaged picture ({error})') from error


def _pixels(picture: Picture) -> ndarray:
    """sRGB, not premultiplied, and alpha, (h, w, 4) float32 in [0, 1]."""
    pixels = _decoded(picture.path, 'RGBA')
    if picture.mask is not None:
        mask = _decoded(picture.mask, 'L')
        if mask.shape != pixels.shape[:2]:
            raise ValueError(f'{picture.mask}: {mask.shape[1]} x {mask.shape[0]} pixels, its picture '
                             f'{picture.path.name} has {picture.size[0]} x {picture.size[1]}')
        # Some programs write 0 and 1 for nothing and all.
        pixels[..., 3] *= mask > 0 if mask.max() <= 1.5 / 255 else mask
    return pixels


def _resized(pixels: ndarray, width: int, height: int) -> ndarray:
    """The mean over the area that each new pixel covers, (height, width, 4); colours count by their alpha."""
    if pixels.shape[:2] == (height, width):
        return pixels
    alpha = pixels[..., 3:]
    planes = np.concatenate([pixels[..., :3] * alpha, alpha], -1)
    planes = np.stack([Image.fromarray(planes[..., i]).resize((width, height), Image.Resampling.BOX)
                       for i in range(4)], -1).clip(0, 1)
    seen = planes[..., 3:] > 0
    colors = np.divide(planes[..., :3], planes[..., 3:], out=np.zeros_like(planes[..., :3]),
                       where=np.broadcast_to(seen, planes[..., :3].shape))
    return np.concatenate([colors.clip(0, 1), planes[..., 3:]], -1)


def _common_size(pictures: Sequence[Picture], size: int | None) -> tuple[int, int]:
    """Width and height to which all pictures are brought.

    Raises:
        ValueError: They differ and no ``size`` is given, or they differ in shape.
    """
    smallest = min(pictures, key=lambda picture: picture.size[0] * picture.size[1])
    width, height = smallest.size
    for picture in pictures:
        if size is None and picture.size != smallest.size:
            raise ValueError(f'pictures differ in size: {smallest.path} has {width} x {height} pixels, {picture.path} '
                             f'has {picture.size[0]} x {picture.size[1]}; give size=N, the longer side of all')
        stretch = picture.size[0] * height / (picture.size[1] * width)
        if max(stretch, 1 / stretch) > _MAX_STRETCH:
            raise ValueError(f'pictures differ in shape: {smallest.path} has {width} x {height} pixels, {picture.path} '
                             f'has {picture.size[0]} x {picture.size[1]}; give pictures of one shape an object')
    shrink = min(1.0, (size or max(width, height)) / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _scaled(intrinsics: ndarray, size: Sequence[int], new: Sequence[int]) -> ndarray:
    """(3, 3) of a camera whose picture of a width and height is brought to others."""
    return np.diag([new[0] / size[0], new[1] / size[1], 1.0]) @ intrinsics


def read_pictures(pictures: Sequence[Picture], size: int | None = None) -> PosedImages:
    """Read pictures into one array, all of one size, their cameras scaled with them.

    Those of a lens become those of a pinhole, at twice the size or their own where that is less, and then at theirs.

    Args:
        pictures: One or more.
        size: Most pixels of the longer side. Pictures of several sizes are brought to the smallest one; pixels
            need not stay square, which the two focal lengths of a camera make good.

    Raises:
        ValueError: A picture is damaged, or sizes do not fit together.
    """
    width, height = _common_size(pictures, size)
    images = np.empty((len(pictures), height, width, 4), np.float32)
    intrinsics = np.empty((len(pictures), 3, 3), np.float32)
    for i, picture in enumerate(pictures):
        pixels, matrix = _pixels(picture), picture.intrinsics
        if picture.lens is not None:
            between = [min(given, 2 * wanted) for given, wanted in zip(picture.size, (width, height))]
            try:
                pixels, matrix = undistorted(_resized(pixels, *between), picture.lens,
                                             _scaled(matrix, picture.size, between))
            except ValueError as error:
                raise ValueError(f'{picture.path}: {error}') from error
        intrinsics[i] = _scaled(matrix, pixels.shape[1::-1], (width, height))
        images[i] = _resized(pixels, width, height)
    viewmats = np.stack([picture.viewmat for picture in pictures]).astype(np.float32)
    return PosedImages(images, viewmats, intrinsics)
