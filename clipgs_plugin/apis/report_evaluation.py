"""Evaluation of a checkpoint for the report: student, teacher and chance side by side, gallery, map of embeddings."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import DataLoader

from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.datasets import collate_gaussians
from clipgs_plugin.evaluation import (
    ConfusionMatrix,
    confusion_matrix,
    recall_at_k,
    retrieval_ranks,
    topk_accuracy,
)
from clipgs_plugin.io import read_gaussians
from clipgs_plugin.search import SearchIndex
from clipgs_plugin.visualization.embedding_map import EmbeddingMap, has_umap, project
from clipgs_plugin.visualization.report import GalleryRow, Picture
from clipgs_plugin.visualization.turntable import turntable

TOPK = (1, 3, 5)
RECALLS = (1, 5, 10)
MAX_POINTS = 2000  # objects of a map


@dataclass(frozen=True)
class Evaluation:
    """Embeddings of a test set, with captions, views and class prompts."""

    objects: Tensor          # (N, E) unit, by the student
    text: Tensor | None      # (N, E) captions, by the teacher; None without cached features
    views: Tensor | None     # (N, V, E) views, by the teacher; None without cached features
    labels: Tensor           # (N,) int64
    caption_ids: Tensor      # (N,) int64
    captions: Sequence[str]  # N
    classes: Sequence[str]   # C
    prompts: Tensor | None   # (C, E) class prompts, by the teacher; None without its weights
    missing: str = ''        # why there are no prompts


@torch.inference_mode()
def evaluate(clipgs: CLIPGSInferencer, dataset) -> Evaluation:
    """Embed a labelled triplet dataset that has cached teacher features."""
    loader = DataLoader(dataset, batch_size=32, collate_fn=collate_gaussians)
    samples = [sample for batch in loader for sample in clipgs.model.test_step(batch)]

    def stack(key: str) -> Tensor | None:
        values = [sample.get(key) for sample in samples]
        return None if any(value is None for value in values) else torch.stack([value.cpu() for value in values])

    classes, missing = dataset.metainfo['classes'], ''
    try:
        prompts = clipgs.classes(classes, _templates(clipgs.model.cfg)).embeddings
    except FileNotFoundError as error:  # of the teacher's weights
        prompts, missing = None, str(error)
    return Evaluation(stack('embedding'), stack('text'), stack('views'), stack('label'), stack('caption_id'),
                      [sample.caption for sample in samples], classes, prompts, missing)


def _templates(cfg: Config) -> str | Sequence[str]:
    """Return the prompts of the run's zero-shot metric."""
    evaluators = [cfg.test_evaluator] if isinstance(cfg.test_evaluator, dict) else cfg.test_evaluator
    metrics = [metric for metric in evaluators if metric['type'].endswith('ZeroShotAccuracy')]
    return metrics[0].get('templates', 'plain') if metrics else 'plain'


def zero_shot_rows(found: Evaluation) -> list[list[str]]:
    if found.prompts is None:
        return []
    topk = [k for k in TOPK if k <= len(found.classes)]
    student = topk_accuracy(found.objects @ found.prompts.T, found.labels, topk)
    if found.views is None:
        return [[f'zero-shot top-{k} (%)', f'{student[k]:.1f}', '-', f'{100 * k / len(found.classes):.1f}']
                for k in topk]
    scores = found.views.flatten(0, 1) @ found.prompts.T
    teacher = topk_accuracy(scores, found.labels.repeat_interleave(found.views.shape[1]), topk)
    return [[f'zero-shot top-{k} (%)', f'{student[k]:.1f}', f'{teacher[k]:.1f}', f'{100 * k / len(found.classes):.1f}']
            for k in topk]


