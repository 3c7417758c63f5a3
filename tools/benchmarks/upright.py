"""Accuracy of the estimate of the up axis."""
from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.tools.benchmarks.figures import Figure, figure
from clipgs_plugin.tools.benchmarks.upright_cues_tried import TRIED, tried_cues

PENALTY = 0.002           # of the squared weights, in units of the standard deviations of the cues
BINS = (0, 0.4, 0.6, 0.8, 1)
YAWS = ('any yaw', 'quarter turns')
# Chosen by cross-validation on the objects of the fit, with categories of points left out.
WIDER = ('support', 'symmetry', 'detail', *TRIED)


@dataclasses.dataclass
class Turned:
    """Cues of objects that are turned at random: of all axes, and the number of the right one."""

    cues: ndarray   # (n, 6, C), of CUES and TRIED
    right: ndarray  # (n,) int
    yaw: ndarray    # (n,) int, of YAWS


def upright(meshes: str = '', up: str = 'z', points: str = '', points_up: str = 'z', gaussians: int = 10000,
            per_class: int = 12, fit_per_class: int = 12, seed: int = 0, model: str = '') -> list[Figure]:
    """Measure how often the up axis of an object is found, after a turn to one of the six axes and by a random yaw.

    Objects are those of a folder of meshes, and with --points also those of train.npz and test.npz in a folder (points,
    labels, classes). Weights are fitted on half of the meshes, chosen by a hash of their names, and on train.npz; the
    figures are of the other half and of test.npz. Each object is turned twice: by any yaw and by quarter turns.
    """
    if not meshes:
        raise ValueError('name a folder of meshes: --meshes FOLDER')
    splats = list(mesh_splats(Path(meshes), up, gaussians))
    chosen = {'meshes': turned_cues([cloud for name, cloud in splats if not held_out(name)], seed)}
    tests = {'meshes': turned_cues([cloud for name, cloud in splats if held_out(name)], seed)}
    if points:
        chosen['points'] = turned_cues(point_splats(Path(points) / 'train.npz', points_up, fit_per_class), seed)
        tests['points'] = turned_cues(point_splats(Path(points) / 'test.npz', points_up, per_class), seed)
    figures = shipped_figures(tests) + ablation(chosen, tests) + wider_figures(chosen, tests, fit_per_class, per_class)
    if model:
        figures += model_figures([cloud for name, cloud in splats if held_out(name)], model, seed)
    return figures


def held_out(name: str) -> bool:
    """Return the half of an object, by a hash of its name."""
    return hashlib.sha256(name.encode()).digest()[-1] % 2 == 1


def mesh_splats(folder: Path, up: str, count: int) -> Iterator[tuple[str, GaussianCloud]]:
    """Cover the meshes of a folder with discs, with y up."""
    from clipgs_plugin.generation.rendering.surfaces import normalised, sample_surface, turned
    from clipgs_plugin.generation.sources import MeshSource
    source = MeshSource(up=up)
    for listed in source.list(folder):
        yield listed.uid, sample_surface(normalised(turned(source.load(listed), up))[0], count, 0).discs()


def point_splats(path: Path, up: str, per_class: int) -> list[GaussianCloud]:
    """Make grey discs of the first point clouds of each class, with y up."""
    from clipgs_plugin.ops import axis_change
    from clipgs_plugin.structures.discs import surface_discs
    with np.load(path, allow_pickle=False) as arrays:
        points, labels = arrays['points'], arrays['labels']
    clouds = []
    for label in np.unique(labels):
        for found in points[np.flatnonzero(labels == label)[:per_class]].astype(np.float32):
            flat = np.broadcast_to([0.0, 0.0, 1.0], found.shape)
            discs = surface_discs(found, flat, np.full(found.shape, 0.4))
            clouds.append(discs.transform(axis_change(up, 'y')))
    return clouds


def random_turn(cloud: GaussianCloud, rng: np.random.Generator, yaw: int) -> tuple[GaussianCloud, int]:
    """Turn an object about y, then y to one of the six axes; return its number as well."""
    from clipgs_plugin.ops import axis_change
    from clipgs_plugin.ops.rotations import AXES, y_rotation
    angle = rng.uniform(0, 2 * math.pi) if yaw == 0 else math.pi / 2 * rng.integers(4)
    right = int(rng.integers(6))
    return cloud.transform(axis_change('y', AXES[right]) @ y_rotation(angle)), right


def turned_cues(clouds: list[GaussianCloud], seed: int) -> Turned:
    """Measure the cues of objects after random turns, one a kind of yaw."""
    from clipgs_plugin.apis.upright_cues import up_cues
    rows = []
    for i, cloud in enumerate(clouds):
        for yaw in range(len(YAWS)):
            turned, right = random_turn(cloud, np.random.default_rng((seed, i, yaw)), yaw)
            rows.append((np.concatenate([up_cues(turned), tried_cues(turned)], 1), right, yaw))
    cues, right, yaw = map(np.array, zip(*rows))
    return Turned(cues, right, yaw)


def fit_weights(data: list[Turned], columns: list[int]) -> ndarray:
    """Fit the weights of some cues by penalised maximum likelihood, (len(columns),)."""
    from scipy.optimize import minimize
    cues = np.concatenate([part.cues for part in data])[..., columns]
    right = np.concatenate([part.right for part in data])
    unit = cues.reshape(-1, len(columns)).std(0)
    unit[unit == 0] = 1
    scaled, each = torch.from_numpy(cues / unit), torch.from_numpy(right)

    def loss(weights: ndarray) -> tuple[float, ndarray]:
        w = torch.from_numpy(weights).requires_grad_()
        value = torch.nn.functional.cross_entropy(scaled @ w, each) + PENALTY * (w @ w)
        value.backward()
        return value.item(), w.grad.numpy()
    return minimize(loss, np.zeros(len(columns)), jac=True).x / unit


