"""Objects found in made scenes: whether they are the true ones, and whether they are recognised."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from clipgs_plugin import GaussianCloud, ops, read_gaussians
from clipgs_plugin.evaluation import InstanceMatch, cosines, match_instances, ranks
from clipgs_plugin.scenes import SceneObjects, balance_colors
from clipgs_plugin.structures import SH_C0
from clipgs_plugin.tools.benchmarks.figures import Figure, figure
from clipgs_plugin.tools.benchmarks.splat_fits import FitSize, cached_fit, fit

SIZE, ITERATIONS = FitSize(), 100  # of the fits of the gallery
LUMINANCE = 0.2126, 0.7152, 0.0722
GAMMA, DARK = 2.2, 0.08  # of sRGB; luminance that is too dark to tell the light on it
NEAR = 0.03  # of the same surface in two fits, in units of a scene; objects are 0.3 to 0.5 large


def scene_truth(scenes: str = 'work_dirs/scenes', meshes: str = 'gso', up: str = 'z', split: str = 'labels',
                model: str = 'clipgs_toy', checkpoint: str = '', turns: int = 1, limit: int = 0,
                cache: str = 'work_dirs/scene_gallery') -> list[Figure]:
    """Measure how many objects of scenes of tools/make_scenes.py are found, and how many of those are recognised.

    Recognition is retrieval among all meshes, each fitted alone: the embedding of an object of a scene beside those of
    the gallery. --split labels takes the true objects. Fits of the gallery are kept in CACHE.
    """
    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.generation.scenes import read_scene, scene_folders
    if split not in SPLITS:
        raise ValueError(f'--split {split}: expected one of {", ".join(SPLITS)}')
    folders = scene_folders(Path(scenes))[:limit or None]
    found = []
    for folder in folders:
        scene = read_scene(folder)
        labels = SPLITS[split](scene.cloud, scene.labels)
        found.append(Found(scene, labels, match_instances(labels, scene.labels)))
    clipgs = CLIPGSInferencer(model, checkpoint or None)

    def embed(clouds: Sequence[GaussianCloud]) -> Tensor:
        return clipgs.embed_gaussians(clouds, turns=turns)

    gallery = Gallery(meshes, up, cache, embed)
    return [*instance_figures([each.match for each in found], split), *light_figures(found, gallery),
            *recognition_figures(found, gallery, embed, split)]


class Found(NamedTuple):
    """A scene and the objects found in it."""

    scene: object          # TruthScene
    labels: Tensor         # (N,) int64, as found
    match: InstanceMatch

    def true_objects(self) -> list[GaussianCloud]:
        """Cut the true objects out, in the order of their ids."""
        return [self.scene.cloud[self.scene.labels == item['id']] for item in self.scene.objects]

    def balanced(self) -> Found:
        """Remove the light of the scene, which is estimated from the objects that were found."""
        cloud = balance_colors(self.scene.cloud, SceneObjects.from_labels(self.labels))
        return self._replace(scene=replace(self.scene, cloud=cloud))

    def found_objects(self) -> list[GaussianCloud | None]:
        """Cut the found object out that matches each true one; None where there is none."""
        by_id = dict(zip(self.match.true_ids.tolist(), zip(self.match.is_found().tolist(), self.match.match.tolist())))
        picks = [by_id.get(item['id'], (False, -1)) for item in self.scene.objects]
        return [self.scene.cloud[self.labels == self.match.found_ids[index]] if is_found else None
                for is_found, index in picks]


def instance_figures(matches: Sequence[InstanceMatch], split: str) -> list[Figure]:
    """Summarise matches of several scenes; every object weighs the same."""
    return [figure('true objects found, IoU >= 0.5', split, torch.cat([m.is_found() for m in matches]).tolist()),
            figure('IoU of true objects', split, torch.cat([m.matched_ious for m in matches]).tolist()),
            figure('found objects that are true', split,
                   [i in m.match[m.is_found()].tolist() for m in matches for i in range(len(m.found_ids))]),
            figure('purity of found objects', split, torch.cat([m.purities for m in matches]).tolist())]


def light_figures(found: Sequence[Found], gallery: Gallery) -> list[Figure]:
    """Describe how bright the objects of scenes are beside themselves alone, and how much the light on them differs."""
    alone, there, stops = [], [], []
    for each in found:
        for item, cut in zip(each.scene.objects, each.true_objects()):
            same = in_place(gallery.alone(item['uid'], seed=1), item)
            if not len(cut):
                continue
            shown = cut.rgb @ cut.rgb.new_tensor(LUMINANCE)
            own = recolored(cut, same).rgb @ cut.rgb.new_tensor(LUMINANCE)
            light = (shown / own)[own > DARK].clamp_min(1e-3)
            alone.append(float(own.mean()))
            there.append(float(shown.mean()))
            if len(light):
                dark, bright = light.quantile(light.new_tensor([0.1, 0.9])).tolist()
                stops.append(GAMMA * math.log2(bright / dark))
    return [figure('luminance of objects, sRGB', 'alone', alone),
            figure('luminance of objects, sRGB', 'in the scene', there),
            figure('bright to dark light on an object, stops', 'in the scene', stops)]


class Gallery:
    """Embeddings of all meshes, each fitted alone.

    Args:
        meshes: Folder of the meshes.
        up: Their up axis.
        cache: Folder that keeps the fits.
        embed: Function from clouds to embeddings, (n, E).
    """

    def __init__(self, meshes: str, up: str, cache: str, embed: Callable[[Sequence[GaussianCloud]], Tensor]) -> None:
        from clipgs_plugin.generation.sources import MeshSource
        self._source, self._cache = MeshSource(up=up), Path(cache)
        self._listed = {item.uid: item for item in self._source.list(Path(meshes))}
        self.uids = list(self._listed)
        self.embeddings = embed([self.alone(uid) for uid in self.uids])

    def alone(self, uid: str, seed: int = 0) -> GaussianCloud:
        """Return the fit of a mesh alone, with y up; other seeds are other fits."""
        if uid not in self._listed:
            raise ValueError(f'{uid} is in a scene and not among the {len(self.uids)} meshes; name the folder that the '
                             'scenes were made of')
        return read_gaussians(cached_fit(uid, 'alone', self._cache, SIZE, seed, lambda: self._fit(uid, seed)))

    def _fit(self, uid: str, seed: int) -> GaussianCloud:
        from clipgs_plugin.generation import FitSettings
        from clipgs_plugin.generation.rendering import choose_renderer
        from clipgs_plugin.generation.rendering.surfaces import normalised, sample_surface, turned
        mesh, _, _ = normalised(turned(self._source.load(self._listed[uid]), self._source.up))
        settings = FitSettings(num_gaussians=SIZE.gaussians, iterations=ITERATIONS, check_every=0)
        start = sample_surface(mesh, SIZE.gaussians, seed).discs()
        return fit(mesh, start, settings, SIZE, seed, choose_renderer())

    def scores(self, queries: Tensor, uids: Sequence[str]) -> tuple[list[int], list[float]]:
        """Return the rank of the right mesh and the cosine to it, for queries (n, E) of objects by name."""
        scores = cosines(queries, self.embeddings)
        right = torch.tensor([[uid == other for other in self.uids] for uid in uids])
        return ranks(scores, right).tolist(), scores[right].tolist()


def recognition_figures(found: Sequence[Found], gallery: Gallery, embed: Callable[[Sequence[GaussianCloud]], Tensor],
                        split: str) -> list[Figure]:
    """Retrieve the objects of scenes, as found, cut by the truth and from another fit alone."""
    items = [item for each in found for item in each.scene.objects]
    cut = [cloud for each in found for cloud in each.true_objects()]
    alone = [in_place(gallery.alone(item['uid'], seed=1), item) for item in items]
    bare = [recolored(*pair) for pair in zip(cut, alone)]
    ways: dict[str, list[GaussianCloud | None]] = {
        'alone, another fit': alone,
        'alone, only what the scene shows': [near(*pair) for pair in zip(alone, cut)],
        'alone, in the colours of the scene': [recolored(*pair) for pair in zip(alone, cut)],
        'in the scene, as bright as alone': [as_bright(*pair) for pair in zip(cut, alone)],
        'in the scene, in the colours alone': bare,
        'in the scene, cut by truth': cut,
        'in the scene, without its light': _by_scene(found, cut),
        'in the scene, without light, object by object': [without_light([cloud])[0] for cloud in cut],
        'in the colours alone, "light" removed': _by_scene(found, bare)}
    if split != 'labels':
        for name, each in ((f'in the scene, found by {split}', found),
                           (f'found by {split}, without its light', [each.balanced() for each in found])):
            ways[name] = [cloud for one in each for cloud in one.found_objects()]
    figures: list[Figure] = []
    for way, clouds in ways.items():
        there = [i for i, cloud in enumerate(clouds) if cloud is not None and len(cloud)]
        rank, cosine = [], []
        if there:
            rank, cosine = gallery.scores(embed([clouds[i] for i in there]), [items[i]['uid'] for i in there])
        figures += [figure('top-1 of those there', way, [r == 1 for r in rank]),
                    figure('top-5 of those there', way, [r <= 5 for r in rank]),
                    figure('cosine to the object alone', way, cosine)]
        if len(there) < len(items):
            figures.append(figure('top-1 of all', way, [r == 1 for r in rank] + [False] * (len(items) - len(there))))
    return sorted(figures, key=lambda row: [f.what for f in figures].index(row.what))


def in_place(cloud: GaussianCloud, item: dict) -> GaussianCloud:
    """Turn, scale and move an object that was fitted alone to its place in a scene, by the boxes of the two."""
    from clipgs_plugin.ops.rotations import y_rotation
    turned = cloud.transform(y_rotation(math.radians(item['yaw_degrees'])).float())
    low, high = turned.means.amin(0), turned.means.amax(0)
    box = torch.tensor([item['low'], item['high']])
    factor = float((box[1] - box[0]).max() / (high - low).max())
    return turned.translate_scale(-(low + high) / 2, factor).translate_scale(box.mean(0), 1.0)


def near(cloud: GaussianCloud, shown: GaussianCloud) -> GaussianCloud:
    """Keep the Gaussians that have one of another cloud within ``NEAR``; all if there are none."""
    if not len(shown):
        return cloud
    _, distances = ops.knn(shown.means[None], cloud.means[None], 1)
    kept = distances[0, :, 0] <= NEAR ** 2
    return cloud[kept] if kept.any() else cloud


def recolored(cloud: GaussianCloud, source: GaussianCloud) -> GaussianCloud:
    """Give each Gaussian the colour of the nearest one of another cloud."""
    if not (len(cloud) and len(source)):
        return cloud
    index, _ = ops.knn(source.means[None], cloud.means[None], 1)
    return cloud.replace(sh=source.sh[index[0, :, 0]])


def as_bright(cloud: GaussianCloud, source: GaussianCloud) -> GaussianCloud:
    """Multiply all colours by the one gain that gives the mean brightness of another cloud."""
    if not (len(cloud) and len(source)):
        return cloud
    gain = float(source.rgb.mean() / cloud.rgb.mean().clamp_min(1e-3))
    return cloud.replace(sh=((gain * cloud.rgb - 0.5) / SH_C0)[:, None])


def without_light(clouds: Sequence[GaussianCloud]) -> list[GaussianCloud]:
    """Remove the light of objects of one scene, which is estimated from all of them."""
    labels = torch.arange(len(clouds)).repeat_interleave(torch.tensor([len(cloud) for cloud in clouds]))
    fields = zip(*([value for _, value in cloud.fields()] for cloud in clouds))
    whole = balance_colors(GaussianCloud(*map(torch.cat, fields)), SceneObjects.from_labels(labels, 1))
    return [whole[labels == i] for i in range(len(clouds))]


def _by_scene(found: Sequence[Found], clouds: Sequence[GaussianCloud]) -> list[GaussianCloud]:
    """Remove the light of the objects of several scenes, one after another."""
    rest = iter(clouds)
    return [cloud for each in found for cloud in without_light(list(islice(rest, len(each.scene.objects))))]


def _by_labels(cloud: GaussianCloud, truth: Tensor) -> Tensor:
    """Take the true objects."""
    return torch.where(truth > 0, truth, -1)


def _by_clusters(cloud: GaussianCloud, truth: Tensor) -> Tensor:
    """Split by clusters, as ``tools/label_scene.py`` does."""
    from clipgs_plugin.scenes import split_by_clusters
    return split_by_clusters(cloud, up='y')


def _by_spheres(cloud: GaussianCloud, truth: Tensor) -> Tensor:
    """Split by spheres, as ``tools/label_scene.py`` does."""
    from clipgs_plugin.scenes import split_by_spheres
    return split_by_spheres(cloud, up='y')


SPLITS: dict[str, Callable[[GaussianCloud, Tensor], Tensor]] = {
    'labels': _by_labels, 'clusters': _by_clusters, 'spheres': _by_spheres}
