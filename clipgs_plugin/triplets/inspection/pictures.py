"""Stored objects to look at: views beside pictures of the Gaussians from the same cameras, and sheets of many."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.ops import render
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.shards import ShardReader

if TYPE_CHECKING:
    from PIL import Image

AMPLIFIED = 4   # by how much differences are shown larger than they are
_GAP, _BETWEEN = 12, 4                                          # of cells and of the two pictures of one, pixels
_TITLE, _TEXT = 20, 17                                          # heights of letters, pixels
_INK, _GREY, _FRAME = (34, 34, 34), (102, 102, 102), (221, 221, 221)


@dataclass(frozen=True)
class Strip:
    """An object to look at: stored views beside pictures of its stored Gaussians from the same cameras."""

    uid: str
    record: dict
    numbers: tuple[int, ...]        # of the views
    views: ndarray                  # (K, H, W, 3) uint8
    splats: ndarray | None = None   # (K, H, W, 3) uint8, None where the set does not say its cameras

    def psnr(self) -> list[float]:
        """Of each splat view against the stored one, dB, at most 100, K."""
        errors = (self.views.astype(np.float64) - self.splats) / 255
        return [-10 * math.log10(max(float(mse), 1e-10)) for mse in (errors ** 2).mean((1, 2, 3))]

    def difference(self) -> ndarray:
        """``AMPLIFIED`` times the absolute difference, cut at white, (K, H, W, 3) uint8."""
        difference = np.abs(self.views.astype(np.int64) - self.splats)
        return (AMPLIFIED * difference).clip(0, 255).astype(np.uint8)


def draw_strip(record: dict, cloud: GaussianCloud, numbers: Sequence[int], views: ndarray, settings: dict) -> Strip:
    """An object's views beside its Gaussians.

    Args:
        record: Of the object.
        cloud: Its Gaussians.
        numbers: Of K of its views.
        views: These, (K, H, W, 3) uint8.
        settings: ``render`` of ``dataset.json``.

    Raises:
        ValueError: The stored cameras do not match the views.
    """
    cameras = stored_cameras(record, settings, record['num_views'])
    if cameras is None:
        return Strip(record['uid'], record, tuple(numbers), views)
    viewmats, intrinsics = (torch.from_numpy(matrices[list(numbers)]) for matrices in cameras)
    with torch.no_grad():
        drawn, _ = render(cloud, viewmats, intrinsics, views.shape[2], views.shape[1],
                          tuple(settings.get('background', (1.0, 1.0, 1.0))))
    splats = np.rint(drawn.clamp(0, 1).numpy() * 255).astype(np.uint8)
    return Strip(record['uid'], record, tuple(numbers), views, splats)


def stored_cameras(record: dict, settings: dict, count: int) -> tuple[ndarray, ndarray] | None:
    """Of every view, (V, 4, 4) and (V, 3, 3) float32; None where the set does not hold them as matrices.

    Args:
        record: Of an object.
        settings: ``render`` of ``dataset.json``.
        count: V, the views of the object.

    Raises:
        ValueError: Matrices that are no cameras of V views.
    """
    cameras = settings if record['cameras'] == 'dataset' else record['source'].get('cameras', {})
    try:
        if 'viewmats' not in cameras or 'intrinsics' not in cameras:
            return None
        viewmats, intrinsics = (np.array(cameras[name], np.float32) for name in ('viewmats', 'intrinsics'))
    except TypeError as error:
        raise ValueError(f'{cameras!r:.80} are no matrices ({error})') from error
    if intrinsics.shape == (3, 3):
        intrinsics = np.repeat(intrinsics[None], count, axis=0)
    if viewmats.shape != (count, 4, 4) or intrinsics.shape != (count, 3, 3):
        raise ValueError(f'viewmats have shape {viewmats.shape} and intrinsics {intrinsics.shape}, expected '
                         f'{(count, 4, 4)} and {(count, 3, 3)}')
    if not (np.isfinite(viewmats).all() and np.isfinite(intrinsics).all()):
        raise ValueError('NaN or infinite')
    return viewmats, intrinsics


# A sheet of many

def contact_sheet(triplets: ShardReader | str | Path, count: int = 16, seed: int = 0, columns: int = 4,
                  width: int = 1600) -> Image.Image:
    """Many objects on one picture: of each a stored view, its Gaussians from the same camera, a caption and PSNR.

    Where the PSNR of enough objects on held-out views was measured, those shown are spread evenly over its ranks, from
    the worst to the best, both included; else they are drawn at random. The sheet says which. PSNR is that of the
    foreground, or of whole pictures where nobody measured that. Every record is read, and a few objects.

    Args:
        triplets: A finished set, or its folder.
        count: Objects to show; all, where there are fewer.
        seed: Of random ones.
        columns: Objects in a row.
        width: Of the sheet, pixels.

    Returns:
        An RGB image on white.

    Raises:
        FileNotFoundError: The folder is no finished set.
        ValueError: A number out of range, or a set without objects or without views.
    """
    if count < 1 or columns < 1:
        raise ValueError(f'count={count}, columns={columns}: expected at least 1')
    reader = triplets if isinstance(triplets, ShardReader) else ShardReader(triplets)
    if not len(reader) or not reader.num_views:
        raise ValueError(f'{reader.root} holds {len(reader)} objects of {reader.num_views} views: a contact sheet '
                         'needs at least one of each')
    columns = min(columns, count, len(reader))
    side = ((width - _GAP) // columns - _GAP - _BETWEEN) // 2
    if side < 16:
        raise ValueError(f'width={width} leaves {side} pixels a picture in {columns} columns: expected at least 16')
    chosen, told = _chosen(*_quality(reader), count, seed)
    number = reader.num_views // 3  # from the side and a little above, by the rule of generation
    strips = [draw_strip(reader.read_record(index), reader.read_gaussians(index), [number],
                         reader.read_views(index, [number]), reader.settings['render']) for index in chosen]
    return _draw_sheet(strips, f'{len(chosen)} of {len(reader):,} objects, {told}', columns, width, side)


def _quality(reader: ShardReader) -> tuple[ndarray, str]:
    """What objects are ranked by, (n,) with NaN where it was not measured, and its name."""
    records = (reader.read_record(index) for index in range(len(reader)))
    foreground = np.array([record['quality'].get('psnr_foreground', math.nan) for record in records])
    if np.isnan(foreground).all():
        return reader.quality, 'PSNR'
    return foreground, 'PSNR of the foreground'


def _chosen(quality: ndarray, name: str, count: int, seed: int) -> tuple[list[int], str]:
    """Indices of objects to show, given the quality of all, (n,), and how they were chosen."""
    count = min(count, len(quality))
    measured = np.flatnonzero(~np.isnan(quality))
    if len(measured) < count:
        drawn = np.random.default_rng(seed).choice(len(quality), count, replace=False)
        return sorted(drawn.tolist()), f'drawn at random (seed {seed})'
    ranked = measured[quality[measured].argsort(kind='stable')]
    ranks = np.rint(np.linspace(0, len(ranked) - 1, count)).astype(int)
    return ranked[ranks].tolist(), f'evenly over the ranks of {name} on held-out views: the worst first, the best last'


def _draw_sheet(strips: Sequence[Strip], title: str, columns: int, width: int, side: int) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont, ImageOps
    large, font = ImageFont.load_default(_TITLE), ImageFont.load_default(_TEXT)
    head, words = 2 * _GAP + round(2.7 * _TITLE), round(2.8 * _TEXT)
    cell = (width - _GAP) // columns
    pitch = side + words + _GAP
    sheet = Image.new('RGB', (width, head + pitch * -(-len(strips) // columns)), 'white')
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate((title, _legend(strips))):
        draw.text((_GAP, _GAP + round(1.4 * i * _TITLE)), _cut(line, large, width - 2 * _GAP), _INK, large)
    for i, strip in enumerate(strips):
        x, y = _GAP + i % columns * cell, head + i // columns * pitch
        for j, pictures in enumerate((strip.views, strip.splats)):
            corner = x + j * (side + _BETWEEN), y
            if pictures is None:
                draw.text((corner[0] + side // 2, y + side // 2), 'no cameras', _GREY, font, 'mm')
            else:
                picture = ImageOps.contain(Image.fromarray(pictures[0]), (side, side), Image.Resampling.LANCZOS)
                sheet.paste(picture, (corner[0] + (side - picture.width) // 2, y + (side - picture.height) // 2))
            draw.rectangle((corner[0] - 1, y - 1, corner[0] + side, y + side), outline=_FRAME)
        for line, (text, ink) in enumerate(((strip.record['captions'][0]['text'], _INK), (_told(strip), _GREY))):
            text = _cut(text, font, 2 * side + _BETWEEN)
            draw.text((x, y + side + round((0.2 + 1.2 * line) * _TEXT)), text, ink, font)
    return sheet


def _legend(strips: Sequence[Strip]) -> str:
    counts = sorted(strip.record['num_gaussians'] for strip in strips)
    gaussians = f'{counts[0]:,}' if counts[0] == counts[-1] else f'{counts[0]:,} to {counts[-1]:,}'
    return f'Left a stored view, right the {gaussians} stored Gaussians from the same camera; under them the PSNR.'


def _told(strip: Strip) -> str:
    """The quality of an object in words."""
    quality = strip.record['quality']
    if 'psnr' in quality:
        foreground = f'foreground {quality["psnr_foreground"]:.1f} dB, ' if 'psnr_foreground' in quality else ''
        return f'{foreground}whole picture {quality["psnr"]:.1f} dB'
    return 'no quality' if strip.splats is None else f'not fitted; this view {strip.psnr()[0]:.1f} dB'


def _cut(text: str, font, width: int) -> str:
    """A line of text that fits into ``width`` pixels, with an ellipsis where it was longer."""
    text = ' '.join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f'{text}…') > width:
        text = text[:-1]
    return f'{text.rstrip()}…'
