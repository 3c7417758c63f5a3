"""Objects of a scene, found, embedded and labelled."""
from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.apis.upright import estimate_up
from clipgs_plugin.evaluation import ClassEmbeddings
from clipgs_plugin.scenes import (
    LabelledScene,
    Scene,
    SplitOptions,
    TextScores,
    balance_colors,
    embed_objects,
    find_objects,
)
from clipgs_plugin.scenes.embedding import BATCH_SIZE, Track, silent
from clipgs_plugin.search import IndexCard
from clipgs_plugin.structures import GaussianCloud

DEFAULT = SplitOptions()
UP_SAMPLE = 100_000  # Gaussians that an estimate of the up axis judges by


def label_scene(scene: Scene | GaussianCloud | str | os.PathLike, clipgs: CLIPGSInferencer,
                texts: ClassEmbeddings | Sequence[str] | str | None = None, *,
                split: SplitOptions = DEFAULT, up: str = 'y', templates: str | Sequence[str] = 'plain',
                balance: bool = True, turns: int = 1, batch_size: int = BATCH_SIZE,
                track: Track = silent) -> LabelledScene:
    """Find the objects of a scene, embed them, and compare them with texts.

    Args:
        scene: Scene, its Gaussians, or its file.
        clipgs: Inferencer of the model.
        texts: Names of classes, one text to rank the objects by, or embeddings of either; None compares with nothing.
        split: Way to find the objects.
        up: Up axis of the scene, or ``'auto'`` to estimate it.
        templates: Prompts of the names.
        balance: True embeds colours without the light of the scene, by
            :func:`~clipgs_plugin.scenes.balance_colors`.
        turns: Number of equal turns about the up axis whose embeddings are averaged.
        batch_size: Number of objects in a forward pass.
        track: Function that shows the progress.

    Returns:
        The objects with their embeddings and scores.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is damaged, an option is out of range, or no object is found.

    Example:
        >>> scene = label_scene('room.ply', CLIPGSInferencer('clipgs_toy'), ['chair', 'lamp'], up='-y')
        >>> [(row.label, row.score) for row in scene.rows]
    """
    clipgs.require_embeddings()
    if turns < 1 or batch_size < 1:
        raise ValueError(f'turns={turns}, batch_size={batch_size}: expected at least 1')
    if not isinstance(scene, Scene):
        scene = Scene(scene) if isinstance(scene, GaussianCloud) else Scene.read(scene)
    up = estimate_scene_up(scene.cloud)[0] if up == 'auto' else up
    texts = _embedded(texts, clipgs, templates)

    def embed(cloud: GaussianCloud, members: Sequence[Tensor], task: str) -> Tensor:
        return embed_objects(clipgs, cloud, members, up, turns, batch_size, track, task)

    def best_cosine(members: Sequence[Tensor]) -> Tensor:
        return (embed(scene.cloud, members, 'spheres') @ texts.embeddings.T).amax(1).clamp_min(0)

    objects, way = find_objects(scene, split, up, None if texts is None else best_cosine, track)
    if not len(objects):
        others = ('or check that --background is the label of what is no object' if way.startswith('labels')
                  else 'choose another --split, or check --up')
        raise ValueError(f'{scene.name}: no object of at least {split.min_gaussians} Gaussians by {way}; lower '
                         f'--min-gaussians, {others}')
    shown = balance_colors(scene.cloud, objects) if balance else scene.cloud
    embeddings = embed(shown, objects.members, 'embedding')
    scores = None if texts is None else TextScores.of(embeddings, texts, clipgs.model.logit_scale.exp().item())
    return LabelledScene(scene, objects, embeddings, scores, way, up, turns, balance,
                         _card(clipgs, up, turns))


def _embedded(texts: ClassEmbeddings | Sequence[str] | str | None, clipgs: CLIPGSInferencer,
              templates: str | Sequence[str]) -> ClassEmbeddings | None:
    """Embed names of classes, or one text as it is."""
    if texts is None or isinstance(texts, ClassEmbeddings):
        return texts
    if isinstance(texts, str):
        return ClassEmbeddings((texts,), clipgs.embed_text(texts), clipgs.teacher_name)
    return clipgs.classes(list(dict.fromkeys(texts)), templates)


def _card(clipgs: CLIPGSInferencer, up: str, turns: int) -> IndexCard:
    """Describe the origin of the embeddings."""
    model, checkpoint = clipgs.origin or (clipgs.name, '')
    return IndexCard(model, clipgs.embed_dim, checkpoint or '', clipgs.weights_sha256(),
                     (f'--up={up}', f'--turns={turns}'), clipgs.teacher_name)


def estimate_scene_up(cloud: GaussianCloud) -> tuple[str, float]:
    """Estimate the up axis of a scene from some of its Gaussians: the axis and its confidence."""
    sample = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))[:UP_SAMPLE]
    axis, confidence, _ = estimate_up(cloud[sample])
    return axis, confidence
