"""Images of any origin, upright."""
from __future__ import annotations

from os import PathLike  # noqa: F401 (of ImageLike)
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipgs_plugin.io.files import refuse_damage

if TYPE_CHECKING:
    from PIL import Image

ImageLike = 'str | PathLike | Image.Image | np.ndarray'


def read_image(image: ImageLike) -> Image.Image:
    """Read an image as upright RGB, by its EXIF orientation.

    Args:
        image: Path, PIL image, or (H, W, 3) uint8 array.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: The path is a folder.
        ValueError: The file is damaged, too large, or no image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError
    if isinstance(image, np.ndarray):
        return Image.fromarray(image).convert('RGB')
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image).convert('RGB')
    if Path(image).is_dir():
        raise IsADirectoryError(f'{image} is a folder, expected an image; name one file in it')
    if not Path(image).is_file():
        raise FileNotFoundError(f'image {image} does not exist')
    try:
        with refuse_damage(Path(image), 'complete image'), Image.open(image) as found:
            return ImageOps.exif_transpose(found).convert('RGB')
    except (Image.DecompressionBombError, MemoryError) as error:
        raise ValueError(f'{image}: damaged or too large ({error}); scale it down or save it again') from error
    except ValueError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise ValueError(f'{image} is not an image that Pillow reads') from error
        raise
