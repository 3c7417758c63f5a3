"""Scenes made from meshes: composed, lit together, rendered, fitted as one cloud and labelled by object."""
from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.builders.base import Clock
from clipgs_plugin.generation.fields import check_fields
from clipgs_plugin.generation.fitting import FitSettings, Fitted, fit
from clipgs_plugin.generation.objects import Listed, Mesh, Surface, Views
from clipgs_plugin.generation.rendering import choose_renderer, render_mesh
from clipgs_plugin.generation.rendering.surfaces import sample_surface, turned
from clipgs_plugin.generation.scenes import truth
from clipgs_plugin.generation.scenes.layout import Placed, place
from clipgs_plugin.generation.scenes.lighting import draw_lamp, exposed, lit
from clipgs_plugin.generation.scenes.rays import Blockers
from clipgs_plugin.generation.scenes.room import make_room
from clipgs_plugin.generation.sources import Source
from clipgs_plugin.ops import intrinsics, look_at, render
from clipgs_plugin.ops.spherical_harmonics import C0
from clipgs_plugin.structures import GaussianCloud

BACKGROUND = (0.5, 0.5, 0.5)
FIELD_OF_VIEW = 42.0
ELEVATIONS = 10.0, 24.0, 40.0, 60.0    # degrees; from the lowest, near objects hide far ones
ARCS = {0: 180.0, 1: 75.0, 2: 55.0}    # half of the arc of the cameras in degrees, by the number of walls
DENSITY = 3                            # Gaussians on an area of an object over those on an area of the room
SPARE = 1.8                            # candidates for one Gaussian, of which some no camera sees
CHECKED = 30                           # cameras that decide what is seen
PICTURE_SIZE = 320                     # pixels


@dataclass(frozen=True)
class SceneSettings:
    """Settings of made scenes.

    Attributes:
        objects: Number of objects in a scene.
        gaussians: Number of Gaussians of a scene.
        views: Number of training views.
        pixels: Width and height of the views in pixels.
        iterations: Iterations of the fit.
        renderer: Renderer of meshes.

    Raises:
        ValueError: A value is out of range.
    """

    objects: int = 7
    gaussians: int = 50_000
    views: int = 60
    pixels: int = 176
    iterations: int = 200
    renderer: str = 'auto'

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least in dict(objects=1, gaussians=100, views=4, pixels=11, iterations=1).items():
            if getattr(self, name) < least:
                raise ValueError(f'{name}={getattr(self, name)}: expected at least {least}')
        if self.objects > 254:
            raise ValueError(f'objects={self.objects}: expected at most 254, the ids that an image of 8 bits holds')

    def to_dict(self) -> dict:
        """Return the settings that decide the content, as JSON."""
        return {name: value for name, value in asdict(self).items() if name != 'renderer'}


@dataclass(frozen=True, eq=False)
class MadeScene:
    """A fitted scene with its truth.

    Attributes:
        cloud: Gaussians of the scene, y up.
        labels: Object of each Gaussian, 1 to M, 0 for the room, -1 where it is unsure, (N,) int64.
        record: Content of ``scene.json``.
        pictures: The scene and its labels side by side, from a camera that was not fitted, (H, 2 H, 3) uint8.
    """

    cloud: GaussianCloud
    labels: ndarray
    record: dict
    pictures: ndarray


def make_scene(listed: Sequence[Listed], source: Source, settings: SceneSettings, seed: tuple[int, int]) -> MadeScene:
    """Make a scene of some objects of a source.

    Args:
        listed: Objects to choose from.
        source: Source that lists and loads them.
        settings: Settings of the scene.
        seed: Seed of all scenes, and number of the scene.

    Raises:
        ValueError: The source has fewer objects than a scene.
        ImportError: embreex is not installed.
    """
    if len(listed) < settings.objects:
        raise ValueError(f'{len(listed)} meshes for a scene of {settings.objects} objects; lower --objects')
    clock, rng = Clock(), np.random.default_rng(seed)
    settings = replace(settings, renderer=choose_renderer(settings.renderer))
    chosen = [listed[i] for i in rng.choice(len(listed), settings.objects, replace=False)]
    placed = place(chosen, [turned(source.load(item), source.up) for item in chosen], rng)
    walls = int(rng.integers(1, 3))
    azimuth = np.pi / 4 if walls == 2 else 0.0  # the middle of the open sides
    meshes = [make_room(walls, rng), *(each.mesh for each in placed)]
    blockers, lamp = Blockers(*meshes), draw_lamp(rng, azimuth)
    meshes = exposed([lit(mesh, lamp, blockers, rng) for mesh in meshes])
    clock.lap('compose')
    train, test = draw_views(meshes, azimuth, ARCS[walls], settings, rng)
    clock.lap('render')
    surfaces, seen = seen_surfaces(meshes, blockers, train, settings.gaussians, rng)
    clock.lap('initialise')
    # Half the rate of the means of a single object, since objects are smaller here.
    fitted = fit(truth.joined(surfaces), train, test, BACKGROUND,
                 FitSettings(iterations=settings.iterations, means_rate=5e-4, check_every=0), seed=int(seed[1]))
    clock.lap('fit')
    labels = truth.label_gaussians(fitted.cloud.means.numpy(), meshes)
    agreed = truth.agreement(fitted.cloud, labels, meshes, test, settings.renderer)
    clock.lap('label')
    record = describe(placed, seen, fitted, labels, agreed, seed, settings, clock.seconds)
    return MadeScene(fitted.cloud, labels, record, draw_pictures(fitted.cloud, labels, len(meshes), test))


