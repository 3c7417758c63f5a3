"""Source of posed images in the layouts of NeRF, instant-ngp and nerfstudio."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.objects import Points
from clipgs_plugin.generation.sources.lens_distortion import CAMERA_MODELS, UNDISTORT_REMEDY, Lens
from clipgs_plugin.generation.sources.points import read_points
from clipgs_plugin.generation.sources.posed_images import PosedSource, View, find_mask, image_size, scale_camera
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.ops.camera_conventions import viewmats_from_nerf
from clipgs_plugin.registry import TASK_UTILS

CAMERA_FILES = ('transforms.json', 'transforms_train.json', 'transforms_val.json', 'transforms_test.json')
_MAX_NAME, _MODEL = 1000, (str, None)
_ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.PNG', '.JPG', '.JPEG')  # tried for names without an ending


@TASK_UTILS.register_module()
class NerfSource(PosedSource):
    """Folders with a ``transforms.json`` (instant-ngp, nerfstudio) or a ``transforms_train.json`` (NeRF's own scenes).

    Read from a frame, or else from its file: the focal lengths (``fl_x``, ``fl_y``, or ``camera_angle_x``,
    ``camera_angle_y``), ``cx``, ``cy``, ``w``, ``h`` and the lens distortion (``k1``, ``k2``, ``k3``, ``p1``, ``p2``;
    ``k1`` to ``k4`` if ``camera_model`` is ``OPENCV_FISHEYE`` or ``is_fisheye`` is set). Read from a frame:
    ``transform_matrix`` (camera to world, OpenGL axes), ``file_path``, with or without its ending, and ``mask_path``.
    Read from a file: ``ply_file_path``, a point cloud. Images may be smaller than ``w`` and ``h``.

    Alpha or ``mask_path`` separate the object from its surroundings. If no frame names a mask, a folder ``masks`` may
    hold one for every image: ``masks/a.png`` or ``masks/a.jpg.png`` for ``images/a.jpg``.

    Args:
        splits: Files ``transforms_SPLIT.json`` of NeRF's own scenes to read in this order; missing ones are skipped.
        up, size, max_views: As in :class:`~.posed_images.PosedSource`.

    Sources: Mildenhall et al., "NeRF", 2020; Mueller et al., "Instant Neural Graphics Primitives", 2022; Tancik et
    al., "Nerfstudio", 2023.
    """

    def __init__(self, splits: Sequence[str] = ('train',), up: str = 'z', size: int | None = 512,
                 max_views: int | None = 100) -> None:
        super().__init__(up, size, max_views)
        if isinstance(splits, str) or not splits:
            raise ValueError(f"splits={splits!r}: expected a list of names such as ['train', 'test']")
        self.splits = tuple(splits)

    def _is_object(self, folder: Path) -> bool:
        return any((folder / name).is_file() for name in CAMERA_FILES)

    def _read_scenes(self, folder: Path) -> Iterator[tuple[Path, dict]]:
        """Read the camera files of an object; ``frames`` of each is a list of dicts."""
        if (folder / 'transforms.json').is_file():
            files = [folder / 'transforms.json']
        else:
            files = [file for split in self.splits if (file := folder / f'transforms_{split}.json').is_file()]
        if not files:
            raise FileNotFoundError(f'{folder}: no transforms.json, and no transforms_SPLIT.json for '
                                    f'splits={list(self.splits)}; name the splits it has')
        for file in files:
            scene = read_json(file, schema={'frames': [{'camera_model?': _MODEL}], 'camera_model?': _MODEL})
            yield file, scene

    def _read_cameras(self, folder: Path) -> list[View]:
        views = [_read_frame(file, f'{file}: frame {i}', frame, scene) for file, scene in self._read_scenes(folder)
                 for i, frame in enumerate(scene['frames'])]
        if any(view.mask is not None for view in views):
            return views
        return [view._replace(mask=find_mask(folder, _name_in_images(view.path, folder))) for view in views]

    def _read_points(self, folder: Path) -> Points | None:
        for file, scene in self._read_scenes(folder):
            if scene.get('ply_file_path'):
                path = _find_file(file, str(file), scene, 'ply_file_path', ())
                try:
                    return read_points(path)
                except ValueError as error:
                    raise ValueError(f'{file}: its ply_file_path cannot be read: {error}') from error
        return None


def _name_in_images(path: Path, folder: Path) -> str:
    """Return the path of an image below the first folder, which its mask is named after."""
    if not path.is_relative_to(folder):
        return path.name
    first, *rest = path.relative_to(folder).parts
    return '/'.join(rest) or first


def _read_frame(file: Path, where: str, frame: dict, scene: dict) -> View:
    merged = {**scene, **frame}
    path = _find_file(file, where, frame, 'file_path')
    mask = _find_file(file, where, frame, 'mask_path') if frame.get('mask_path') else None
    try:
        size = image_size(path)
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error
    declared = tuple(int(_positive(where, merged, key)) if key in merged else pixels
                     for key, pixels in zip('wh', size))
    center = [_positive(where, merged, key) if key in merged else pixels / 2
              for key, pixels in zip(('cx', 'cy'), declared)]
    focal_x = _focal_length(where, frame, scene, 'x', declared[0])
    if focal_x is None:
        raise ValueError(f"{where}: neither 'fl_x' nor 'camera_angle_x' in the frame or the file")
    focal = (focal_x, _focal_length(where, frame, scene, 'y', declared[1]) or focal_x)
    return View(path, mask, size, _read_viewmat(where, frame), scale_camera(path, focal, center, declared, size),
                _read_lens(where, merged))


def _focal_length(where: str, frame: dict, scene: dict, axis: str, pixels: int) -> float | None:
    """Return a focal length in pixels; the frame, however it states it, comes before the file."""
    for level in (frame, scene):
        if f'fl_{axis}' in level:
            return _positive(where, level, f'fl_{axis}')
        if f'camera_angle_{axis}' in level:
            return 0.5 * pixels / math.tan(0.5 * _positive(where, level, f'camera_angle_{axis}'))
    return None


def _read_lens(where: str, merged: dict) -> Lens | None:
    """Return the lens of a frame merged with its file; None for a pinhole camera."""
    model = merged.get('camera_model') or 'OPENCV'
    if model not in CAMERA_MODELS:
        raise ValueError(f'{where}: camera_model is {model!r}, expected one of {", ".join(CAMERA_MODELS)}; '
                         f'{UNDISTORT_REMEDY}')
    fisheye = 'FISHEYE' in model or bool(merged.get('is_fisheye'))
    coefficients = {key: _finite(where, merged, key) for key in Lens._fields[1:] if merged.get(key) is not None}
    if not fisheye and model != 'FULL_OPENCV' and any(coefficients.get(key) for key in ('k4', 'k5', 'k6')):
        raise ValueError(f'{where}: k4, k5 and k6 differ in meaning between programs; set camera_model to '
                         "'FULL_OPENCV' or 'OPENCV_FISHEYE', or leave them out")
    return Lens.from_coefficients(coefficients, fisheye)


def _positive(where: str, level: dict, key: str) -> float:
    value = _finite(where, level, key)
    if value <= 0:
        raise ValueError(f'{where}: {key!r} is {value:g}, expected a number above 0')
    return value


def _finite(where: str, level: dict, key: str) -> float:
    value = level[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f'{where}: {key!r} is {value!r:.100}, expected a number')
    return float(value)


def _find_file(file: Path, where: str, level: dict, key: str, endings: Sequence[str] = _ENDINGS) -> Path:
    """Find the file that a frame names relative to its camera file, with or without its ending."""
    name = level.get(key)
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise ValueError(f'{where}: {key!r} is {name!r:.100}, expected the name of a file')
    path = file.parent / name.replace('\\', '/')
    for ending in ('', *endings):
        if (found := path.with_name(path.name + ending)).is_file():
            return found
    tried = f', nor with {" ".join(endings)} appended' if endings else ''
    raise FileNotFoundError(f'{where}: {key} {name!r} does not exist: no file {path}{tried}')


def _read_viewmat(where: str, frame: dict) -> ndarray:
    """Convert camera to world in OpenGL axes to world to camera in OpenCV axes, (4, 4)."""
    if 'transform_matrix' not in frame:
        raise ValueError(f"{where}: no 'transform_matrix'")
    try:
        matrix = np.array(frame['transform_matrix'], np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)) or not np.isfinite(matrix).all():
        raise ValueError(f"{where}: 'transform_matrix' is {frame['transform_matrix']!r:.100}, expected 4 x 4 "
                         'finite numbers')
    viewmat = viewmats_from_nerf(torch.from_numpy(matrix)).numpy()
    rotation = viewmat[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise ValueError(f"{where}: 'transform_matrix' shears or mirrors its camera, expected a rotation")
    return viewmat
