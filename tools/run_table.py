"""Run the experiments behind a table of the documentation and print it.

Each run leaves a file with its results, so an interrupted table resumes.
"""
from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from clipgs_plugin.tools._program import TINY_TABLE, parser, progress_bar, run

TABLES: dict[str, Callable[..., None]] = {}


def table(function: Callable[..., None]) -> Callable[..., None]:
    """Register a table; its docstring is its help."""
    TABLES[function.__name__] = function
    return function


# backbones: from scratch, and from a checkpoint of the family

@dataclasses.dataclass(frozen=True)
class Row:
    """A backbone of the table.

    Attributes:
        title: Name in the table.
        config: Name of its toy-world config.
        family: Family of its checkpoints; None trains from scratch only.
        sees: Point attributes of its point-cloud model, if they differ from the config's.
        trained: False for views of the teacher, which have no 3D weights and so no seeds.
    """

    title: str
    config: str
    family: str | None = None
    sees: tuple[str, ...] | None = None
    trained: bool = True


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
    Row('12 views in the teacher', 'views_toy-clip_0e_toy-world', trained=False),
)
STARTS = ('scratch', 'checkpoint')


@table
def backbones(out: Path, seeds: int, only: list[str], options: dict[str, int]) -> None:
    """Train each backbone from scratch and from a checkpoint of its family, pre-trained here on other objects."""
    from clipgs_plugin.engine.experiments import resumable
    rows = [row for row in ROWS if not only or row.title in only]
    if unknown := set(only) - {row.title for row in ROWS}:
        raise ValueError(f'--only {sorted(unknown)}: expected some of {[row.title for row in ROWS]}')
    # Results are filed by their settings. Pre-training sees other objects of the same categories than the experiment,
    # and never a look of the test split.
    num_pretraining, num_shots, num_test = (options[key] for key in ('pretrain_objects', 'objects', 'test_objects'))
    pretraining = make_world(out / 'worlds' / f'pretraining-{num_pretraining}', seed=1, num_train=num_pretraining,
                             num_val=0, num_test=0)
    world = make_world(out / 'worlds' / f'shots-{num_shots}-test-{num_test}', seed=0, num_train=num_shots, num_val=0,
                       num_test=num_test)
    pretrained = f'{num_pretraining}x{options["pretrain_epochs"]}'
    folder = out / f'{num_shots}x{options["epochs"]}-from-{pretrained}-on-{num_test}'
    jobs = [(row, start, seed) for seed in range(seeds) for row in rows if row.trained or seed == 0
            for start in (STARTS[:1 if row.family is None else 2] if row.trained else STARTS[1:])]
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    with progress_bar() as bar:
        for row, start, seed in bar.track(jobs, description='runs'):
            file = None
            if start == 'checkpoint' and row.trained:
                file = pretrained_file(row, out / 'checkpoints' / pretrained, pretraining, options['pretrain_epochs'])
            work_dir = folder / f'{row.config}-{start}-{seed}'
            found = resumable(work_dir.with_suffix('.json'),
                              partial(finetune, row, world, options['epochs'], seed, file, work_dir))
            print(f'{row.title} from {start}, seed {seed}: zero-shot {found["zero_shot"]:.1f} %, '
                  f'ten-shot {found["ten_shot"]:.1f} % ({found["seconds"]:.0f} s)', file=sys.stderr)
            results.setdefault((row.title, start), []).append(found)
    print(backbone_table(rows, results, options, seeds))


def make_world(folder: Path, **numbers: int) -> Path:
    """Make a toy world with the features of its teacher, unless the folder holds it already."""
    from clipgs_plugin.tools import cache_features
    from clipgs_plugin.toy_world.writing import write_world
    write_world(folder, **numbers, track=iter)
    cache_features.main([str(folder), '--teacher', 'toy-clip'])
    return folder


def toy_config(row: Row, world: Path, epochs: int, seed: int, work_dir: Path):
    """Load the config of a row on a toy world."""
    from clipgs_plugin.engine.experiments import last_epoch_config
    return last_epoch_config(row.config, work_dir, {
        **{f'{part}_dataloader.dataset.root': str(world) for part in ('train', 'test')},
        'train_cfg.max_epochs': epochs, 'randomness.seed': seed})


