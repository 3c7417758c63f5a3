"""Make triplets of meshes, point clouds, posed images or splats: Gaussians, views and captions, as shards."""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._program import AXES, FILES, parser, progress_bar, run

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict
    from rich.progress import Progress as ProgressBar

    from clipgs_plugin.generation import Progress

LOG_EVERY = 60.0  # seconds
PRESETS = ('draft', 'default', 'paper')
ELSEWHERE = '''with a GPU:
  clipgs-triplets SOURCE OUT --device cuda
on a Ray cluster that runs, with SOURCE on storage that its nodes share:
  clipgs-triplets SOURCE OUT --engine ray
as jobs of an array, each with its own --shard-index, and one command at the end:
  clipgs-triplets SOURCE OUT --num-shards 100 --shard-index $SLURM_ARRAY_TASK_ID
  clipgs-triplets SOURCE OUT --join
exit status 1: an error, or objects of which none was made and none was there'''


def main(argv: list[str] | None = None) -> int:
    from clipgs_plugin.generation import SOURCES, GenerationSettings, generate, join_parts
    from clipgs_plugin.generation.executors import TASKS_PER_GPU
    from clipgs_plugin.generation.run import BATCH_SIZES, ENGINES, TIME_LIMIT, build_source
    args = parser(f'{__doc__}\n\n{ELSEWHERE}', FILES,
                  'python tools/make_triplets.py work_dirs/files work_dirs/triplets --preset draft')
    args.add_argument('root', metavar='SOURCE', type=Path, help='a folder of objects, a file, or a manifest')
    args.add_argument('out', metavar='OUT', type=Path,
                      help='folder of the dataset; a run that was interrupted is continued')
    args.add_argument('--config', default='default',
                      help=f'path of a config, or one of {", ".join(PRESETS)} (%(default)s)')
    args.add_argument('--preset', choices=PRESETS, help="views' size and fit of a shipped config, over --config's")
    args.add_argument('--source', choices=list(SOURCES), help='what SOURCE holds (told by its files)')
    args.add_argument('--up', choices=AXES, help='the axis that points up in its files (y; nerf z, colmap -y)')
    args.add_argument('--workers', type=int,
                      help=f'processes of one thread; any number gives the same bytes ({_cores()}, the cores; of those '
                           f'that share a GPU at most {TASKS_PER_GPU})')
    args.add_argument('--device',
                      help="on which Gaussians are drawn and fitted, such as cuda (the config's, else cpu); several "
                           'GPUs want --engine ray, or a job of an array on each')
    args.add_argument('--batch-size', type=int, metavar='N',
                      help='objects fitted together ({cpu} on cpu, {cuda} on cuda)'.format(**BATCH_SIZES))
    args.add_argument('--time-limit', type=float, default=TIME_LIMIT, metavar='SECONDS',
                      help='of a step of an object, after which it has failed (%(default)g); 0 for no limit')
    args.add_argument('--engine', choices=ENGINES, default='local',
                      help='local: --workers processes here; ray: all CPUs of a Ray cluster, whose nodes must all see '
                           'SOURCE under the same path, and folders of models by absolute ones; the same bytes '
                           'either way (%(default)s)')
    args.add_argument('--ray-address', metavar='ADDRESS',
                      help='of the Ray cluster (RAY_ADDRESS, else the one that runs on this machine)')
    args.add_argument('--limit', type=int, metavar='N', help='make the first objects of the listing only')
    args.add_argument('--seed', type=int, help='of all that is drawn')
    args.add_argument('--retry-failed', action='store_true', help='try what an earlier run failed at once more')
    args.add_argument('--shard-index', type=int, default=0, metavar='I', help='this job of an array (%(default)s)')
    args.add_argument('--num-shards', type=int, default=1, metavar='N',
                      help='jobs of the array, which write OUT/parts; --join ends it (%(default)s)')
    args.add_argument('--join', action='store_true',
                      help='only make one dataset of the finished OUT/parts, and of what OUT has; reads no SOURCE')
    args.add_argument('--json', action='store_true', help='print the counts as JSON')
    options = args.parse_args(argv)
    if not options.join and not options.root.exists():
        args.error(f'{options.root} does not exist')
    for name, least in (('workers', 0), ('limit', 1), ('num_shards', 1), ('batch_size', 1), ('time_limit', 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            args.error(f'--{name.replace("_", "-")} {value}: expected at least {least}')
    if not 0 <= options.shard_index < options.num_shards:
        args.error(f'--shard-index {options.shard_index}: expected 0 to {options.num_shards - 1}, below --num-shards')
    if options.join:
        count = join_parts(options.out)
        print(json.dumps(dict(objects=count, out=str(options.out)), indent=2) if options.json else
              f'{count:,} objects: {options.out}')
        return 0

    config = _config(options.config).generation
    if options.preset:
        preset = _config(options.preset).generation
        config.setdefault('views', {})['size'] = preset.views.size
        config.fit = preset.fit
    for name in ('seed', 'device'):
        if getattr(options, name) is not None:
            config[name] = getattr(options, name)
    source = build_source(_source(config, options))
    settings = GenerationSettings.from_config(config)
    if options.workers is None:
        options.workers = min(_cores(), TASKS_PER_GPU) if settings.device_type == 'cuda' else _cores()
    where = ('on a Ray cluster' if options.engine == 'ray' else
             f'with {options.workers} process{"es" * (options.workers != 1)}')
    print(f'Making triplets of {options.root} ({type(source).__name__}, {source.up} up) in {options.out} {where}',
          file=sys.stderr)
    started = time.perf_counter()
    with progress_bar() as bar:
        progress = generate(source, options.root, options.out, settings, options.workers, options.limit,
                            options.retry_failed, options.shard_index, options.num_shards, _reporter(bar),
                            engine=options.engine, ray_address=options.ray_address, batch_size=options.batch_size,
                            time_limit=options.time_limit or None)
    _print(progress, options, time.perf_counter() - started)
    return 1 if progress.listed and not progress.made + progress.there else 0


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _config(name: str) -> Config:
    """A shipped config of triplets by name, or any by path."""
    from mmengine.config import Config

    from clipgs_plugin.apis.configs import config_root
    path = config_root() / 'triplets' / f'{name}.py' if name in PRESETS else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f'config {name} does not exist; give a path to a .py file or one of '
                                f'{", ".join(PRESETS)}')
    config = Config.fromfile(path)
    if 'generation' not in config:
        raise ValueError(f'{path} has no generation=dict(...), it is no config of triplets')
    return config


def _source(config: ConfigDict, options: argparse.Namespace) -> dict:
    """The config of the source: the config's own, unless options name another."""
    from clipgs_plugin.generation.sources import SOURCES, found_sources
    source = dict(config.pop('source', {}))
    if options.source or not source:
        name, *others = [options.source] if options.source else (found := found_sources(options.root))
        if others:
            print(f'left out: {", ".join(f"files of source {other} ({found[other]:,})" for other in others)}; '
                  '--source takes them instead', file=sys.stderr)
        kind = SOURCES[name].__name__
        source = source if source.get('type') == kind else dict(type=kind)
    return {**source, 'up': options.up} if options.up else source


def _reporter(bar: ProgressBar) -> Callable[[Progress], None]:
    """What moves the bar: objects a second and failures beside the counts; a line a minute where nobody watches."""
    started, task, printed = time.perf_counter(), None, time.perf_counter()

    def report(progress: Progress) -> None:
        nonlocal task, printed
        if task is None:
            task = bar.add_task('triplets', total=progress.left)
            return
        done, now = progress.made + progress.failed, time.perf_counter()
        rate = done / (now - started)
        bar.update(task, completed=done, description=f'triplets {rate:.2f}/s, {progress.failed} failed')
        if bar.disable and now - printed > LOG_EVERY:
            printed = now
            print(f'{done:,} of {done + progress.left:,}, {rate:.2f}/s, {progress.failed:,} failed, '
                  f'{progress.left / rate / 60:.0f} min left', file=sys.stderr)
    return report


def _print(progress: Progress, options: argparse.Namespace, seconds: float) -> None:
    from clipgs_plugin.triplets.layout import FAILED, TIMINGS, part_path
    from clipgs_plugin.triplets.settings import read_settings
    out = part_path(options.out, options.shard_index, options.num_shards) if options.num_shards > 1 else options.out
    if options.json:
        print(json.dumps(dict(vars(progress), seconds=round(seconds, 2), out=str(out)), indent=2))
        return
    print(f'{progress.made:,} of {progress.listed:,} objects made in {seconds:.1f} s, {progress.there:,} were there, '
          f'{progress.failed:,} failed, {progress.skipped:,} had failed before: {out}')
    for reason, count in progress.reasons.most_common():
        print(f'  {count:,} x {reason}')
    if progress.noted:
        print(f'{progress.noted:,} made with warnings: {out}/{TIMINGS}')
    if progress.made + progress.there:
        splits = read_settings(out)['counts']['splits']
        print('splits: ' + ', '.join(f'{count:,} {name}' for name, count in splits.items())
              + ('' if 'train' in splits else '; none to train on: files, folders or a manifest named these'))
    for what, count in progress.unfitted.most_common():
        print(f'not fitted: {count:,} ({what})')
    if progress.failed or progress.skipped:
        print(f'reasons, object by object: {out / FAILED}; try them again with --retry-failed')


def cli() -> None:
    """The installed program ``clipgs-triplets``."""
    run(main)


if __name__ == '__main__':
    cli()
