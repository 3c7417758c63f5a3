"""Make a dataset of triplets from meshes, point clouds, posed images or splats: Gaussians, views and captions."""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._program import AXES, FILES, LOG_EVERY, pace, parser, progress_bar, run

if TYPE_CHECKING:
    from mmengine.config import Config
    from rich.progress import Progress as ProgressBar

    from clipgs_plugin.generation import Execution, Progress

PRESETS = ('draft', 'default', 'paper')
ELSEWHERE = '''with a GPU:
  clipgs-triplets SOURCE OUT --device cuda
on a running Ray cluster, with SOURCE on storage that its nodes share:
  clipgs-triplets SOURCE OUT --engine ray
as a job array, each job with its own --shard-index, and one command at the end:
  clipgs-triplets SOURCE OUT --num-shards 100 --shard-index $SLURM_ARRAY_TASK_ID
  clipgs-triplets SOURCE OUT --join
exit status 1: an error, or a dataset without any object'''


def main(argv: list[str] | None = None) -> int:
    from clipgs_plugin.generation import GenerationSettings, generate
    from clipgs_plugin.generation.run import build_source
    args = _arguments()
    options = args.parse_args(argv)
    if options.join:
        return _join(options)
    if not options.root.exists():
        args.error(f'{options.root} does not exist')
    if options.limit is not None and options.limit < 1:
        args.error(f'--limit {options.limit}: expected at least 1')
    config = _generation_config(options)
    settings = GenerationSettings.from_config(config)
    try:
        execution = _execution(options, settings.device_type)
    except ValueError as error:
        args.error(f'--{str(error).replace("_", "-", 1)}')
    root, out = options.root.resolve(), options.out.resolve()
    if out.is_relative_to(root) or root.is_relative_to(out):
        args.error(f'SOURCE {options.root} and OUT {options.out} lie in each other, so a later run would list its own '
                   'output; name another OUT')
    source = build_source(_source_config(config, options))
    where = ('on a Ray cluster' if execution.executor == 'ray' else
             f'with {execution.workers} process{"es" * (execution.workers != 1)}')
    print(f'Making triplets of {options.root} ({type(source).__name__}, {source.up} up) in {options.out} {where}',
          file=sys.stderr)
    started = time.perf_counter()
    with progress_bar() as bar:
        progress = generate(source, options.root, options.out, settings, execution, options.limit,
                            options.retry_failed, _reporter(bar))
    _print(progress, options, time.perf_counter() - started)
    return 1 if progress.listed and not progress.made + progress.there else 0


def _arguments() -> argparse.ArgumentParser:
    from clipgs_plugin.generation import SOURCES
    from clipgs_plugin.generation.settings import BATCH_SIZES, TIME_LIMIT
    from clipgs_plugin.parallel import EXECUTORS
    from clipgs_plugin.parallel.cluster import TASKS_PER_GPU
    args = parser(f'{__doc__}\n\n{ELSEWHERE}', FILES,
                  'python tools/make_triplets.py work_dirs/files work_dirs/triplets --preset draft')
    args.add_argument('root', metavar='SOURCE', type=Path, help='a folder of objects, a file, or a manifest')
    args.add_argument('out', metavar='OUT', type=Path,
                      help='folder of the dataset; an interrupted run continues')
    args.add_argument('--config', default='default',
                      help=f'path of a config, or one of {", ".join(PRESETS)} (%(default)s)')
    args.add_argument('--preset', choices=PRESETS,
                      help='take the size of views and the fit of a shipped config, over those of --config')
    args.add_argument('--source', choices=list(SOURCES), help='type of SOURCE (detected from its files)')
    args.add_argument('--up', choices=AXES, help='up axis of the files (y; nerf z, colmap -y)')
    args.add_argument('--workers', type=int,
                      help=f'processes with one thread each; the bytes do not depend on it ({_cores()}, the cores; at '
                           f'most {TASKS_PER_GPU} on a GPU)')
    args.add_argument('--device',
                      help="device that renders and fits Gaussians, such as cuda (the config's, else cpu); for several "
                           'GPUs use --engine ray, or one job of an array on each')
    args.add_argument('--batch-size', type=int, metavar='N',
                      help='objects fitted together ({cpu} on cpu, {cuda} on cuda)'.format(**BATCH_SIZES))
    args.add_argument('--time-limit', type=float, default=TIME_LIMIT, metavar='SECONDS',
                      help='seconds of a step of an object, after which it fails (%(default)g); 0 for no limit')
    args.add_argument('--engine', choices=EXECUTORS, default='local', dest='executor',
                      help='executor; local: --workers processes here; ray: all CPUs of a Ray cluster, whose nodes '
                           'must see SOURCE under the same path, and folders of models under absolute paths; both '
                           'give the same bytes (%(default)s)')
    args.add_argument('--ray-address', metavar='ADDRESS',
                      help='address of the Ray cluster (RAY_ADDRESS, else the cluster that runs on this machine)')
    args.add_argument('--limit', type=int, metavar='N', help='make only the first objects of the listing')
    args.add_argument('--seed', type=int, help='random seed')
    args.add_argument('--retry-failed', action='store_true', help='retry objects that failed in an earlier run')
    args.add_argument('--shard-index', type=int, default=0, metavar='I',
                      help='index of this job in its array (%(default)s)')
    args.add_argument('--num-shards', type=int, default=1, metavar='N',
                      help='jobs of the array, which write OUT/parts for --join (%(default)s)')
    args.add_argument('--join', action='store_true',
                      help='only join the finished OUT/parts, and what OUT has, into one dataset; reads no SOURCE')
    args.add_argument('--json', action='store_true', help='print the counts as JSON')
    return args


