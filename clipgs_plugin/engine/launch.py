"""From a config to a running mmengine Runner."""
from __future__ import annotations

import gc
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import is_model_wrapper

if TYPE_CHECKING:
    from mmengine.runner import Runner

_STEP = re.compile(r'(?:epoch|iter)_\d+\.pth')


def load_config(name: str | Path, work_dir: str | None = None, options: dict | None = None) -> Config:
    """Load a config by path or shipped name, merge options and set ``work_dir``.

    A number or string of the options at the top level, such as ``data_root`` or ``teacher_name``, also replaces the
    value that the bases of the config compute with. ``data_root`` moves the datasets below the config's own
    ``data_root``, in the dumped config of a run too. ``randomness.seed`` also seeds the training dataset, unless that
    has a seed: each seed draws other captions, views and augmentations.

    Args:
        name: Path of a config, or name of a shipped one or of a model.
        work_dir: Folder of the run; None takes the config's own, else ``./work_dirs/NAME``.
        options: Settings that override the config's, by dotted keys.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: ``data_root`` is given, and the config has none; or a name is given from which the config has
            computed values that do not follow it any more, as in the dumped config of a run.
    """
    from clipgs_plugin.apis.models import get_model_config
    cfg = get_model_config(name, options)
    own = get_model_config(name)
    if 'data_root' in (options or {}):
        _move_data(cfg, own)
    _check_effect(cfg, own, options or {})
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or Path('work_dirs', re.sub(r'[^\w.+-]', '-', Path(name).stem)))
    _seed_training_data(cfg)
    return cfg


def _move_data(cfg: Config, own: Config) -> None:
    """Move the datasets that are still below the config's own ``data_root``."""
    if 'data_root' not in own:
        raise ValueError(f'data_root={cfg.data_root} moves the datasets below data_root, which this config does not '
                         'have; name the root of each, such as train_dataloader.dataset.root=FOLDER')
    for part in ('train', 'val', 'test'):
        dataset, before = ((each.get(f'{part}_dataloader') or {}).get('dataset', {}) for each in (cfg, own))
        root = str(dataset.get('root', ''))
        if root == before.get('root') and (root == own.data_root or root.startswith(f'{own.data_root}/')):
            dataset.root = str(cfg.data_root) + root[len(own.data_root):]


def _check_effect(cfg: Config, own: Config, options: dict) -> None:
    """Check that no value of the config is still what a replaced name stood for."""
    for name in options.keys() & own.keys() - {'data_root'}:
        old = own[name]
        if isinstance(old, str) and cfg[name] != old and (
                left := _places(cfg, old) & _places(own, old) - _places(options, old) - {name}):
            raise ValueError(f'{name}={cfg[name]} has no effect on {", ".join(sorted(left))}, which this config states '
                             f'as {old!r}; set these')


def _places(value, wanted: str, place: str = '') -> set[str]:
    """Return the dotted keys at which a value lies within nested dicts and lists."""
    if isinstance(value, dict | Config):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {place} if value == wanted else set()
    return set().union(*(_places(item, wanted, f'{place}.{key}'.lstrip('.')) for key, item in items))


def _seed_training_data(cfg: Config) -> None:
    from clipgs_plugin.datasets.base import GaussianDataset
    from clipgs_plugin.registry import DATASETS
    seed = cfg.get('randomness', {}).get('seed')
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    kind = DATASETS.get(dataset.type) if dataset is not None and isinstance(dataset.type, str) else None
    if seed is not None and isinstance(kind, type) and issubclass(kind, GaussianDataset):
        dataset.setdefault('seed', seed)


def check_data(cfg: Config, parts: Sequence[str]) -> None:
    """Check that the folders of the datasets exist, before anything is built.

    Args:
        cfg: Config of the experiment.
        parts: Parts that will run, of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        FileNotFoundError: The folder of a dataset does not exist.
    """
    for part in parts:
        root = (cfg.get(f'{part}_dataloader') or {}).get('dataset', {}).get('root')
        if root is not None and not Path(root).is_dir():
            raise FileNotFoundError(
                f'the folder of the {part} data, {root}, does not exist; name another with --cfg-options '
                f'data_root=FOLDER (or {part}_dataloader.dataset.root=FOLDER), or with CLIPGS_TOY_WORLD=FOLDER for the '
                'toy world, which tools/make_toy_world.py makes')


def check_batches(runner: Runner) -> None:
    """Check that the training objects fill a batch.

    Raises:
        ValueError: They do not, and incomplete batches are dropped, so an epoch has no step.
    """
    loader = runner.train_loop.dataloader
    if not len(loader):
        raise ValueError(f'{len(loader.dataset)} training objects do not fill a batch of {loader.batch_size}, and '
                         'incomplete batches are dropped; set train_dataloader.batch_size, or give more objects')