def retrieval_rows(found: Evaluation) -> list[list[str]]:
    """Compute recall in the full gallery; the teacher represents an object by its first view."""
    if found.text is None or found.views is None:
        return []
    first, own = found.views[:, 0], torch.arange(len(found.labels))
    other = found.views[:, found.views.shape[1] // 2]
    student = {'text to 3D': (found.text, found.objects, found.caption_ids),
               '3D to text': (found.objects, found.text, found.caption_ids),
               'image to 3D': (first, found.objects, own)}
    teacher = {'text to 3D': (found.text, first, found.caption_ids),
               '3D to text': (first, found.text, found.caption_ids),
               'image to 3D': (first, other, own)}
    rows = []
    for way in student:
        ranks = [retrieval_ranks(query, gallery, ids, ids) for query, gallery, ids in (student[way], teacher[way])]
        rows += [[f'{way} R@{k} (%)', *(f'{recall_at_k(rank, k):.1f}' for rank in ranks),
                  f'{100 * k / len(found.labels):.1f}'] for k in RECALLS]
    return rows


def confusion_of_prompts(found: Evaluation) -> ConfusionMatrix | None:
    if found.prompts is None:
        return None
    return ConfusionMatrix(tuple(found.classes), confusion_matrix(found.objects @ found.prompts.T, found.labels))


def gallery(dataset, found: Evaluation, queries: int, results: int, name: str = '') -> list[GalleryRow]:
    """Query with captions of classes that are spaced evenly; show the objects they find.

    Args:
        dataset: Objects with views.
        found: Their embeddings.
        queries: Number of captions.
        results: Number of objects a query.
        name: Name of the run, beside the query.
    """
    if found.text is None or found.views is None:
        return []
    classes = np.unique(np.linspace(0, len(found.classes) - 1, queries).round().astype(int))
    rows = []
    for label in classes:
        members = (found.labels == label).nonzero()[:, 0]
        if not len(members):
            continue
        query = int(members[0])
        scores, order = (found.objects @ found.text[query]).sort(descending=True)
        pictures = [Picture(dataset.reader.read_views(dataset.rows[i], [0])[0], f'{found.captions[i]} ({score:.2f})',
                            bool(found.labels[i] == label))
                    for i, score in zip(order[:results].tolist(), scores)]
        rows.append(GalleryRow(f'“{found.captions[query]}”' + (f' {name}' if name else ''), pictures))
    return rows


def files(clipgs: CLIPGSInferencer, path: Path, found: Evaluation, limit: int = 24) -> list[GalleryRow]:
    """Show the embedded files with the three best classes of each."""
    if found.prompts is None or not path.is_file():
        return []
    index = SearchIndex.load(path)
    scale = clipgs.model.logit_scale.exp().item()
    rows = []
    for name, embedding in list(zip(index.paths, index.embeddings))[:limit]:
        probabilities, order = (scale * found.prompts @ embedding).softmax(-1).topk(min(3, len(found.classes)))
        guesses = ', '.join(f'{found.classes[i]} {100 * p:.0f} %' for i, p in zip(order, probabilities))
        views = turntable(read_gaussians(name), num_views=4, size=128)
        images = (views.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        rows.append(GalleryRow(f'{Path(name).name}: {guesses}', [Picture(image, '') for image in images]))
    return rows


def embedding_map(found: Evaluation, title: str, pictures: Sequence[np.ndarray]) -> EmbeddingMap:
    """Lay out the objects of an evaluation by PCA, and by UMAP where umap-learn is installed.

    Args:
        found: Embeddings of the objects.
        title: Heading of the map.
        pictures: Pictures of the objects of :func:`chosen_objects`.
    """
    chosen = chosen_objects(found)
    vectors = found.objects[chosen].double().numpy()
    prompts = None if found.prompts is None else found.prompts.double().numpy()
    places, stars = {}, {}
    for method in ('pca', *(['umap'] if has_umap() else [])):
        points, marks, words = project(vectors, method, prompts)
        places[words] = points
        if marks is not None:
            stars[words] = marks
    labels = found.labels[chosen].tolist()
    names = [f'{found.classes[label] if label >= 0 else "no class"}: {found.captions[i]}'
             for i, label in zip(chosen, labels)]
    count = f'{len(chosen)} objects' if len(chosen) == len(found.labels) else (
        f'{len(chosen)} of {len(found.labels)} objects, spaced evenly')
    return EmbeddingMap(title, places, labels, names, found.classes, stars, pictures,
                        f'{count}. Point at one for its name and picture, or at a class to see it alone.'
                        + ('' if prompts is None else ' Prompts and objects are each centred on their own mean.'))


def chosen_objects(found: Evaluation) -> list[int]:
    """Choose the objects of a map, spaced evenly if there are more than ``MAX_POINTS``."""
    count = len(found.labels)
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).round().astype(int)).tolist()


def picture_of(dataset, index: int, size: int = 96) -> np.ndarray:
    """Return the first view of an object, or render its Gaussians where the dataset has no views; (H, W, 3) uint8."""
    if hasattr(dataset, 'reader'):
        return dataset.reader.read_views(dataset.rows[index], [0])[0]
    loaded = dataset.load(index, np.random.default_rng(0))
    cloud = loaded['gaussians'] if 'gaussians' in loaded else read_gaussians(loaded['path'])
    return (turntable(cloud, 1, size)[0] * 255).round().to(torch.uint8).numpy()
