"""Cells of a table: one row with one seed, trained, tested and filed under its settings."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from torch import nn

from clipgs_plugin.engine.experiments import embed_dataset, last_epoch_config
from clipgs_plugin.engine.launch import check_data, launched
from clipgs_plugin.engine.records import record_of
from clipgs_plugin.engine.table_spec import Pretraining, Row, Table
from clipgs_plugin.evaluation import EvaluationRecord
from clipgs_plugin.evaluation.linear_probe import linear_probe
from clipgs_plugin.evaluation.record import NAME, joined
from clipgs_plugin.io.files import sha256_of
from clipgs_plugin.models.checkpoints.trained import find_weights
from clipgs_plugin.registry import DATASETS

VERSION = 1  # of what a cell measures; a change of the meaning of its results raises it
_TRAINING = 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'
OWN_TEST: Mapping[str, Mapping] = {'': {}}


@dataclasses.dataclass(frozen=True)
class Data:
    """The data of the cells, and settings of the user.

    Attributes:
        folder: Function that returns the folder of a world given its settings.
        root: Folder of the user's data in place of the worlds; None uses the worlds.
        options: Settings of the user for all configs, by dotted keys.
    """

    folder: Callable[[Mapping], str]
    root: str | None = None
    options: Mapping = dataclasses.field(default_factory=dict)


def described(world: Mapping) -> str:
    """Describe a world by its settings, as a name of a folder."""
    return '-'.join(f'{name.removeprefix("num_")}_{value}' for name, value in sorted(world.items()))


def cell_config(table: Table, part: Row | Pretraining, seed: int, data: Data, work_dir: Path,
                checkpoint: str | None = None) -> Config:
    """Load the config of a row or of a pre-training.

    Args:
        table: The table.
        part: Row, or pre-training.
        seed: Number of the repeat.
        data: Data of the cell.
        work_dir: Folder of the run.
        checkpoint: Point-cloud checkpoint from which the row starts.
    """
    own = {**table.options, **part.options}
    if data.root is not None:
        own['data_root'] = data.root
    elif table.worlds and part.world is not None:
        # A world has the splits that it needs, so no training object is held out for a missing one.
        own |= dict(data_root=data.folder(table.worlds[part.world]), hold_out=0.0)
    options = {**own, **data.options, 'randomness.seed': seed}
    if isinstance(part, Row) and table.repeats:
        options.update(table.repeats[seed])
    cfg = last_epoch_config(part.config or table.config, work_dir, options)
    if checkpoint is not None:
        cfg.model.encoder.init_cfg = dict(type='PointCloudPretrained', checkpoint=checkpoint)
    return cfg


def digest(table: Table, part: Row | Pretraining, seed: int, data: Data) -> str:
    """Hash everything that decides the result of a part, wherever its files are."""
    data = dataclasses.replace(data, folder=described)
    start = table.pretrainings[part.start] if isinstance(part, Row) and part.start else None
    before = digest(table, start, 0, data) if start else None
    cfg = cell_config(table, part, seed, data, Path('cell'), before).to_dict()
    content = [VERSION, {key: value for key, value in cfg.items() if key not in ('work_dir', 'experiment_name')}]
    if isinstance(part, Row):
        content += [part.trained, table.tests, table.probe]
    else:
        content.append(part.family)
    init = (cfg['model'].get('encoder') or {}).get('init_cfg') or {}
    if str(init.get('type')).endswith('CLIPGSPretrained'):  # a name stays when its weights are trained anew
        with find_weights(init['checkpoint']).open('rb') as file:
            content.append(sha256_of(file))
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def file_name(row: Row, seed: int, settings: str) -> str:
    """Return the name of the file of a cell's results, given the hash of its settings."""
    words = re.sub(r'[^\w]+', '-', row.title).strip('-').lower()
    return f'{words}-{seed}-{settings}.json'


