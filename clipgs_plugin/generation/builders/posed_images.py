"""Posed images: their own views, and Gaussians on the reconstructed points or the visual hull to fit to them."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.builders.base import Built, Clock, frame, select, to_pixels
from clipgs_plugin.generation.objects import Points, PosedImages, Surface, Views
from clipgs_plugin.generation.rendering.surfaces import normalised
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.generation.sources.points import surfels
from clipgs_plugin.generation.sources.visual_hull import hull_points

HOLD_OUT = 8       # every eighth image is a held-out view
MIN_POINTS = 1000  # a reconstruction of fewer points is a worse start than the hull of the masks


def from_images(posed: PosedImages, settings: GenerationSettings, seed: int, clock: Clock) -> Built:
    """Choose views of images with y up, and place Gaussians, which are to be fitted.

    Raises:
        ValueError: A single image, or ``views.keep_test``, since objects differ in their number of held-out images.
    """
    rule = settings.views
    if rule.keep_test:
        raise ValueError('keep_test=True: photographs have no held-out views of their own cameras to store; expected '
                         'False')
    if len(posed.images) < 2:
        raise ValueError('one image alone; expected at least one to fit and one to hold out')
    posed = _downscaled(posed, rule.size)
    held_out = np.arange(len(posed.images)) % HOLD_OUT == 0
    surface, made = _initial_surface(posed, ~held_out, settings.fit.num_gaussians, seed)
    points, centre, radius = normalised(Points(surface.positions))
    cloud = replace(surface, positions=points.positions).discs()
    viewmats = posed.viewmats.astype(np.float64)
    viewmats[:, :3, 3] = (viewmats[:, :3, 3] + viewmats[:, :3, :3] @ centre) / radius
    views = Views(posed.images, viewmats.astype(np.float32), posed.intrinsics)
    train, test = select(views, ~held_out), select(views, held_out)
    clock.lap('initialise')
    shown = _padded(select(train, spread_views(train.viewmats, rule.num_views)), rule.size)
    return Built(cloud, to_pixels(shown.images, rule),
                 dict(kind='images', made=made, pictures=len(posed.images), held_out=int(held_out.sum()),
                      **frame(centre, radius)),
                 viewmats=shown.viewmats, intrinsics=shown.intrinsics, to_fit=(train, test))


def spread_views(viewmats: ndarray, count: int) -> ndarray:
    """Choose views in directions far from one another, by farthest point sampling from view 0.

    Views in one and the same direction are all used before any is repeated, and distances are rounded to float32.
    :func:`clipgs_plugin.ops.farthest_point_sample` compares squared distances and chooses others on regular rings.

    Args:
        viewmats: World to camera, (V, 4, 4).
        count: Number of views to choose; more than V repeats the choice.

    Returns:
        Indices of views, (count,).
    """
    directions = unit_vectors(-np.einsum('vij,vi->vj', viewmats[:, :3, :3], viewmats[:, :3, 3]))  # to the cameras
    chosen, distance = [0], np.full(len(viewmats), np.inf)
    while len(chosen) < min(count, len(viewmats)):
        distance = np.minimum(distance, np.linalg.norm(directions - directions[chosen[-1]], axis=1))
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return np.resize(chosen, count)


def _initial_surface(posed: PosedImages, train: ndarray, count: int, seed: int) -> tuple[Surface, str]:
    """Return the surface on which Gaussians start, and its origin in words."""
    points = 0 if posed.points is None else len(posed.points.positions)
    masked = bool((posed.images[..., 3] < 0.5).any())
    if points >= MIN_POINTS or (points and not masked):
        return surfels(posed.points, count, seed)[0], f'begun at {points} points of the reconstruction'
    fitted = posed._replace(images=posed.images[train], viewmats=posed.viewmats[train],
                            intrinsics=posed.intrinsics[train])
    return hull_points(fitted, count, seed), 'begun on the hull of the masks'


def _downscaled(posed: PosedImages, size: int) -> PosedImages:
    """Return images whose longer side is at most ``size`` pixels; colours are weighted by alpha."""
    height, width = posed.images.shape[1:3]
    factor = min(1.0, size / max(height, width))
    if factor == 1:
        return posed
    shape = max(1, round(height * factor)), max(1, round(width * factor))
    images = torch.from_numpy(posed.images).permute(0, 3, 1, 2)
    alphas = images[:, 3:]
    small = torch.cat([torch.nn.functional.interpolate(images[:, :3] * alphas, shape, mode='area'),
                       torch.nn.functional.interpolate(alphas, shape, mode='area')], dim=1)
    small[:, :3] = torch.where(small[:, 3:] > 0, small[:, :3] / small[:, 3:], 0.0)
    scale = np.array([shape[1] / width, shape[0] / height, 1.0], np.float32)
    return posed._replace(images=small.permute(0, 2, 3, 1).contiguous().numpy(),
                          intrinsics=posed.intrinsics * scale[:, None])


def _padded(views: Views, size: int) -> Views:
    """Return views in the middle of transparent squares of ``size`` pixels."""
    height, width = views.images.shape[1:3]
    top, left = (size - height) // 2, (size - width) // 2
    square = np.zeros((len(views.images), size, size, 4), np.float32)
    square[:, top:top + height, left:left + width] = views.images
    intrinsics = views.intrinsics.copy()
    intrinsics[:, :2, 2] += np.array([left, top], np.float32)
    return Views(square, views.viewmats, intrinsics)
