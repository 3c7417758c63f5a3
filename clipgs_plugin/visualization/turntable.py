"""Pictures of objects for people: an object from all around, and many pictures on one sheet."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from clipgs_plugin.ops.cameras import intrinsics, sphere_cameras
from clipgs_plugin.ops.rendering import render
from clipgs_plugin.structures import GaussianCloud

_MARGIN = 1.15      # of the framed sphere, so that the object does not touch the picture's edge
_LABEL_HEIGHT = 14  # pixels


def robust_extent(cloud: GaussianCloud, share: float = 0.95) -> tuple[Tensor, float]:
    """Centre and radius of most of a cloud, blind to stray Gaussians.

    Args:
        cloud: N Gaussians in any frame.
        share: Of the visible Gaussians: that much of them lies within the radius, and decides on the centre.

    Returns:
        The middle of the box that holds ``share`` of the visible means along each axis, (3,), and the radius around
        it, world units, above 0. A Gaussian is visible if its opacity is at least 0.1; if none is, all count.
    """
    visible = cloud.opacities.detach() >= 0.1
    means = cloud.means.detach()[visible if bool(visible.any()) else slice(None)]
    last = len(means) - 1
    ordered = means.sort(0).values  # torch.quantile refuses more than 16 million numbers
    center = (ordered[math.floor((1 - share) / 2 * last)] + ordered[math.ceil((1 + share) / 2 * last)]) / 2
    radius = float((means - center).norm(dim=-1).sort().values[math.ceil(share * last)])
    # A single Gaussian, or several in one place, are as large as their own extent.
    return center, radius if radius > 0 else 3 * float(cloud.scales.detach().max())


def turntable(
    cloud: GaussianCloud,
    num_views: int = 8,
    size: int = 256,
    up: str | Sequence[float] | Tensor = 'y',
    elevation: float | Sequence[float] | None = 15.0,
    fov_degrees: float = 40.0,
    background: Tensor | tuple[float, float, float] = (1.0, 1.0, 1.0),
    backend: str = 'auto',
) -> Tensor:
    """Views of an object from a ring around it, framed by its robust extent.

    Args:
        cloud: The object, in any frame and of any size.
        num_views: Views around the ring.
        size: Of the square pictures, pixels.
        up: The object's up axis: ``'y'``, ``'-y'``, ``'z'``, ... or a vector. Files do not say which it is.
        elevation: Of the ring, degrees; see :func:`~clipgs_plugin.ops.cameras.sphere_cameras`.
        fov_degrees: Field of view.
        background: sRGB colour, (3,).
        backend: Of :func:`~clipgs_plugin.ops.rendering.render`.

    Returns:
        Pictures, (V, size, size, 3), sRGB in [0, 1].
    """
    center, radius = robust_extent(cloud)
    viewmats = sphere_cameras(num_views, _MARGIN / math.sin(math.radians(fov_degrees) / 2), elevation, up).to(center)
    # The cameras of the unit sphere, scaled and moved to the object.
    viewmats[:, :3, 3] = radius * viewmats[:, :3, 3] - viewmats[:, :3, :3] @ center
    cameras = intrinsics(fov_degrees, size, size).expand(num_views, 3, 3)
    with torch.no_grad():
        pictures, _ = render(cloud, viewmats, cameras, size, size, background, backend=backend, near=0.01 * radius)
    return pictures.clamp(0, 1)


def contact_sheet(
    rows: Sequence[GaussianCloud | Tensor],
    labels: Sequence[str] | None = None,
    size: int = 128,
    num_views: int = 6,
    up: str | Sequence[float] | Tensor = 'y',
    gap: int = 4,
) -> Image.Image:
    """One sheet with a row of pictures for each object.

    Args:
        rows: Objects, drawn as turntables, or pictures (V, H, W, 3) in [0, 1], shown as they are.
        labels: A line of text over each row.
        size: Of a turntable's pictures, pixels.
        num_views: Of a turntable.
        up: Of a turntable.
        gap: Between pictures, pixels.

    Returns:
        An RGB image on white.
    """
    if not rows or (labels is not None and len(labels) != len(rows)):
        raise ValueError(f'{len(rows)} rows with {0 if labels is None else len(labels)} labels: expected at least one '
                         'row, and one label for each if there are any')
    strips = []
    for row in rows:
        pictures = turntable(row, num_views, size, up) if isinstance(row, GaussianCloud) else row
        pictures = (pictures.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
        strips.append([Image.fromarray(picture) for picture in pictures])
    head = 0 if labels is None else _LABEL_HEIGHT
    width = max(sum(picture.width + gap for picture in strip) for strip in strips) + gap
    height = sum(head + strip[0].height + gap for strip in strips) + gap
    sheet = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(sheet)
    y = gap
    for i, strip in enumerate(strips):
        if labels is not None:
            draw.text((gap, y), labels[i], fill='black')
        x = gap
        for picture in strip:
            sheet.paste(picture, (x, y + head))
            x += picture.width + gap
        y += head + strip[0].height + gap
    return sheet
