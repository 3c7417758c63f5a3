"""Turntables: views of an object from a ring around it, and sheets with one turntable per row."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from clipgs_plugin.ops.cameras import intrinsics, sphere_cameras
from clipgs_plugin.ops.rendering import render
from clipgs_plugin.structures import GaussianCloud

_MARGIN = 1.15      # radius of the framed sphere over the object's, so that the object does not touch the edge
_LABEL_HEIGHT = 14  # pixels


def robust_extent(cloud: GaussianCloud, share: float = 0.95) -> tuple[Tensor, float]:
    """Compute the centre and radius of most of an object, ignoring stray Gaussians.

    A Gaussian counts if it is visible, with an opacity of at least 0.1. If none is visible, all count.

    Args:
        cloud: Object in any frame.
        share: Fraction of the visible Gaussians that determines the centre and lies within the radius.

    Returns:
        Centre of the box that contains ``share`` of the visible means along each axis, (3,), and the radius around it
        in world units, above 0.
    """
    visible = cloud.opacities.detach() >= 0.1
    means = cloud.means.detach()[visible if bool(visible.any()) else slice(None)]
    last = len(means) - 1
    ordered = means.sort(0).values  # torch.quantile rejects more than 16 million values
    center = (ordered[math.floor((1 - share) / 2 * last)] + ordered[math.ceil((1 + share) / 2 * last)]) / 2
    radius = float((means - center).norm(dim=-1).sort().values[math.ceil(share * last)])
    # A single Gaussian, or several at one position, have only their own extent.
    return center, radius if radius > 0 else 3 * float(cloud.scales.detach().max())


def orbit_cameras(
    cloud: GaussianCloud,
    num_views: int,
    elevation: float | Sequence[float] | None = 15.0,
    up: str | Sequence[float] | Tensor = 'y',
    fov_degrees: float = 40.0,
    share: float = 0.95,
) -> tuple[Tensor, float]:
    """Place cameras around an object so that its robust extent fills the images.

    Args:
        cloud: Object in any frame and of any size. The cameras have no gradients.
        num_views: Number of cameras V.
        elevation: Layout of the cameras; see :func:`~clipgs_plugin.ops.cameras.sphere_cameras`.
        up: Up axis of the object.
        fov_degrees: Field of view across the images.
        share: Fraction of the visible Gaussians within the framed radius.

    Returns:
        World to camera in OpenCV axes, (V, 4, 4), and the radius of the object in world units.
    """
    center, radius = robust_extent(cloud, share)
    viewmats = sphere_cameras(num_views, _MARGIN / math.sin(math.radians(fov_degrees) / 2), elevation, up).to(center)
    # Scale and move the cameras of the unit sphere to the object.
    viewmats[:, :3, 3] = radius * viewmats[:, :3, 3] - viewmats[:, :3, :3] @ center
    return viewmats, radius


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
    """Render an object from a ring of cameras around it, framed by its robust extent.

    Args:
        cloud: Object in any frame and of any size.
        num_views: Number of views on the ring, V.
        size: Side of the square images in pixels.
        up: Up axis of the object: ``'y'``, ``'-y'``, ``'z'``, ... or a vector. Files do not record it.
        elevation: Elevation of the ring in degrees; see :func:`~clipgs_plugin.ops.cameras.sphere_cameras`.
        fov_degrees: Field of view in degrees.
        background: sRGB colour in [0, 1], (3,).
        backend: Backend of :func:`~clipgs_plugin.ops.rendering.render`.

    Returns:
        Images, (V, size, size, 3), sRGB in [0, 1].
    """
    viewmats, radius = orbit_cameras(cloud, num_views, elevation, up, fov_degrees)
    cameras = intrinsics(fov_degrees, size, size).expand(num_views, 3, 3)
    with torch.no_grad():
        images, _ = render(cloud, viewmats, cameras, size, size, background, backend=backend, near=0.01 * radius)
    return images.clamp(0, 1)


def turntable_sheet(
    rows: Sequence[GaussianCloud | Tensor],
    labels: Sequence[str] | None = None,
    size: int = 128,
    num_views: int = 6,
    up: str | Sequence[float] | Tensor = 'y',
    gap: int = 4,
) -> Image.Image:
    """Draw one row of images per object.

    Args:
        rows: Objects, drawn as turntables, or ready images (V, H, W, 3) in [0, 1].
        labels: Line of text above each row.
        size: Side of a turntable's images in pixels.
        num_views: Number of views of a turntable.
        up: Up axis of the objects.
        gap: Gap between images in pixels.

    Returns:
        RGB image on white.

    Raises:
        ValueError: No rows, or another number of labels than rows.
    """
    if not rows or (labels is not None and len(labels) != len(rows)):
        raise ValueError(f'{len(rows)} rows with {0 if labels is None else len(labels)} labels: expected at least one '
                         'row, and one label per row or none')
    strips = []
    for row in rows:
        images = turntable(row, num_views, size, up) if isinstance(row, GaussianCloud) else row
        images = (images.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
        strips.append([Image.fromarray(image) for image in images])
    head = 0 if labels is None else _LABEL_HEIGHT
    width = max(sum(image.width + gap for image in strip) for strip in strips) + gap
    height = sum(head + strip[0].height + gap for strip in strips) + gap
    sheet = Image.new('RGB', (width, height), 'white')
    draw = ImageDraw.Draw(sheet)
    y = gap
    for i, strip in enumerate(strips):
        if labels is not None:
            draw.text((gap, y), labels[i], fill='black')
        x = gap
        for image in strip:
            sheet.paste(image, (x, y + head))
            x += image.width + gap
        y += head + strip[0].height + gap
    return sheet