def draw_views(meshes: Sequence[Mesh], azimuth: float, arc: float, settings: SceneSettings,
               rng: np.random.Generator) -> tuple[Views, Views]:
    """Render training views, and a tenth as many that are not fitted, from cameras on arcs of several heights."""
    count, held_out = settings.views, max(2, settings.views // 10)
    total = count + held_out
    heights = np.radians(np.resize(ELEVATIONS, total) + rng.uniform(-4, 4, total))
    around = azimuth + np.radians(arc * rng.uniform(-1, 1, total))
    away = np.stack([np.sin(around) * np.cos(heights), np.sin(heights), np.cos(around) * np.cos(heights)], 1)
    targets = np.array([0, 0.12, 0]) + rng.uniform(-0.12, 0.12, (total, 3)) * [1, 0.5, 1]
    eyes = targets + away * rng.uniform(2.0, 2.5, (total, 1))
    viewmats = look_at(torch.from_numpy(eyes), torch.from_numpy(targets)).numpy()
    lens = np.repeat(intrinsics(FIELD_OF_VIEW, settings.pixels, settings.pixels).numpy()[None], total, axis=0)
    images = render_mesh(Mesh(tuple(part for mesh in meshes for part in mesh.parts)), viewmats, lens, settings.pixels,
                         settings.pixels, renderer=settings.renderer)
    views = images, viewmats.astype(np.float32), lens
    return Views(*(x[:count] for x in views)), Views(*(x[count:] for x in views))


def seen_surfaces(meshes: Sequence[Mesh], blockers: Blockers, train: Views, total: int,
                  rng: np.random.Generator) -> tuple[list[Surface], list[float]]:
    """Sample the parts of surfaces that cameras see, as a capture would; also return the seen share of each mesh."""
    areas = np.array([truth.area(mesh) for mesh in meshes]) * np.array([1, *[DENSITY] * (len(meshes) - 1)])
    counts = np.maximum(16, SPARE * total * areas / areas.sum()).astype(int)
    rotations, shifts = train.viewmats[:, :3, :3].astype(np.float64), train.viewmats[:, :3, 3].astype(np.float64)
    eyes = -np.einsum('vji,vj->vi', rotations, shifts)[::max(1, len(rotations) // CHECKED)]
    found, shares = [], []
    for mesh, count in zip(meshes, counts):
        surface = sample_surface(mesh, int(count), int(rng.integers(2 ** 31)))
        seen = np.zeros(count, bool)
        for eye in eyes:
            open_ = np.flatnonzero(~seen)
            ends = surface.positions[open_].astype(np.float64)
            seen[open_] = ~blockers.blocked(np.broadcast_to(eye, ends.shape), ends, slack=2e-3)
        found.append(_part(surface, seen))
        shares.append(float(seen.mean()))
    kept = min(1.0, total / sum(len(surface.positions) for surface in found))
    return [_part(x, rng.random(len(x.positions)) < kept) for x in found], shares


def _part(surface: Surface, kept: ndarray) -> Surface:
    return Surface(surface.positions[kept], surface.normals[kept], surface.colors[kept])


def describe(placed: Sequence[Placed], seen: Sequence[float], fitted: Fitted, labels: ndarray, agreed: float,
             seed: tuple[int, int], settings: SceneSettings, seconds: dict) -> dict:
    """Describe a scene as JSON."""
    objects = [dict(id=i, uid=each.listed.uid, name=each.listed.uid.replace('_', ' ').replace('-', ' '),
                    category=each.listed.category, up='y', yaw_degrees=round(float(np.degrees(each.yaw)), 3),
                    scale=each.scale, low=[float(x) for x in each.low], high=[float(x) for x in each.high],
                    seen=round(share, 4), gaussians=int((labels == i).sum()))
               for i, (each, share) in enumerate(zip(placed, seen[1:]), 1)]
    return dict(format_version=1, up='y', objects=objects, gaussians=len(labels), seed=list(seed),
                settings=settings.to_dict(), quality={key: round(value, 4) for key, value in fitted.quality.items()},
                truth=dict(unsure=round(float((labels == truth.UNSURE).mean()), 4), agreement=round(agreed, 4)),
                seconds=seconds)


def draw_pictures(cloud: GaussianCloud, labels: ndarray, count: int, views: Views) -> ndarray:
    """Draw a scene from its highest held-out camera, and its labels as colours beside it, (H, 2 H, 3) uint8."""
    eyes = -np.einsum('vji,vj->vi', views.viewmats[:, :3, :3], views.viewmats[:, :3, 3])
    camera = torch.from_numpy(views.viewmats[[eyes[:, 1].argmax()]])
    lens = intrinsics(FIELD_OF_VIEW, PICTURE_SIZE, PICTURE_SIZE)[None]
    hues = [(0.75, 0.75, 0.75), *(hsv_to_rgb(i / max(count - 1, 1), 0.8, 0.95) for i in range(count - 1)), (0, 0, 0)]
    colors = torch.tensor(hues, dtype=torch.float32)[torch.from_numpy(labels)]  # the last for the label -1
    marked = cloud.replace(sh=((colors - 0.5) / C0)[:, None])
    images = [render(shown, camera, lens, PICTURE_SIZE, PICTURE_SIZE, BACKGROUND)[0][0] for shown in (cloud, marked)]
    return torch.cat(images, 1).clamp(0, 1).mul(255).round().byte().numpy()