def _join(options: argparse.Namespace) -> int:
    from clipgs_plugin.generation import join_parts
    count = join_parts(options.out)
    print(json.dumps(dict(objects=count, out=str(options.out)), indent=2) if options.json else
          f'{count:,} objects: {options.out}')
    return 0


def _generation_config(options: argparse.Namespace) -> dict:
    """Return the ``generation`` dict of the config, with the options applied."""
    config = _config(options.config).generation
    if options.preset:
        preset = _config(options.preset).generation
        config.setdefault('views', {})['size'] = preset.views.size
        config.fit = preset.fit
    config.update({name: getattr(options, name) for name in ('seed', 'device') if getattr(options, name) is not None})
    return config


def _config(name: str) -> Config:
    """Load a shipped config of triplets by name, or any by path."""
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


def _execution(options: argparse.Namespace, device_type: str) -> Execution:
    from clipgs_plugin.generation import Execution
    from clipgs_plugin.parallel.cluster import TASKS_PER_GPU
    workers = options.workers
    if workers is None:
        workers = min(_cores(), TASKS_PER_GPU) if device_type == 'cuda' else _cores()
    return Execution(workers, options.executor, options.ray_address, options.batch_size, options.time_limit or None,
                     options.shard_index, options.num_shards)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _source_config(config: dict, options: argparse.Namespace) -> dict:
    """Return the config of the source: by the options, else by the config, else by the files."""
    from clipgs_plugin.generation.sources import SOURCES, found_sources, unread_files
    source = dict(config.get('source', {}))
    if unread := unread_files(options.root):
        print(f'not read: {", ".join(f"{count:,} {ending}" for ending, count in unread.items())}; convert such files, '
              'meshes to .glb and points to .ply', file=sys.stderr)
    if options.source or not source:
        name, *others = [options.source] if options.source else (found := found_sources(options.root))
        if others:
            print(f'left out: {", ".join(f"files of source {other} ({found[other]:,})" for other in others)}; '
                  '--source takes them instead', file=sys.stderr)
        kind = SOURCES[name].__name__
        source = source if source.get('type') == kind else dict(type=kind)
    return {**source, 'up': options.up} if options.up else source


def _reporter(bar: ProgressBar) -> Callable[[Progress], None]:
    """Return a function that updates the bar, and that prints a line every minute where no terminal shows it."""
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
            print(pace(done, progress.left, progress.failed, now - started), file=sys.stderr)
    return report


def _print(progress: Progress, options: argparse.Namespace, seconds: float) -> None:
    from clipgs_plugin.triplets.layout import FAILED, TIMINGS, part_path
    from clipgs_plugin.triplets.settings import read_settings
    out = part_path(options.out, options.shard_index, options.num_shards) if options.num_shards > 1 else options.out
    if options.json:
        print(json.dumps(dict(vars(progress), seconds=round(seconds, 2), out=str(out)), indent=2))
        return
    print(f'{progress.made:,} of {progress.listed:,} objects made in {seconds:.1f} s, {progress.there:,} made before, '
          f'{progress.failed:,} failed, {progress.skipped:,} failed before: {out}')
    for reason, count in progress.reasons.most_common():
        print(f'  {count:,} x {reason}')
    if progress.noted:
        print(f'{progress.noted:,} made with warnings: {out}/{TIMINGS}')
    if progress.made + progress.there:
        splits = read_settings(out)['counts']['splits']
        print('splits: ' + ', '.join(f'{count:,} {name}' for name, count in splits.items())
              + ('' if 'train' in splits else '; no train split: the files, folders or manifest name only these'))
    for description, count in progress.unfitted.most_common():
        print(f'not fitted: {count:,} ({description})')
    if progress.failed or progress.skipped:
        print(f'reason of each failure: {out / FAILED}; retry with --retry-failed')


def cli() -> None:
    """Run as the installed program ``clipgs-triplets``."""
    run(main)


if __name__ == '__main__':
    cli()
