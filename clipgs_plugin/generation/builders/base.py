"""Parts shared by the builders: their result, a clock, and images of Gaussians."""
from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.objects import Views, composite
from clipgs_plugin.generation.rendering import ViewRule
from clipgs_plugin.generation.settings import GenerationSettings
from clipgs_plugin.ops import render
from clipgs_plugin.structures import GaussianCloud

ToFit = tuple[Views, Views]  # training views and held-out views


@dataclass
class Built:
    """The fields of a :class:`Triplet` that depend on the content of its file, and the views to fit."""

    gaussians: GaussianCloud
    views: ndarray                           # (V, H, W, 3) uint8
    source: dict
    quality: dict = field(default_factory=dict)
    viewmats: ndarray | None = None
    intrinsics: ndarray | None = None
    to_fit: ToFit | None = None


class Clock:
    """Seconds of each step of an object."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str, objects: int = 1) -> None:
        """End a step that ``objects`` objects have shared."""
        now = time.perf_counter()
        self.seconds[step], self._last = round((now - self._last) / objects, 4), now


def select(views: Views, index: slice | ndarray) -> Views:
    """Return some of the views, by a slice, a mask or indices."""
    return Views(views.images[index], views.viewmats[index], views.intrinsics[index])


def frame(centre: ndarray, radius: float) -> dict:
    """Return the record of a normalisation: ``radius * position + centre`` is a position of the turned file."""
    return dict(centre=[float(x) for x in centre], radius=float(radius))


def repeat_intrinsics(rule: ViewRule, count: int) -> ndarray:
    """Return the intrinsics of the dataset for ``count`` views, (count, 3, 3)."""
    return np.repeat(rule.intrinsics()[None], count, axis=0)


def render_views(cloud: GaussianCloud, viewmats: ndarray, settings: GenerationSettings) -> Views:
    """Render Gaussians from cameras of the dataset."""
    rule, intrinsics = settings.views, repeat_intrinsics(settings.views, len(viewmats))
    cameras = (torch.from_numpy(x).to(settings.device) for x in (viewmats, intrinsics))
    colors, alphas = (x.cpu().numpy() for x in render(cloud.to(settings.device), *cameras, rule.size, rule.size))
    alphas = alphas[..., None]
    colors = np.divide(colors, alphas, out=np.zeros(colors.shape, np.float32), where=alphas > 0)
    return Views(np.concatenate([colors, alphas], axis=-1), viewmats, intrinsics)


def to_pixels(images: ndarray, rule: ViewRule) -> ndarray:
    """Return images (V, H, W, 4) on the background of the dataset, (V, H, W, 3) uint8."""
    return np.rint(composite(images, rule.background).clip(0, 1) * 255).astype(np.uint8)
