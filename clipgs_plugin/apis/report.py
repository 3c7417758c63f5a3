"""Results of any number of runs for the report page."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipgs_plugin.apis import report_evaluation as evaluation
from clipgs_plugin.apis.class_report import class_tables, confusion_of, describe_record, difference_tables
from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.apis.models import get_model
from clipgs_plugin.apis.report_evaluation import Evaluation
from clipgs_plugin.apis.report_runs import Run, best_checkpoint, dumped_config, group_seeds, read_runs
from clipgs_plugin.evaluation.few_shot import mean_and_std
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.visualization.embedding_map import EmbeddingMap
from clipgs_plugin.visualization.report import Confusion, GalleryRow, RunReport, Table

TITLE = 'CLIP-GS: '  # start of every page's title
MAX_CONFUSIONS = 6   # matrices on a page


@dataclass(frozen=True)
class _Evaluated:
    """Run whose best checkpoint was evaluated anew."""

    run: Run
    clipgs: CLIPGSInferencer
    dataset: object
    found: Evaluation


def collect_report(*paths: Path, device: str = 'cpu', queries: int = 10, results: int = 6) -> RunReport:
    """Gather metrics, curves, differences, gallery, map and confusion matrices of runs.

    Runs that differ by their seed only are one column, of mean and standard deviation. Of each column, the best
    checkpoint of the first run is evaluated anew for the gallery and the map. Results by class are those that
    ``tools/test.py`` or the cells of a table left, else those of this evaluation, else of the last validation. Two runs
    are compared metric by metric and class by class.

    Args:
        paths: Work dirs of ``tools/train.py`` and ``tools/test.py``, of ``tools/few_shot.py``, and folders of
            ``tools/run_table.py``.
        device: Device to compute on.
        queries: Number of captions in the gallery, each of another class.
        results: Number of images a query.

    Without the weights of the teacher, the report leaves out what class prompts answer, and says so.

    Raises:
        FileNotFoundError: A folder holds no results, or the only run has none but a checkpoint whose data are gone.
        ValueError: A file of results is damaged.
    """
    runs = read_runs(paths)
    groups = group_seeds(runs)
    evaluated, missing = [], []
    for group in groups:
        try:
            if (each := _evaluate(group, device)) is not None:
                evaluated.append(each)
        except FileNotFoundError as error:
            if len(groups) == 1 and group.record is None:
                raise
            missing.append(f'The checkpoint of {group.name} was not evaluated anew: {error}.')
    missing += [f'Without class prompts there are no zero-shot accuracy and no confusion matrix: {each.found.missing}'
                for each in evaluated[:1] if each.found.missing]
    many = len(groups) > 1
    confusions = _confusions(groups, evaluated)
    rows = [] if many or not evaluated else [*evaluation.zero_shot_rows(evaluated[0].found),
                                             *evaluation.retrieval_rows(evaluated[0].found)]
    first = groups[0]
    return RunReport(
        title=TITLE + (' and '.join(group.name for group in groups) if len(groups) < 3 else f'{len(groups)} runs'),
        summary=_summary(groups, evaluated),
        runs=_runs_table(groups) if len(runs) > 1 else None,
        metrics=_metrics_table(groups) if many or (first.metrics and (first.record or not rows)) else None,
        curves=_curves(groups),
        columns=('', 'student, from Gaussians', 'teacher, from one view', 'chance') if rows else (),
        rows=rows,
        differences=_differences(runs, groups),
        gallery=_gallery(evaluated, queries, results, many),
        maps=_maps(evaluated),
        files=[] if many or not evaluated else evaluation.files(
            evaluated[0].clipgs, evaluated[0].run.paths[0] / 'embeddings.npz', evaluated[0].found),
        confusions=[Confusion(name, each.classes, each.counts.numpy()) for name, each in confusions],
        tables=[] if many or not confusions else class_tables(confusions[0][1]),
        missing=' '.join(missing))


def _evaluate(group: Run, device: str) -> _Evaluated | None:
    """Evaluate the best checkpoint of a run that embeds objects; None for another run."""
    path = group.evaluable
    if path is None:
        return None
    model = get_model(dumped_config(path), best_checkpoint(path), device)
    if not hasattr(model, 'encoder'):
        return None
    clipgs = CLIPGSInferencer(model, device=device)
    dataset = DATASETS.build(clipgs.model.cfg.test_dataloader.dataset)
    return _Evaluated(group, clipgs, dataset, evaluation.evaluate(clipgs, dataset))


def _summary(groups: Sequence[Run], evaluated: Sequence[_Evaluated]) -> list[str]:
    lines = []
    if len(groups) == 1 and evaluated:
        found, cfg = evaluated[0].found, evaluated[0].clipgs.model.cfg
        size = len(DATASETS.build(cfg.train_dataloader.dataset))
        lines.append(f'Trained on {size} objects, evaluated on {len(found.labels)} unseen ones of '
                     f'{len(found.classes)} categories. '
                     + ('The dataset has no cached features to compare with.' if found.views is None else
                        'The teacher sees their views, the student their Gaussians.'))
    if len(groups) == 1 and groups[0].record is not None:
        lines.append(describe_record(groups[0].record))
    return lines


def _runs_table(groups: Sequence[Run]) -> Table:
    rows = []
    for group in groups:
        record = group.record
        seeds = ', '.join(str(seed) for seed in group.seeds if seed is not None)
        data = '' if record is None else f'{record.num_objects} of ' + (
            ', '.join(record.dataset[key] for key in ('root', 'split') if key in record.dataset) or 'its test set')
        weights = '' if record is None or record.checkpoint is None else (
            f'{Path(record.checkpoint).name} ({str(record.checkpoint_sha256)[:12]})')
        rows.append([group.name, group.source, seeds or '-', weights or '-', data or '-'])
    return Table('Runs', '', ('run', 'config', 'seeds', 'checkpoint', 'test objects'), rows)


def _metrics_table(groups: Sequence[Run]) -> Table:
    names = list(dict.fromkeys(name for group in groups for name in group.metrics))
    families = list(dict.fromkeys(name.partition('/')[0] for name in names))
    names.sort(key=lambda name: families.index(name.partition('/')[0]))
    spread = any(len(values) > 1 for group in groups for values in group.metrics.values())
    note = 'In percent, except for ranks.' + (
        ' Mean ± standard deviation over seeds, or over the trials of few-shot tasks.' if spread else '') + (
        ' The best of a row is bold.' if len(groups) > 1 else '')
    places = {(group.record.num_objects, str(group.record.dataset.get('root')), str(group.record.dataset.get('split')))
              for group in groups if group.record is not None}
    if len(places) > 1:
        note += ' The runs were evaluated on different objects, so their figures do not compare.'
    if any(name.endswith('(validation)') for name in names):
        note += ' Runs that tools/test.py did not evaluate have the figures of their last validation, in rows apart.'
    return Table('Metrics', note, ('', *(group.name for group in groups)),
                 [[name, *(_cell(group.metrics.get(name, ())) for group in groups)] for name in names])


def _cell(values: Sequence[float]) -> str:
    if not values:
        return '-'
    mean, std = mean_and_std(values)
    return f'{mean:.1f}' + (f' ± {std:.1f}' if len(values) > 1 else '')


def _curves(groups: Sequence[Run]) -> dict[str, dict[str, list]]:
    names = dict.fromkeys(name for group in groups for name in group.curves)
    return {name: {group.name: list(group.curves[name]) for group in groups if name in group.curves} for name in names}


def _differences(runs: Sequence[Run], groups: Sequence[Run]) -> list[Table]:
    """Compare two runs, or two groups of runs by their means."""
    pair = runs if len(runs) == 2 else groups
    if len(pair) != 2 or None in (pair[0].record, pair[1].record):
        return []
    return difference_tables(pair[0].record, pair[1].record, (pair[0].name, pair[1].name))


def _gallery(evaluated: Sequence[_Evaluated], queries: int, results: int, many: bool) -> list[GalleryRow]:
    """List the rows of all runs query by query."""
    rows = [evaluation.gallery(each.dataset, each.found, queries, results, f'– {each.run.name}' if many else '')
            for each in evaluated]
    longest = max(map(len, rows), default=0)
    return [part[i] for i in range(longest) for part in rows if i < len(part)]


def _maps(evaluated: Sequence[_Evaluated]) -> list[EmbeddingMap]:
    """Make the map of each run; runs on one test set share its pictures."""
    sheets: dict[tuple, Sequence[np.ndarray]] = {}
    maps = []
    for each in evaluated:
        if len(each.found.labels) < 3:
            continue
        key = str(each.clipgs.model.cfg.test_dataloader.dataset), len(each.found.labels)
        if key not in sheets:
            sheets[key] = [evaluation.picture_of(each.dataset, i) for i in evaluation.chosen_objects(each.found)]
        maps.append(evaluation.embedding_map(each.found, each.run.name, sheets[key]))
    return maps


def _confusions(groups: Sequence[Run], evaluated: Sequence[_Evaluated]) -> list[tuple[str, object]]:
    anew = {each.run.name: evaluation.confusion_of_prompts(each.found) for each in evaluated}
    found = []
    for group in groups:
        recorded = confusion_of(group.record)
        if group.record is not None and group.record.part == 'val':  # a test of the best checkpoint says more
            found.append((group.name, anew[group.name]) if anew.get(group.name) else
                         (f'{group.name} (validation)', recorded))
        else:
            found.append((group.name, recorded or anew.get(group.name)))
    return [pair for pair in found if pair[1] is not None][:MAX_CONFUSIONS]