def pretrained_file(row: Row, folder: Path, world: Path, epochs: int) -> Path:
    """Pre-train the point-cloud model of a row towards the teacher; save it in the format of its family."""
    from clipgs_plugin.engine.experiments import train
    from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint
    file = folder / f'{row.family}.pth'
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cfg = toy_config(row, world, epochs, 0, folder / row.family)
        tokenizer = cfg.model.encoder.tokenizer
        tokenizer.refine = False
        tokenizer.point_attributes = row.sees or tokenizer.get('point_attributes', ('xyz', 'rgb'))
        export_point_cloud_checkpoint(train(cfg).encoder, file.with_suffix('.part'), row.family)
        file.with_suffix('.part').rename(file)
    return file


def finetune(row: Row, world: Path, epochs: int, seed: int, file: Path | None, work_dir: Path) -> dict[str, float]:
    """Train on the few objects of a world; return zero-shot and ten-shot accuracy in percent."""
    from clipgs_plugin.apis import get_config
    from clipgs_plugin.engine.experiments import embed_dataset, train
    from clipgs_plugin.evaluation.functional import topk_accuracy
    from clipgs_plugin.evaluation.linear_probe import linear_probe
    from clipgs_plugin.evaluation.prompts import class_embeddings
    from clipgs_plugin.registry import DATASETS, MODELS
    if row.trained:
        cfg = toy_config(row, world, epochs, seed, work_dir)
        if file is not None:
            cfg.model.encoder.init_cfg = dict(type='PointCloudPretrained', checkpoint=str(file))
        model = train(cfg)
    else:
        cfg = get_config(row.config, {'test_dataloader.dataset.root': str(world)})
        model = MODELS.build(cfg.model).eval()
    shots = DATASETS.build({**cfg.test_dataloader.dataset, 'split': 'train'})
    test = DATASETS.build(cfg.test_dataloader.dataset)
    shot_features, _, shot_labels = embed_dataset(model, shots)
    features, embeddings, labels = embed_dataset(model, test)
    prompts = class_embeddings(MODELS.build(cfg.teacher), test.metainfo['classes'], cfg.test_evaluator[0]['templates'])
    right = linear_probe(shot_features, shot_labels, features) == labels
    return dict(zero_shot=topk_accuracy(embeddings @ prompts.T, labels, (1,))[1],
                ten_shot=100 * right.float().mean().item())


def backbone_table(rows: list[Row], results: dict[tuple[str, str], list[dict[str, float]]], options: dict[str, int],
                   seeds: int) -> str:
    """Format the table with its settings above."""
    from clipgs_plugin.engine.experiments import markdown_table, mean_and_spread
    settings = (f'{options["epochs"]} epochs on {options["objects"]} objects, {options["test_objects"]} test objects, '
                f'{seeds} seed{"s" * (seeds != 1)}; checkpoints of {options["pretrain_epochs"]} epochs on '
                f'{options["pretrain_objects"]} other objects.')
    cells = [[row.title, *(mean_and_spread([found[name] for found in results.get((row.title, start), [])])
                           for name in ('zero_shot', 'ten_shot') for start in STARTS)] for row in rows]
    return f'{settings}\n\n' + markdown_table(
        ['backbone', 'zero-shot: from scratch', 'from its file', '10-shot: from scratch', 'from its file'], cells)


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__.splitlines()[0], TINY_TABLE)
    args.add_argument('table', choices=sorted(TABLES), help='name of the table')
    args.add_argument('--out', type=Path, help='folder of all files written (work_dirs/tables/TABLE)')
    args.add_argument('--seeds', type=int, default=3, help='runs of each cell, seeds 0, 1, ... (%(default)s)')
    args.add_argument('--only', nargs='+', default=[], metavar='ROW', help='rows to run')
    args.add_argument('--epochs', type=int, default=5, help='epochs of a run (%(default)s)')
    args.add_argument('--objects', type=int, default=600, help='training objects, ten a category (%(default)s)')
    args.add_argument('--test-objects', type=int, default=400, help='test objects of unseen looks (%(default)s)')
    args.add_argument('--pretrain-epochs', type=int, default=5, help='epochs of pre-training (%(default)s)')
    args.add_argument('--pretrain-objects', type=int, default=1200, help='objects of pre-training (%(default)s)')
    options = vars(args.parse_args(argv))
    name, out, seeds, only = (options.pop(key) for key in ('table', 'out', 'seeds', 'only'))
    out = out or Path('work_dirs', 'tables', name)
    print(f'{TABLES[name].__doc__} Files go to {out}', file=sys.stderr)
    TABLES[name](out, seeds, only, options)
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-table``."""
    run(main)


if __name__ == '__main__':
    cli()
