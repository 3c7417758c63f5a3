"""Contact sheet of a triplet dataset."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from clipgs_plugin.triplets.inspection.strips import Strip, draw_strip
from clipgs_plugin.triplets.reader import ShardReader

if TYPE_CHECKING:
    from PIL import Image

_GAP, _BETWEEN = 12, 4  # pixels between cells, and between the two images of a cell
_TITLE, _TEXT = 20, 17  # font sizes in pixels
_INK, _GREY, _FRAME = (34, 34, 34), (102, 102, 102), (221, 221, 221)


def contact_sheet(triplets: ShardReader | str | Path, count: int = 16, seed: int = 0, columns: int = 4,
                  width: int = 1600) -> Image.Image:
    """Draw many objects of a dataset on one image, each as a stored view beside its Gaussians from the same camera.

    If enough objects have a PSNR on held-out views, the sheet spreads the shown objects evenly over its ranks, from the
    worst to the best, both included; otherwise it draws them at random. It ranks by the PSNR of the foreground, or of
    the whole view if no object has that. The title says which. A caption and the PSNR stand under each object.

    Args:
        triplets: Reader or folder of a complete dataset.
        count: Maximum number of objects.
        seed: Random seed of the choice.
        columns: Number of objects in a row.
        width: Width of the sheet in pixels.

    Returns:
        RGB image on white.

    Raises:
        FileNotFoundError: The folder is not a complete dataset.
        ValueError: A number is out of range, or the dataset has no objects or no views.
    """
    if count < 1 or columns < 1:
        raise ValueError(f'count={count}, columns={columns}: expected at least 1')
    reader = triplets if isinstance(triplets, ShardReader) else ShardReader(triplets)
    if not len(reader) or not reader.num_views:
        raise ValueError(f'{reader.root} contains {len(reader)} objects of {reader.num_views} views: a contact sheet '
                         'needs at least one of each')
    columns = min(columns, count, len(reader))
    side = ((width - _GAP) // columns - _GAP - _BETWEEN) // 2
    if side < 16:
        raise ValueError(f'width={width} leaves {side} pixels per image in {columns} columns: expected at least 16')
    chosen, rule = _choose(reader, count, seed)
    view = reader.num_views // 3  # from the side and a little above, by the camera rule of generation
    strips = [draw_strip(reader.read_record(index), reader.read_gaussians(index), [view],
                         reader.read_views(index, [view]), reader.settings['render']) for index in chosen]
    return _draw_sheet(strips, f'{len(chosen)} of {len(reader):,} objects, {rule}', columns, width, side)


def _choose(reader: ShardReader, count: int, seed: int) -> tuple[list[int], str]:
    """Choose the objects to show and describe the rule of the choice."""
    quality, name = reader.psnr_foreground, 'PSNR of the foreground'
    if np.isnan(quality).all():
        quality, name = reader.psnr, 'PSNR'
    count = min(count, len(quality))
    measured = np.flatnonzero(~np.isnan(quality))
    if len(measured) < count:
        drawn = np.random.default_rng(seed).choice(len(quality), count, replace=False)
        return sorted(drawn.tolist()), f'drawn at random (seed {seed})'
    ranked = measured[quality[measured].argsort(kind='stable')]
    ranks = np.rint(np.linspace(0, len(ranked) - 1, count)).astype(int)
    return ranked[ranks].tolist(), f'evenly over the ranks of {name} on held-out views: the worst first, the best last'


def _draw_sheet(strips: Sequence[Strip], title: str, columns: int, width: int, side: int) -> Image.Image:
    """Draw a title and legend, then a grid of cells."""
    from PIL import Image, ImageDraw, ImageFont
    large, font = ImageFont.load_default(_TITLE), ImageFont.load_default(_TEXT)
    head, words = 2 * _GAP + round(2.7 * _TITLE), round(2.8 * _TEXT)
    cell, pitch = (width - _GAP) // columns, side + words + _GAP
    sheet = Image.new('RGB', (width, head + pitch * -(-len(strips) // columns)), 'white')
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate((title, _legend(strips))):
        draw.text((_GAP, _GAP + round(1.4 * i * _TITLE)), _shorten(line, large, width - 2 * _GAP), _INK, large)
    for i, strip in enumerate(strips):
        x, y = _GAP + i % columns * cell, head + i // columns * pitch
        _draw_image(sheet, strip.views, x, y, side, font)
        _draw_image(sheet, strip.splats, x + side + _BETWEEN, y, side, font)
        for line, (text, ink) in enumerate(((strip.record['captions'][0]['text'], _INK), (_quality(strip), _GREY))):
            text = _shorten(text, font, 2 * side + _BETWEEN)
            draw.text((x, y + side + round((0.2 + 1.2 * line) * _TEXT)), text, ink, font)
    return sheet


def _draw_image(sheet: Image.Image, images: ndarray | None, x: int, y: int, side: int, font) -> None:
    """Draw the first of some images in a framed square, or a note that the cameras are missing."""
    from PIL import Image, ImageDraw, ImageOps
    draw = ImageDraw.Draw(sheet)
    if images is None:
        draw.text((x + side // 2, y + side // 2), 'no cameras', _GREY, font, 'mm')
    else:
        image = ImageOps.contain(Image.fromarray(images[0]), (side, side), Image.Resampling.LANCZOS)
        sheet.paste(image, (x + (side - image.width) // 2, y + (side - image.height) // 2))
    draw.rectangle((x - 1, y - 1, x + side, y + side), outline=_FRAME)


def _legend(strips: Sequence[Strip]) -> str:
    counts = sorted(strip.record['num_gaussians'] for strip in strips)
    gaussians = f'{counts[0]:,}' if counts[0] == counts[-1] else f'{counts[0]:,} to {counts[-1]:,}'
    return f'Left a stored view, right the {gaussians} stored Gaussians from the same camera; under them the PSNR.'


def _quality(strip: Strip) -> str:
    """Describe the quality of an object."""
    quality = strip.record['quality']
    if 'psnr' in quality:
        foreground = f'foreground {quality["psnr_foreground"]:.1f} dB, ' if 'psnr_foreground' in quality else ''
        return f'{foreground}whole view {quality["psnr"]:.1f} dB'
    return 'no quality' if strip.splats is None else f'not fitted; this view {strip.psnr()[0]:.1f} dB'


def _shorten(text: str, font, width: int) -> str:
    """Cut a line of text to ``width`` pixels, with an ellipsis."""
    text = ' '.join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f'{text}…') > width:
        text = text[:-1]
    return f'{text.rstrip()}…'
