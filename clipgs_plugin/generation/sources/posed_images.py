"""Common parts of the sources of posed images: folders, masks, and images of one size as one array."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from PIL import Image

from clipgs_plugin.generation.objects import Listed, Points, PosedImages
from clipgs_plugin.generation.sources.base import check_axis
from clipgs_plugin.generation.sources.lens_distortion import Lens, undistort
from clipgs_plugin.generation.sources.listing import list_files
from clipgs_plugin.generation.sources.visual_hull import points_of_object
from clipgs_plugin.io.arrays import one_line

_MAX_STRETCH = 1.05  # images whose aspect ratios differ by more are not brought to one size
_MASKS = 'masks'     # folder below the object's


class View(NamedTuple):
    """An image file and its camera, before the pixels are read."""

    path: Path
    mask: Path | None
    size: tuple[int, int]                    # width and height of the file
    viewmat: ndarray                         # (4, 4) float64, world to camera, OpenCV axes
    intrinsics: ndarray                      # (3, 3) float64, pixels of the file
    lens: Lens | None = None                 # None for a pinhole camera


class PosedSource:
    """Base class of sources whose objects are folders of posed images.

    Args:
        up: Up axis of the files.
        size: Maximum length of the longer side in pixels; larger images and their cameras are scaled down. None keeps
            the sizes.
        max_views: Maximum number of views, sampled evenly; None keeps all.
    """

    suffixes = ()

    def __init__(self, up: str, size: int | None = 512, max_views: int | None = 100) -> None:
        for name, value in (('size', size), ('max_views', max_views)):
            if value is not None and value < 1:
                raise ValueError(f'{name}={value}: expected at least 1, or None')
        self.up = check_axis(up)
        self.size = size
        self.max_views = max_views

    def list(self, root: Path) -> list[Listed]:
        """List the folders at or below ``root`` that hold cameras, by name, without reading them.

        The camera file of an object stands for its folder.

        Raises:
            FileNotFoundError: The folder does not exist.
        """
        root = self._object_folder(Path(root).absolute())
        if not root.is_dir():
            raise FileNotFoundError(f'{root}: no such folder')
        return list_files(root, list(self._find_folders(root)))

    def load(self, listed: Listed) -> PosedImages:
        """Load the images and cameras of an object, in the frame of its files.

        Returns:
            Alpha is the image's own times its mask, 1 without either. Images of a distorting lens are undistorted
            (:func:`~.lens_distortion.undistort`). If masks separate the object from its surroundings, only the points
            of the object are kept.

        Raises:
            ValueError: A file is damaged or incomplete, or has an unknown camera model.
            FileNotFoundError: An image or a mask is missing.
        """
        folder = self._object_folder(listed.path)
        views = self._read_cameras(folder)
        if not views:
            raise ValueError(f'{folder}: its cameras name no images')
        if self.max_views is not None and len(views) > self.max_views:
            views = [views[i * len(views) // self.max_views] for i in range(self.max_views)]
        return points_of_object(read_views(views, self.size)._replace(points=self._read_points(folder)))

    def _object_folder(self, path: Path) -> Path:
        """Return the folder of an object, given that folder or its camera file."""
        return path.parent if path.is_file() and self._is_object(path.parent) else path

    def _find_folders(self, root: Path) -> Iterator[Path]:
        for folder, below, _ in os.walk(root):
            if self._is_object(Path(folder)):
                below.clear()  # deeper folders hold its images
                yield Path(folder)
            below[:] = sorted(name for name in below if not name.startswith('.'))

    def _is_object(self, folder: Path) -> bool:
        """Check for the files of an object."""
        raise NotImplementedError

    def _read_cameras(self, folder: Path) -> Sequence[View]:
        """Read the views of an object, in an order that depends on its files only."""
        raise NotImplementedError

    def _read_points(self, folder: Path) -> Points | None:
        """Read the points that accompany the cameras."""
        raise NotImplementedError


def find_mask(folder: Path, name: str) -> Path | None:
    """Find the mask of an image by the image's name; None if the object has no folder of masks.

    Raises:
        FileNotFoundError: The folder exists and lacks this mask.
    """
    masks = folder / _MASKS
    if not masks.is_dir():
        return None
    for mask in (masks / f'{name}.png', (masks / name).with_suffix('.png'), masks / name):
        if mask.is_file():
            return mask
    raise FileNotFoundError(f'{masks / name}.png: no mask for this image, although {masks} exists; give every image a '
                            'mask, or remove the folder')


def scale_camera(path: Path, focal: Sequence[float], center: Sequence[float], declared: Sequence[int],
                 size: Sequence[int]) -> ndarray:
    """Return the intrinsics (3, 3) of an image whose camera is given for another size of the same aspect ratio.

    Raises:
        ValueError: The aspect ratios differ.
    """
    scale = np.divide(size, declared)
    # Programs that downscale images drop up to a pixel.
    if abs(scale[0] / scale[1] - 1) > 1 / min(size):
        raise ValueError(f'{path}: {size[0]} x {size[1]} pixels, its camera is for {declared[0]} x {declared[1]}, '
                         'another shape; give the original image, or one downscaled as a whole')
    return np.array([[focal[0] * scale[0], 0, center[0] * scale[0]], [0, focal[1] * scale[1], center[1] * scale[1]],
                     [0, 0, 1]])


def image_size(path: Path) -> tuple[int, int]:
    """Read the width and height from the header of an image."""
    with _open_image(path) as image:
        return image.size


def read_views(views: Sequence[View], size: int | None = None) -> PosedImages:
    """Read images into one array of one size, and scale their cameras.

    An image of a distorting lens is undistorted at twice the final size, or at its own if that is smaller.

    Args:
        views: At least one view.
        size: Maximum length of the longer side in pixels. Images of several sizes are brought to the smallest; pixels
            that are no longer square are accounted for by the two focal lengths.

    Raises:
        ValueError: An image is damaged, or the sizes do not fit each other.
    """
    width, height = _common_size(views, size)
    images = np.empty((len(views), height, width, 4), np.float32)
    intrinsics = np.empty((len(views), 3, 3))
    for i, view in enumerate(views):
        pixels, matrix = _read_rgba(view), view.intrinsics
        if view.lens is not None:
            between = [min(given, 2 * wanted) for given, wanted in zip(view.size, (width, height))]
            try:
                pixels, matrix = undistort(_resize(pixels, *between), view.lens, _scale(matrix, view.size, between))
            except ValueError as error:
                raise ValueError(f'{view.path}: {error}') from error
        intrinsics[i] = _scale(matrix, pixels.shape[1::-1], (width, height))
        images[i] = _resize(pixels, width, height)
    with np.errstate(over='ignore'):
        viewmats = np.stack([view.viewmat for view in views]).astype(np.float32)
        intrinsics = intrinsics.astype(np.float32)
    finite = np.isfinite(viewmats).all((1, 2)) & np.isfinite(intrinsics).all((1, 2))
    if not finite.all():
        raise ValueError(f'{views[int(finite.argmin())].path}: its camera has numbers beyond float32; correct the '
                         'camera file')
    return PosedImages(images, viewmats, intrinsics)


def _open_image(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path}: not an image that Pillow reads ({one_line(error)})') from error


def _decode(path: Path, mode: str) -> ndarray:
    """Decode an image to [0, 1], (h, w) or (h, w, channels) float32."""
    with _open_image(path) as image:
        try:
            if image.mode.startswith('I'):  # 16 bits of grey, which Pillow would clip
                grey = (np.asarray(image, np.float32) / 65535).clip(0, 1)
                return grey if mode == 'L' else np.stack([grey, grey, grey, np.ones_like(grey)], -1)
            return np.asarray(image.convert(mode), np.float32) / 255
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f'{path}: damaged image ({one_line(error)})') from error
        except MemoryError as error:
            raise ValueError(f'{path}: {image.width} x {image.height} pixels do not fit into memory; give a smaller '
                             'image') from error


def _read_rgba(view: View) -> ndarray:
    """Read sRGB, not premultiplied, and alpha times the mask, (h, w, 4) float32 in [0, 1]."""
    pixels = _decode(view.path, 'RGBA')
    if view.mask is not None:
        mask = _decode(view.mask, 'L')
        if mask.shape != pixels.shape[:2]:
            raise ValueError(f'{view.mask}: {mask.shape[1]} x {mask.shape[0]} pixels, its image {view.path.name} has '
                             f'{view.size[0]} x {view.size[1]}')
        # Some programs write masks of 0 and 1.
        pixels[..., 3] *= mask > 0 if mask.max() <= 1.5 / 255 else mask
    return pixels


def _resize(pixels: ndarray, width: int, height: int) -> ndarray:
    """Average over the area of each new pixel, (height, width, 4); colours are weighted by alpha."""
    if pixels.shape[:2] == (height, width):
        return pixels
    planes = np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], -1)
    planes = np.stack([Image.fromarray(planes[..., i]).resize((width, height), Image.Resampling.BOX)
                       for i in range(4)], -1).clip(0, 1)
    alpha = planes[..., 3:]
    colors = np.divide(planes[..., :3], alpha, out=np.zeros_like(planes[..., :3]), where=alpha > 0)
    return np.concatenate([colors.clip(0, 1), alpha], -1)


def _common_size(views: Sequence[View], size: int | None) -> tuple[int, int]:
    """Choose the width and height of all images.

    Raises:
        ValueError: The images differ in aspect ratio, or in size while ``size`` is None.
    """
    smallest = min(views, key=lambda view: view.size[0] * view.size[1])
    width, height = smallest.size
    for view in views:
        stretch = view.size[0] * height / (view.size[1] * width)
        differ_in_shape = max(stretch, 1 / stretch) > _MAX_STRETCH
        if differ_in_shape or (size is None and view.size != smallest.size):
            raise ValueError(
                f'images differ in {"shape" if differ_in_shape else "size"}: {smallest.path} has {width} x {height} '
                f'pixels, {view.path} has {view.size[0]} x {view.size[1]}; '
                + ('give images of one shape per object' if differ_in_shape else 'set size=N, the longer side of all'))
    shrink = min(1.0, (size or max(width, height)) / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _scale(intrinsics: ndarray, size: Sequence[int], new: Sequence[int]) -> ndarray:
    """Scale the intrinsics (3, 3) of an image to another width and height."""
    return np.diag([new[0] / size[0], new[1] / size[1], 1.0]) @ intrinsics