def run_cell(cfg: Config, table: Table, row: Row) -> dict:
    """Train and test a row, and leave the record of the test, ``metrics.json``, in the work dir of the config.

    Args:
        cfg: Config of the cell.
        table: The table, for its test sets and probe.
        row: The row.

    Returns:
        ``metrics`` by name in percent, ``outcomes``: right or wrong answers as a string of 1 and 0 by the name of the
        metric, ``objects``: a hash of the test objects by the name of the metric.
    """
    check_data(cfg, ('train', 'test') if row.trained else ('test',))
    if not row.trained:  # a config without training may have got a part of one from the options of the table
        cfg = Config({**cfg.to_dict(), **dict.fromkeys(_TRAINING)}, filename=cfg.filename)
    metrics: dict[str, float] = {}
    records: dict[str, EvaluationRecord] = {}
    outcomes: dict[str, str] = {}
    objects: dict[str, str] = {}
    with launched(cfg) as runner:
        model = runner.train() if row.trained else _untrained(runner, row.config or table.config)
        for name, options in (table.tests or OWN_TEST).items():
            prefix = f'{name}/' if name else ''
            part = Config(cfg.to_dict(), filename=cfg.filename)
            part.merge_from_dict(dict(options))
            records[name], right, uids = evaluate(model, part)
            found = records[name].metrics
            if table.probe is not None:
                accuracy, answers = probe(model, part, table.probe)
                found['probe/top1'], right['probe/top1'] = accuracy, answers
                uids['probe/top1'] = f'test objects {len(answers)}'
            metrics.update({prefix + key: value for key, value in found.items()})
            outcomes.update({prefix + key: value for key, value in right.items()})
            objects.update({prefix + key: value for key, value in uids.items()})
    _save_record(joined(records), Path(cfg.work_dir))
    return dict(row=row.title, seed=cfg.randomness.seed, metrics=metrics, outcomes=outcomes, objects=objects)


def _save_record(record: EvaluationRecord, folder: Path) -> None:
    """Write the record of a cell, without the accuracies of classes that its confusion matrices have too."""
    short = {name: value for name, value in record.metrics.items() if '/top1/' not in name}
    dataclasses.replace(record, metrics=short).save(folder / NAME)


def _untrained(runner, name: str) -> nn.Module:
    """Return the model of a runner with the weights that its config or name stands for."""
    from clipgs_plugin.apis.model_list import has_weights
    from clipgs_plugin.apis.models import get_model
    if hasattr(runner.model, 'init_weights'):
        runner.model.init_weights()
    if has_weights(name):
        runner.model.load_state_dict(get_model(name).state_dict())
    runner.load_or_resume()
    return runner.model


@torch.no_grad()
def evaluate(model: nn.Module, cfg: Config) -> tuple[EvaluationRecord, dict[str, str], dict[str, str]]:
    """Test a model on the test set of a config; return the record, outcomes and hashes of the test objects."""
    from mmengine.runner import Runner
    loader = Runner.build_dataloader(dict(cfg.test_dataloader), seed=0)
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    evaluator = Evaluator(evaluators)
    evaluator.dataset_meta = getattr(loader.dataset, 'metainfo', None)
    model.eval()
    for batch in loader:
        evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
    metrics = evaluator.evaluate(len(loader.dataset))
    right: dict[str, str] = {}
    uids: dict[str, str] = {}
    for metric in evaluator.metrics:
        for name, outcome in (getattr(metric, 'outcomes', None) or {}).items():
            key = f'{metric.prefix}/{name}'
            right[key] = _digits(outcome.right)
            uids[key] = hashlib.sha256('\n'.join(map(str, outcome.uids)).encode()).hexdigest()[:12]
    return record_of(cfg, evaluator, metrics, len(loader.dataset)), right, uids


def probe(model: nn.Module, cfg: Config, options: Mapping) -> tuple[float, str]:
    """Classify test objects by a linear probe on the pooled features of labelled ones; return accuracy and outcomes."""
    dataset = cfg.test_dataloader.dataset
    shots, _, shot_labels = embed_dataset(model, DATASETS.build({**dataset, **options}))
    features, _, labels = embed_dataset(model, DATASETS.build(dataset))
    right = linear_probe(shots, shot_labels, features) == labels
    return 100 * right.double().mean().item(), _digits(right)


def _digits(right: torch.Tensor) -> str:
    return ''.join('1' if each else '0' for each in right.tolist())
