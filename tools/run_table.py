"""Run the experiments behind a table of the documentation and print it.

Each run leaves a file with its numbers, so a table that was interrupted goes on where it was.
"""
from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipgs_plugin.tools._program import TINY_TABLE, parser, progress_bar, run

TABLES: dict[str, Callable[..., None]] = {}


def table(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a table that can be asked for."""
    TABLES[function.__name__] = function
    return function


@dataclasses.dataclass(frozen=True)
class Scores:
    """One run, accuracies in percent."""

    zero_shot: float
    ten_shot: float
    seconds: float


# backbones: from a family's file to better numbers


@dataclasses.dataclass(frozen=True)
class Row:
    """A backbone of the table.

    Attributes:
        title: What it is called.
        config: Of its toy-world experiment.
        family: Of its checkpoints; None where there are none, and the row is from scratch only.
        sees: What its point-cloud model sees of a point, where that is not what the config says.
    """

    title: str
    config: str
    family: str | None = None
    sees: tuple[str, ...] | None = None


XYZ = ('xyz',)
ROWS = (
    Row('Point-BERT', 'clipgs_pointbert-nano-h64_15e_toy-world', 'point_bert', XYZ),
    Row('Point-MAE', 'clipgs_pointmae-nano_15e_toy-world', 'point_mae', XYZ),
    Row('ULIP', 'clipgs_ulip-nano_15e_toy-world', 'ulip'),
    Row('Uni3D', 'clipgs_uni3d-nano_15e_toy-world', 'uni3d'),
    Row('OpenShape', 'clipgs_openshape-nano_15e_toy-world', 'openshape'),
    Row('ReCon', 'clipgs_recon-nano_15e_toy-world', 'recon', XYZ),
    Row('ReCon++', 'clipgs_reconpp-nano_15e_toy-world', 'recon_plus_plus'),
    Row('Gaussian-MAE', 'clipgs_gaussianmae-nano_15e_toy-world', 'gaussian_mae'),
    Row('timm ViT', 'clipgs_timm-vit-nano_15e_toy-world'),
    Row('PointNet++', 'clipgs_pointnet2_15e_toy-world'),
    Row('DGCNN', 'clipgs_dgcnn-nano_15e_toy-world'),
)
STARTS = ('scratch', 'checkpoint')


@table
def backbones(out: Path, seeds: int, only: list[str], options: dict[str, int]) -> None:
    """Each backbone from scratch and from a checkpoint in its family's own format, made here on other objects."""
    rows = [row for row in ROWS if not only or row.title in only]
    if unknown := set(only) - {row.title for row in ROWS}:
        raise ValueError(f'--only {sorted(unknown)}: expected some of {[row.title for row in ROWS]}')
    # What is made goes by its settings, so that runs of other settings lie beside it. The objects of pre-training are
    # others than those of the experiment, of the same categories, and never of a look of the test set.
    num_pretraining, num_shots, num_test = (options[key] for key in ('pretrain_objects', 'objects', 'test_objects'))
    pretraining = make_world(out / 'worlds' / f'pretraining-{num_pretraining}', seed=1, num_train=num_pretraining,
                             num_val=0, num_test=0)
    world = make_world(out / 'worlds' / f'shots-{num_shots}-test-{num_test}', seed=0, num_train=num_shots, num_val=0,
                       num_test=num_test)
    begun = f'{num_pretraining}x{options["pretrain_epochs"]}'
    folder = out / f'{num_shots}x{options["epochs"]}-from-{begun}-on-{num_test}'
    jobs = [(row, start, seed) for seed in range(seeds) for row in rows
            for start in STARTS[:1 if row.family is None else 2]]
    results: dict[tuple[str, str], list[Scores]] = {}
    with progress_bar() as bar:
        for row, start, seed in bar.track(jobs, description='runs'):
            file = None
            if start == 'checkpoint':
                file = pretrained_file(row, out / 'checkpoints' / begun, pretraining, options['pretrain_epochs'])
            work_dir = folder / f'{row.config}-{start}-{seed}'
            scores = scored(work_dir.with_suffix('.json'),
                            partial(finetune, row, world, options['epochs'], seed, file, work_dir))
            print_scores(row.title, start, seed, scores)
            results.setdefault((row.title, start), []).append(scores)
    print('\n'.join(markdown(rows, results, options, seeds)))


def make_world(folder: Path, **numbers: int) -> Path:
    """A toy world with the features of its teacher, made where it is not there."""
    from clipgs_plugin.tools import cache_features
    from clipgs_plugin.toy_world.writing import write_world

    write_world(folder, **numbers, track=iter)
    cache_features.main([str(folder), '--teacher', 'toy-clip'])
    return folder


def settings(row: Row, world: Path, epochs: int, seed: int, work_dir: Path):
    """The config of a run on a world without a split for validation: the last epoch is taken, whatever it gives."""
    from clipgs_plugin import engine
    options = {f'{part}_dataloader.dataset.root': str(world) for part in ('train', 'test')}
    cfg = engine.load_config(row.config, str(work_dir), {
        **options, 'train_cfg.max_epochs': epochs, 'randomness.seed': seed, 'log_level': 'WARNING',
        'default_hooks.checkpoint.interval': -1, 'default_hooks.checkpoint.save_best': None,
        'default_hooks.checkpoint.save_last': False})
    for part in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        cfg[part] = None
    cfg.experiment_name = f'{work_dir.name}-{time.time_ns()}'
    return cfg


def train(cfg) -> nn.Module:
    """The model of a config after its training."""
    from clipgs_plugin import engine
    with engine.launched(cfg) as runner:
        runner.train()
    return runner.model.eval()


def pretrained_file(row: Row, folder: Path, world: Path, epochs: int) -> Path:
    """A checkpoint of the point-cloud model, pre-trained towards the teacher and saved as its family saves."""
    from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint
    file = folder / f'{row.family}.pth'
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cfg = settings(row, world, epochs, 0, folder / row.family)
        cfg.model.encoder.tokenizer.refine = False
        cfg.model.encoder.tokenizer.point_attributes = row.sees or cfg.model.encoder.tokenizer.get(
            'point_attributes', ('xyz', 'rgb'))
        export_point_cloud_checkpoint(train(cfg).encoder, file.with_suffix('.part'), row.family)
        file.with_suffix('.part').rename(file)
    return file


def finetune(row: Row, world: Path, epochs: int, seed: int, file: Path | None,
             work_dir: Path) -> tuple[float, float]:
    """Zero-shot and ten-shot accuracy after training on the few objects of a world, from a file or from scratch."""
    from clipgs_plugin.evaluation.functional import topk_accuracy
    from clipgs_plugin.evaluation.linear_probe import linear_probe
    from clipgs_plugin.evaluation.prompts import class_embeddings
    from clipgs_plugin.registry import DATASETS, MODELS

    cfg = settings(row, world, epochs, seed, work_dir)
    if file is not None:
        cfg.model.encoder.init_cfg = dict(type='PointCloudPretrained', checkpoint=str(file))
    model = train(cfg)
    shots = DATASETS.build({**cfg.test_dataloader.dataset, 'split': 'train'})
    test = DATASETS.build(cfg.test_dataloader.dataset)
    shot_features, _, shot_labels = embed(model, shots)
    features, embeddings, labels = embed(model, test)
    teacher = MODELS.build(cfg.teacher)
    prompts = class_embeddings(teacher, test.metainfo['classes'], cfg.test_evaluator[0]['templates'])
    zero_shot = topk_accuracy(embeddings @ prompts.T, labels, (1,))[1]
    ten_shot = 100 * (linear_probe(shot_features, shot_labels, features) == labels).float().mean().item()
    return zero_shot, ten_shot


@torch.no_grad()
def embed(model: nn.Module, dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled features (N, D) and unit embeddings (N, E) of a dataset's objects, and their labels (N,)."""
    from clipgs_plugin.datasets import collate_gaussians
    encoder, pooled, labels = model.encoder, [], []
    for batch in DataLoader(dataset, batch_size=32, collate_fn=collate_gaussians):
        inputs = batch['inputs']
        pooled.append(encoder.backbone(inputs if encoder.tokenizer is None else encoder.tokenizer(inputs)))
        labels.append(batch['data_samples']['label'])
    features = torch.cat(pooled)
    return features, nn.functional.normalize(encoder.projection(features), dim=-1), torch.cat(labels)


# The program


def scored(path: Path, experiment: Callable[[], tuple[float, float]]) -> Scores:
    """The scores of an experiment, from its file where it was run before."""
    from clipgs_plugin.io.files import write_whole
    if path.is_file():
        return Scores(**json.loads(path.read_text()))
    started = time.perf_counter()
    zero_shot, ten_shot = experiment()
    scores = Scores(zero_shot, ten_shot, time.perf_counter() - started)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [json.dumps(dataclasses.asdict(scores)).encode()])
    return scores


def print_scores(title: str, start: str, seed: int, scores: Scores) -> None:
    print(f'{title} from {start}, seed {seed}: zero-shot {scores.zero_shot:.1f} %, ten-shot {scores.ten_shot:.1f} % '
          f'({scores.seconds:.0f} s)', file=sys.stderr)


def markdown(rows: Iterable[Row], results: dict[tuple[str, str], list[Scores]], options: dict[str, int],
             seeds: int) -> list[str]:
    """The lines of the table."""
    lines = [f'{options["epochs"]} epochs on {options["objects"]} objects, {options["test_objects"]} test objects, '
             f'{seeds} seed{"s" * (seeds != 1)}; checkpoints of {options["pretrain_epochs"]} epochs on '
             f'{options["pretrain_objects"]} other objects.', '',
             '| backbone | zero-shot: from scratch | from its file | 10-shot: from scratch | from its file |',
             '|---|---|---|---|---|']
    for row in rows:
        cells = [spread([getattr(scores, field) for scores in results.get((row.title, start), [])])
                 for field in ('zero_shot', 'ten_shot') for start in STARTS]
        lines.append(f'| {row.title} | {" | ".join(cells)} |')
    return lines


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds, or a dash."""
    if not values:
        return '-'
    found = torch.tensor(values)
    return f'{found.mean():.1f}' + (f' ± {found.std():.1f}' if len(values) > 1 else '')


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__.splitlines()[0], TINY_TABLE)
    args.add_argument('table', choices=sorted(TABLES), help='which table')
    args.add_argument('--out', type=Path, help='folder of all that is written (work_dirs/tables/TABLE)')
    args.add_argument('--seeds', type=int, default=3, help='runs of each cell, seeds 0, 1, ... (%(default)s)')
    args.add_argument('--only', nargs='+', default=[], metavar='ROW', help='these rows only')
    args.add_argument('--epochs', type=int, default=5, help='of each run (%(default)s)')
    args.add_argument('--objects', type=int, default=600, help='to train on, ten of each category (%(default)s)')
    args.add_argument('--test-objects', type=int, default=400, help='of looks never seen (%(default)s)')
    args.add_argument('--pretrain-epochs', type=int, default=5, help='of each checkpoint (%(default)s)')
    args.add_argument('--pretrain-objects', type=int, default=1200, help='to pre-train on (%(default)s)')
    options = vars(args.parse_args(argv))
    name, out, seeds, only = (options.pop(key) for key in ('table', 'out', 'seeds', 'only'))
    out = out or Path('work_dirs', 'tables', name)
    print(f'{TABLES[name].__doc__} Everything goes to {out}', file=sys.stderr)
    TABLES[name](out, seeds, only, options)
    return 0


if __name__ == '__main__':
    run(main)
