"""Thumbnails: a picture of an object, and a strip of views all around it, rendered once."""
from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clipgs_plugin.app.objects import IndexedObjects
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.ops.cameras import intrinsics
from clipgs_plugin.ops.rendering import render
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.visualization.turntable import orbit_cameras

VIEWS, SIZE = 12, 128   # views of a strip, and pixels of each
ERRORS = (ValueError, OSError, ImportError, MemoryError)  # of one object, after which the others are drawn
_FOV = 40.0
_FORM = 2               # raised when strips change, so that older ones are not taken


def strip(cloud: GaussianCloud) -> Image.Image:
    """Render an object from a ring of cameras.

    Args:
        cloud: Object with y up.

    Returns:
        Views side by side, VIEWS * SIZE wide, with transparency.
    """
    viewmats, radius = orbit_cameras(cloud, VIEWS, fov_degrees=_FOV)
    cameras = intrinsics(_FOV, SIZE, SIZE).expand(VIEWS, 3, 3)
    with torch.no_grad():
        colors, alphas = render(cloud, viewmats, cameras, SIZE, SIZE, near=0.01 * radius)
    alphas = alphas[..., None].clamp(0, 1)
    colors = (colors / alphas.clamp(min=1 / 255)).clamp(0, 1)
    pixels = (torch.cat([colors, alphas], dim=-1) * 255).round().byte().numpy()  # (V, S, S, 4)
    return Image.fromarray(np.concatenate(list(pixels), axis=1))


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, 'WEBP', quality=75, alpha_quality=70, method=2)
    return buffer.getvalue()


def pictures(cloud: GaussianCloud) -> tuple[bytes, bytes]:
    """Return the files of a still and a strip of an object with y up."""
    views = strip(cloud)
    return _webp(views.crop((0, 0, SIZE, SIZE))), _webp(views)


def still_of(strip_path: Path) -> Path:
    """Return the place of the first view beside a strip, which a browser decodes in a twelfth of the time."""
    return strip_path.with_name(f'{strip_path.stem}.still.webp')


class Thumbnails:
    """Strips of the objects of an index, cached in a folder.

    The name of a strip follows from path, size, time, up axis and preparation of its object, so a changed file is
    drawn anew, and an interrupted run continues. Any number of threads and processes may draw at the same time.

    Args:
        folder: Cache, which is made if it does not exist.
        objects: Objects of the index.
        former: Another cache, which is read only.
    """

    def __init__(self, folder: Path, objects: IndexedObjects, former: Path | None = None) -> None:
        self.folder, self.objects, self.former = folder, objects, former
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, row: int) -> Path:
        """Return the place of an object's strip, whether or not it is drawn.

        Raises:
            OSError, ValueError: See :meth:`IndexedObjects.file`.
        """
        path = self.objects.paths[row] if self.objects.is_in_shard(row) else str(self.objects.file(row).absolute())
        found = os.stat(os.path.dirname(path) if self.objects.is_in_shard(row) else path)
        key = f'{_FORM}|{VIEWS}|{SIZE}|{self.objects.ups[row]}|{found.st_size}|{found.st_mtime_ns}|{path}'
        key += f'|{self.objects.preparation}' if self.objects.preparation else ''
        digest = hashlib.sha256(os.fsencode(key)).hexdigest()
        return self.folder / digest[:2] / f'{digest[2:32]}.webp'

    def draw(self, row: int) -> Path:
        """Return the strip of an object, rendered unless it is there.

        Raises:
            OSError, ValueError: The object cannot be read, or the cache not written.
        """
        path = self.path(row)
        if self.former is not None and (former := self.former / path.relative_to(self.folder)).is_file():
            return former
        if not path.is_file():
            still, views = pictures(self.objects.cloud(row))
            path.parent.mkdir(exist_ok=True)
            write_whole(still_of(path), [still])
            write_whole(path, [views])  # the last, which tells that both are there
        return path

    def draw_all(self, rows: Iterable[int], workers: int, done: Callable[[int, Exception | None], None]) -> None:
        """Draw strips in threads; the kernels release the interpreter's lock.

        Args:
            rows: Objects.
            workers: Number of threads.
            done: Called after each object, with the error of one that cannot be drawn.
        """
        waiting = {}
        with ThreadPoolExecutor(workers) as pool:
            try:
                for row in chain(rows, [None]):
                    if row is not None:
                        waiting[pool.submit(self.draw, row)] = row
                    while len(waiting) > (4 * workers if row is not None else 0):
                        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                            error = future.exception()
                            if error is not None and not isinstance(error, ERRORS):
                                raise error
                            done(waiting.pop(future), error)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