def hits(data: Turned, columns: list[int], weights: ndarray) -> ndarray:
    """Return the mask of objects whose axis is found, (n,)."""
    return (data.cues[..., columns] @ weights).argmax(1) == data.right


def by_object(found: ndarray) -> ndarray:
    """Average over the turns of each object, which are not independent, (n / 2,)."""
    return found.reshape(-1, len(YAWS)).mean(1)


def shipped_figures(tests: dict[str, Turned]) -> list[Figure]:
    """Return the accuracy of the shipped weights by kind of yaw, and by confidence."""
    from clipgs_plugin.apis.upright import WEIGHTS, softmax
    from clipgs_plugin.apis.upright_cues import CUES
    columns, weights = [CUES.index(name) for name in WEIGHTS], np.array([*WEIGHTS.values()])
    figures = []
    for name, data in tests.items():
        found = hits(data, columns, weights)
        figures += [figure(f'accuracy, {name}', yaw, found[data.yaw == i]) for i, yaw in enumerate(YAWS)]
        same_line = (data.cues[..., columns] @ weights).argmax(1) % 3 == data.right % 3
        figures.append(figure(f'accuracy, {name}', 'axis without its sign', by_object(same_line)))
        confidence = softmax(data.cues[..., columns] @ weights).max(1)
        for low, high in itertools.pairwise(BINS):
            inside = (confidence > low) & (confidence <= high)
            if inside.any():
                figures.append(figure(f'accuracy by confidence, {name}', f'{low} to {high}', found[inside],
                                      f'mean confidence {confidence[inside].mean():.2f}'))
    return figures


def ablation(chosen: dict[str, Turned], tests: dict[str, Turned]) -> list[Figure]:
    """Return the accuracy of refitted sets of cues."""
    from clipgs_plugin.apis.upright import WEIGHTS
    from clipgs_plugin.apis.upright_cues import CUES
    used, everything = list(WEIGHTS), list(chosen)
    sets = [('all in use', used, everything)]
    sets += [(f'only {cue}', [cue], everything) for cue in CUES]
    sets += [(f'without {cue}', [other for other in used if other != cue], everything) for cue in used]
    sets += [(f'with {cue}', [*used, cue], everything) for cue in CUES if cue not in used]
    sets += [(f'every cue, fitted on {name} alone', list(CUES), [name]) for name in chosen]
    figures = []
    for way, names, sources in sets:
        columns = [CUES.index(name) for name in names]
        weights = fit_weights([chosen[source] for source in sources], columns)
        note = 'fit: ' + ', '.join(f'{name} {hits(data, columns, weights).mean():.3f}' for name, data in chosen.items())
        if way == 'all in use':
            note += ''.join(f'; {name} {weight:.2f}' for name, weight in zip(names, weights))
        figures += [figure(f'ablation, {test}', way, by_object(hits(data, columns, weights)), note)
                    for test, data in tests.items()]
    return sorted(figures, key=lambda row: row.what)


def wider_figures(chosen: dict[str, Turned], tests: dict[str, Turned], fit_per_class: int,
                  per_class: int) -> list[Figure]:
    """Return the accuracy with further cues; for points also if no object of the category was in the fit."""
    from clipgs_plugin.apis.upright_cues import CUES
    columns = [(*CUES, *TRIED).index(name) for name in WIDER]
    weights = fit_weights(list(chosen.values()), columns)
    note = 'fit: ' + ', '.join(f'{name} {hits(data, columns, weights).mean():.3f}' for name, data in chosen.items())
    figures = []
    for name, data in tests.items():
        found = hits(data, columns, weights)
        figures += [figure(f'with {", ".join(TRIED)}, {name}', yaw, found[data.yaw == i], note)
                    for i, yaw in enumerate(YAWS)]
    if 'points' not in chosen:
        return figures
    category, tested = (np.arange(len(data.right)) // (len(YAWS) * count)
                        for data, count in ((chosen['points'], fit_per_class), (tests['points'], per_class)))
    found = np.zeros(len(tested), bool)
    for each in np.unique(tested):
        kept = category != each
        others = Turned(*(getattr(chosen['points'], key)[kept] for key in ('cues', 'right', 'yaw')))
        rest = fit_weights([chosen['meshes'], others], columns)
        found[tested == each] = hits(tests['points'], columns, rest)[tested == each]
    return figures + [figure(f'with {", ".join(TRIED)}, points of categories left out', yaw,
                             found[tests['points'].yaw == i]) for i, yaw in enumerate(YAWS)]


def model_figures(clouds: list[GaussianCloud], name: str, seed: int) -> list[Figure]:
    """Return the accuracy with the model as a further cue, on meshes turned by any yaw."""
    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.apis.upright import MODEL_WEIGHT, WEIGHTS, model_cue
    from clipgs_plugin.apis.upright_cues import CUES, up_cues
    clipgs = CLIPGSInferencer(name)
    shipped = np.array([WEIGHTS.get(cue, 0.0) for cue in CUES])
    alone, both = [], []
    for i, cloud in enumerate(clouds):
        turned, right = random_turn(cloud, np.random.default_rng((seed, i, 0)), 0)
        cue = model_cue(turned, clipgs)
        alone.append(cue.argmax() == right)
        both.append((up_cues(turned) @ shipped + MODEL_WEIGHT * cue).argmax() == right)
    return [figure('with a model, meshes', f'{name} alone', alone), figure('with a model, meshes', name, both)]
