"""Small made scenes: objects on a floor among floaters, with the object of each Gaussian."""
import math

import numpy as np
import torch

from clipgs_plugin import GaussianCloud
from clipgs_plugin.ops.rotations import y_rotation
from clipgs_plugin.structures.discs import surface_discs
from clipgs_plugin.toy_world import make_object, object_specs


def joined(clouds) -> GaussianCloud:
    """Return the Gaussians of several clouds, one after another."""
    fields = zip(*([value for _, value in cloud.fields()] for cloud in clouds))
    return GaussianCloud(*map(torch.cat, fields))


def toys(count: int, gaussians: int = 1200, seed: int = 0) -> list[GaussianCloud]:
    """Return different objects of the toy world."""
    return [make_object(spec, gaussians).gaussians for spec in object_specs(count, seed, 'test')]


def floor(side: float, gaussians: int, rng: np.random.Generator, thickness: float = 0.004) -> GaussianCloud:
    """Return discs of a grey floor at height 0, with some roughness."""
    points = rng.uniform(-side / 2, side / 2, (gaussians, 3)) * [1, 0, 1] + rng.normal(0, thickness, (gaussians, 3))
    shade = 0.55 + 0.05 * rng.standard_normal((gaussians, 1))
    return surface_discs(points, np.tile([0.0, 1, 0], (gaussians, 1)), np.clip(shade + np.zeros(3), 0, 1))


def floaters(count: int, low, high, rng: np.random.Generator) -> GaussianCloud:
    """Return random Gaussians in a box, mostly faint."""
    fields = dict(means=rng.uniform(low, high, (count, 3)), quats=rng.standard_normal((count, 4)),
                  log_scales=rng.normal(-3.5, 0.7, (count, 3)), opacity_logits=rng.normal(-1.5, 1.5, count),
                  sh=rng.standard_normal((count, 1, 3)))
    return GaussianCloud(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in fields.items()})


def compose(objects, seed: int = 0, gap: float = 0.3, ground: int = 6000, stray: float = 0.02,
            ) -> tuple[GaussianCloud, torch.Tensor]:
    """Place objects on a floor in rows, turned about y and of different sizes.

    Args:
        objects: Clouds with y up.
        seed: Random seed.
        gap: Distance of neighbouring objects' bounding circles, in radii of the unit sphere.
        ground: Number of Gaussians of the floor; 0 for none.
        stray: Share of floaters.

    Returns:
        Scene, and the number of the object of each Gaussian from 1, 0 for the floor and floaters, (N,).
    """
    rng = np.random.default_rng(seed)
    columns, placed = math.ceil(math.sqrt(len(objects))), []
    step = 2.0 + gap
    for i, cloud in enumerate(objects):
        turned = cloud.normalise().transform(y_rotation(rng.uniform(0, 2 * math.pi)) * rng.uniform(0.6, 1.0))
        place = torch.tensor([(i % columns) * step, 0, (i // columns) * step], dtype=torch.float32)
        place += torch.from_numpy(rng.uniform(-0.1, 0.1, 3) * [1, 0, 1] * gap).float()
        middle = (turned.means.amin(0) + turned.means.amax(0)) / 2
        lowest = torch.stack([middle[0], turned.means[:, 1].amin(), middle[2]])
        placed.append(turned.replace(means=turned.means - lowest + place))
    side = columns * step + 1
    shift = torch.tensor([(columns - 1) * step / 2, 0, (columns - 1) * step / 2])
    placed = [cloud.replace(means=cloud.means - shift) for cloud in placed]
    counts = [len(cloud) for cloud in placed]
    rest = [floor(side, ground, rng)] if ground else []
    if stray:
        rest.append(floaters(int(stray * sum(counts)), [-side / 2, -0.1, -side / 2], [side / 2, 2, side / 2], rng))
    truth = torch.cat([torch.arange(1, len(placed) + 1).repeat_interleave(torch.tensor(counts)),
                       torch.zeros(sum(map(len, rest)), dtype=torch.int64)])
    order = torch.from_numpy(rng.permutation(len(truth)))
    return joined([*placed, *rest])[order], truth[order]


def recall_and_purity(labels: torch.Tensor, truth: torch.Tensor, least_iou: float = 0.5) -> tuple[float, float]:
    """Return the share of objects that a group matches by intersection over union, and the Gaussians' purity.

    The purity is the share of the Gaussians in groups that belong to the most frequent object of their group.
    """
    found, matched, pure, total = labels[labels >= 0].unique(), 0, 0, 0
    for number in truth[truth > 0].unique():
        mask = truth == number
        overlap = [(int(((labels == group) & mask).sum()), int(((labels == group) | mask).sum())) for group in found]
        matched += any(a > least_iou * b for a, b in overlap)
    for group in found:
        inside = truth[labels == group]
        pure += int(torch.bincount(inside).max()) if bool((inside > 0).any()) else 0
        total += len(inside)
    return matched / len(truth[truth > 0].unique()), pure / max(total, 1)


def random_scene(count: int, sh_degree: int = 1, seed: int = 0) -> GaussianCloud:
    """Return random Gaussians in a cube."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: torch.from_numpy(rng.standard_normal((count, *shape)).astype(np.float32))  # noqa: E731
    return GaussianCloud(draw(3), draw(4), draw(3) - 3, draw(), 0.3 * draw((sh_degree + 1) ** 2, 3))
