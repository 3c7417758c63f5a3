"""Photographs of objects as queries."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from clipgs_plugin.io.images import read_image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')


def find_photos(root: str | Path, uids: Iterable[str]) -> list[tuple[Path, str]]:
    """Find the photographs of objects, as pairs of path and uid, in the order of their paths.

    The photographs of an object are ``ROOT/UID.jpg`` and all images in the folder ``ROOT/UID``. Those of other objects
    are left out.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: No photograph is of an object.
    """
    root, uids = Path(root), set(uids)
    if not root.is_dir():
        raise FileNotFoundError(f'the folder of photographs {root} does not exist')
    found = []
    for path in sorted(path for path in root.rglob('*') if path.suffix.lower() in SUFFIXES):
        place = path.relative_to(root)
        names = (place.as_posix()[:-len(path.suffix)], place.parent.as_posix())
        found += [(path, name) for name in names if name in uids][:1]
    if not found:
        raise ValueError(f'{root} has no photograph of the {len(uids)} objects, such as {min(uids, default="none")}; '
                         'name them UID.jpg or UID/NAME.jpg')
    return found


@torch.no_grad()
def embed_photos(teacher, paths: list[Path], batch_size: int = 64) -> Tensor:
    """Encode photographs with their EXIF orientation, (n, E) float32 on the CPU.

    Args:
        teacher: Object with ``preprocess`` and ``encode_image``, as :class:`~clipgs_plugin.models.OpenCLIPTeacher`.
        paths: Image files, n of them.
        batch_size: Number of images held at once.
    """
    chunks = [paths[start:start + batch_size] for start in range(0, len(paths), batch_size)]
    return torch.cat([teacher.encode_image(torch.stack([teacher.preprocess(read_image(path)) for path in chunk]))
                      .float().cpu() for chunk in chunks])
