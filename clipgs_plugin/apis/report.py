"""Results of a training run for the report page: student, teacher and chance side by side."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import DataLoader

from clipgs_plugin.apis.class_report import (
    class_tables,
    confusion_of,
    describe_record,
    difference_tables,
    find_record,
    metric_rows,
)
from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.apis.models import get_model
from clipgs_plugin.apis.search_index import SearchIndex
from clipgs_plugin.datasets import collate_gaussians
from clipgs_plugin.evaluation import (
    ConfusionMatrix,
    EvaluationRecord,
    confusion_matrix,
    recall_at_k,
    retrieval_ranks,
    topk_accuracy,
)
from clipgs_plugin.io import read_gaussians
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.visualization.report import GalleryRow, Picture, RunReport, Table

TOPK = (1, 3, 5)
RECALLS = (1, 5, 10)
TITLE = 'CLIP-GS: '  # start of every page's title


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


def collect_report(run: Path, device: str = 'cpu', queries: int = 10, results: int = 6,
                   other: Path | None = None) -> RunReport:
    """Evaluate the best checkpoint of a run and gather its curves, tables and images.

    Results by class are those that ``tools/test.py`` left in the folder, else those of the best checkpoint. A folder of
    ``tools/test.py`` without a best checkpoint is reported by its record alone.

    Args:
        run: Work dir of a training run, with its dumped config, a ``best_*.pth``, and ``embeddings.npz`` if files were
            embedded; or work dir of ``tools/test.py``.
        device: Device to compute on.
        queries: Number of captions in the gallery, each of another class.
        results: Number of images a query.
        other: Work dir of ``tools/test.py`` to compare that of the run with.

    Without the weights of the teacher, the report leaves out what class prompts answer, and says so.

    Raises:
        FileNotFoundError: The folder is not the work dir of a run, or there is no evaluation to compare.
    """
    record = find_record(run)
    differences = [] if other is None else difference_tables(run, other)
    if record is not None and not any(run.glob('best_*.pth')):
        return _record_report(record, differences)
    clipgs = CLIPGSInferencer(get_model(dumped_config(run), best_checkpoint(run), device), device=device)
    dataset = DATASETS.build(clipgs.model.cfg.test_dataloader.dataset)
    found = evaluate(clipgs, dataset)
    train_size = len(DATASETS.build(clipgs.model.cfg.train_dataloader.dataset))
    confusion = confusion_of(record) or _confusion(found)
    return RunReport(
        title=f'{TITLE}{Path(clipgs.name).stem}',
        summary=[f'Trained on {train_size} objects, evaluated on {len(found.labels)} unseen ones of '
                 f'{len(found.classes)} categories. '
                 + ('The dataset has no cached features to compare with.' if found.views is None else
                    'The teacher sees their views, the student their Gaussians.'),
                 *([describe_record(record) + ' Results by class are of this evaluation.'] if record else [])],
        curves=read_curves(run),
        columns=('', 'student, from Gaussians', 'teacher, from one view', 'chance'),
        rows=[*_zero_shot_rows(found), *_retrieval_rows(found)],
        gallery=_gallery(dataset, found, queries, results),
        files=_files(clipgs, run / 'embeddings.npz', found),
        classes=confusion.classes if confusion else (),
        confusion=confusion.counts.numpy() if confusion else None,
        tables=[*differences, *(class_tables(confusion) if confusion else [])],
        missing=found.missing and 'There are no zero-shot accuracies, no confusion matrix and no categories of your '
                                  f'files, for which the teacher embeds class prompts: {found.missing}',
    )


def _record_report(record: EvaluationRecord, differences: Sequence[Table]) -> RunReport:
    confusion = confusion_of(record)
    return RunReport(
        title=f'{TITLE}{record.config}', summary=[describe_record(record)], columns=('', 'value'),
        rows=metric_rows(record), classes=confusion.classes if confusion else (),
        confusion=confusion.counts.numpy() if confusion else None,
        tables=[*differences, *(class_tables(confusion) if confusion else [])])


def dumped_config(run: Path) -> Path:
    """Find the dumped config of a run."""
    return _one(run, '*.py', 'dumped config')


def best_checkpoint(run: Path) -> Path:
    """Find the checkpoint of a run that was best on validation."""
    return _one(run, 'best_*.pth', 'best checkpoint')


def _one(run: Path, pattern: str, what: str) -> Path:
    """Find the newest file of a pattern in a run."""
    files = sorted(run.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f'{run} has no {what} ({pattern}); name the work dir of tools/train.py')
    return files[-1]


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


def _zero_shot_rows(found: Evaluation) -> list[list[str]]:
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


def _retrieval_rows(found: Evaluation) -> list[list[str]]:
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


def _confusion(found: Evaluation) -> ConfusionMatrix | None:
    if found.prompts is None:
        return None
    return ConfusionMatrix(tuple(found.classes), confusion_matrix(found.objects @ found.prompts.T, found.labels))


def read_curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Read losses, learning rate and validation metrics of a run, resumed parts included: steps and values by name."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for path in sorted(run.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            entry = json.loads(line)
            for name in entry:
                if name in ('loss', 'lr', 'logit_scale') or name.startswith(('loss_', 'zero_shot/top', 'retrieval/')):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(entry['step'])
                    values.append(entry[name])
    wanted = ('loss', 'loss_text', 'loss_image', 'zero_shot/top1', 'retrieval/text_to_3d_R@1', 'logit_scale')
    return {name: curves[name] for name in wanted if name in curves}


def _gallery(dataset, found: Evaluation, queries: int, results: int) -> list[GalleryRow]:
    """Query with captions of classes that are spaced evenly; show the objects they find."""
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
        rows.append(GalleryRow(f'“{found.captions[query]}”', pictures))
    return rows


def _files(clipgs: CLIPGSInferencer, path: Path, found: Evaluation, limit: int = 24) -> list[GalleryRow]:
    """Show the embedded files with the three best classes of each."""
    if found.prompts is None or not path.is_file():
        return []
    from clipgs_plugin.visualization.turntable import turntable
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