def use_autocast(cfg: Config) -> None:
    """Set a config to train in bfloat16, on any device.

    Raises:
        ValueError: The config has an optimiser wrapper of its own.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind == 'OptimWrapper':
        cfg.optim_wrapper.type = 'clipgs_plugin.AutocastOptimWrapper'
    elif str(kind).rpartition('.')[-1] not in ('AutocastOptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp replaces an OptimWrapper, but the config has optim_wrapper.type={kind!r}')


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Find the checkpoint to resume from: the last one written, else the newest that is whole, else None.

    A run that is killed while it writes leaves a truncated archive, which is skipped. Files are looked for in the
    folder itself, so a folder that was moved resumes too.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    files = [path for path in work_dir.glob('*.pth') if path.is_file() and zipfile.is_zipfile(path)]
    if pointer.is_file():
        name = Path(pointer.read_text(encoding='utf-8', errors='replace').strip()).name
        last = [path for path in files if path.name == name]
        if last:
            return last[0]
    found = [path for path in files if _STEP.fullmatch(path.name)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def resume(cfg: Config, source: str | Path) -> None:
    """Set a config to resume from a checkpoint, or with ``'auto'`` from the latest of its work dir, if any.

    Raises:
        FileNotFoundError: There is no such checkpoint.
    """
    if source == 'auto':
        path = latest_checkpoint(cfg.work_dir)
    elif Path(source).is_file():
        path = source
    else:
        raise FileNotFoundError(f'checkpoint {source} does not exist; --resume without a path takes the latest of '
                                f'{cfg.work_dir}')
    # Without a checkpoint, load_from of the config still names initial weights, not a run to resume.
    cfg.resume = path is not None
    if path is not None:
        cfg.load_from = str(path)


def load_from_checked_file(filename: str, map_location=None):
    """Load a checkpoint for mmengine; no code in the file runs. This is a loader of mmengine's ``CheckpointLoader``.

    Args:
        filename: Path of a file, or its ``http(s)://`` address, which is downloaded once into the cache of torch.hub.
        map_location: Device of the tensors, as ``torch.load`` takes it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The address is of another kind, or the file is damaged, holds code, or its weights are not finite.
    """
    from clipgs_plugin.io.safe_load import load_file, training_state
    scheme, separator, _ = str(filename).partition('://')
    if separator and scheme not in ('http', 'https'):
        raise ValueError(f'checkpoint {filename}: expected a file or an http(s) address; download it and give its path')
    path = _downloaded(str(filename)) if separator else Path(filename)
    return training_state(load_file(path, map_location), path)


def _downloaded(url: str) -> Path:
    """Return the file of an address in torch.hub's cache; the main process of a machine downloads it if need be."""
    from mmengine.dist import barrier, get_local_rank
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    if get_local_rank() == 0 and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
    barrier()
    return path


@contextmanager
def checked_checkpoints() -> Iterator[None]:
    """Within the context mmengine loads every checkpoint by :func:`load_from_checked_file`, whatever names it.

    That covers ``resume``, ``load_from``, ``Runner.load_checkpoint`` and ``init_cfg`` of type ``Pretrained``.
    """
    from mmengine.runner import CheckpointLoader
    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = {'': load_from_checked_file}
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes


@contextmanager
def launched(cfg: Config, launcher: str = 'none') -> Iterator:
    """Build the runner of a config, in a process group if a launcher started several processes.

    Without a GPU, torchrun's processes talk over gloo, which mmengine 0.10.7 does not choose by itself. Checkpoints,
    those of plain mmengine too, are loaded without running any code in them.

    Args:
        cfg: Config of the experiment; ``launcher`` and, on the CPU, ``model_wrapper_cfg`` are set in it.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
    """
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner
    cfg.launcher = launcher
    grouped = dist.is_initialized()
    if launcher == 'pytorch' and not torch.cuda.is_available():
        if not grouped:
            dist.init_process_group('gloo')
        cfg.setdefault('model_wrapper_cfg', {
            'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False)})
    runner = None
    try:
        with checked_checkpoints():
            runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
            yield runner
    finally:
        if dist.is_initialized() and not grouped:
            _leave_group(runner)


def _leave_group(runner: Runner | None) -> None:
    """Destroy the process group, and take the wrapper off the runner's model, which would keep its threads alive.

    A thread of gloo that takes the interpreter's lock while the interpreter ends aborts the process.
    """
    if runner is not None and is_model_wrapper(runner.model):
        runner.model = runner.model.module
    gc.collect()  # the wrapper is in a cycle with its hooks
    dist.destroy_process_group()
