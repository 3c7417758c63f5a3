"""Experiments of GraphGym (You et al., "Design Space for Graph Neural Networks", NeurIPS 2020) on Gaussians."""
from __future__ import annotations

import json
import logging
import math
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from torch_geometric import seed_everything
from torch_geometric.graphgym.checkpoint import get_ckpt_dir
from torch_geometric.graphgym.config import cfg, dump_cfg, load_cfg, set_cfg, set_out_dir, set_run_dir
from torch_geometric.graphgym.loader import create_loader
from torch_geometric.graphgym.logger import set_printing
from torch_geometric.graphgym.model_builder import create_model
from torch_geometric.graphgym.utils.comp_budget import params_count
from torch_geometric.graphgym.utils.device import auto_select_device

import clipgs_plugin.registry.geometric  # noqa: F401  registers the components
from clipgs_plugin.geometric.plain_loop import train_plain

TRAINERS = ('plain', 'lightning')
LIGHTNING = ('lightning', 'pytorch_lightning')


def run(yaml: str | Path, opts: Sequence[str] = ()) -> dict[str, dict]:
    """Run a GraphGym experiment from its YAML file.

    It does what a script of GraphGym has to do by hand for components of another package: config groups that were
    registered after GraphGym's import are set, the device is chosen before the model is made, and results of an earlier
    run are not deleted.

    Args:
        yaml: Config of the experiment, or the name of a shipped one.
        opts: Keys and values in turn that override it: ``['optim.max_epoch', 3]``.

    Returns:
        Statistics of the last epoch of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        FileNotFoundError: There is no such config.
        FileExistsError: The output folder is not empty; ``train.auto_resume True`` writes into it nevertheless.
        ModuleNotFoundError: ``clipgs.trainer: lightning`` without Lightning.
        ValueError: Unknown ``clipgs.trainer``, or ``train.auto_resume`` with checkpoints of Lightning, which GraphGym
            writes and does not read.
    """
    path = _find(yaml)
    set_cfg(cfg)  # again: GraphGym reads the groups when it is imported
    load_cfg(cfg, Namespace(cfg_file=str(path), opts=list(opts)))
    _check_trainer()
    target = Path(cfg.out_dir) / path.stem
    if target.is_dir() and any(target.iterdir()) and not cfg.train.auto_resume:
        raise FileExistsError(f'{target} holds results, which GraphGym would delete; choose another out_dir, move them '
                              'away, or set train.auto_resume True')
    cfg.tensorboard_agg = cfg.tensorboard_agg and find_spec('tensorboardX') is not None
    set_out_dir(cfg.out_dir, str(path))
    dump_cfg(cfg)
    set_run_dir(cfg.out_dir)
    _check_resumable()
    with _own_logging():
        seed_everything(cfg.seed)
        auto_select_device()  # create_model does not know 'auto'
        _train()
    return {part: json.loads((Path(cfg.run_dir) / part / 'stats.json').read_text().splitlines()[-1])
            for part in ('train', 'val', 'test')}


def _train() -> None:
    """Make data and model by the config, and train and test."""
    lightning = cfg.clipgs.trainer == 'lightning'
    if lightning:
        from torch_geometric.graphgym.train import GraphGymDataModule, train
    data = GraphGymDataModule() if lightning else create_loader()
    seed_everything(cfg.seed)  # again: the first run on a folder makes the dataset, which draws random numbers
    model = create_model()
    cfg.params = params_count(model)
    if lightning:
        # Without the check before training, whose few batches GraphGym logs as an epoch, and at the epochs of the plain
        # loop, the last one among them: GraphGym does not pass eval_period on.
        train(model, data, trainer_config=dict(
            num_sanity_val_steps=0, check_val_every_n_epoch=math.gcd(cfg.train.eval_period, cfg.optim.max_epoch)))
    else:
        train_plain(model, data)


@contextmanager
def _own_logging() -> Iterator[None]:
    """Log to GraphGym's file and to the terminal, and restore the handlers that GraphGym replaces."""
    handlers, level = logging.root.handlers, logging.root.level
    try:
        with warnings.catch_warnings():
            # GraphGym itself reads the storage of datasets that PyG warns about.
            warnings.filterwarnings('ignore', '.*internal storage format.*')
            set_printing()
            yield
    finally:
        for handler in logging.root.handlers:
            if handler not in handlers:
                handler.close()
        logging.root.handlers = handlers
        logging.root.setLevel(level)


def _find(name: str | Path) -> Path:
    """Return the path of a config, given its path or the name of a shipped one."""
    path, shipped = Path(name), Path(str(files('clipgs_plugin.configs'))) / 'graphgym'
    if path.is_file():
        return path
    if (shipped / f'{name}.yaml').is_file():
        return shipped / f'{name}.yaml'
    names = ', '.join(sorted(path.stem for path in shipped.glob('*.yaml')))
    raise FileNotFoundError(f'{name} is neither a file nor a shipped config of GraphGym; those are {names}')


def _check_trainer() -> None:
    if cfg.clipgs.trainer not in TRAINERS:
        raise ValueError(f'clipgs.trainer: {cfg.clipgs.trainer} is unknown; expected one of {TRAINERS}')
    if cfg.clipgs.trainer == 'lightning' and not any(map(find_spec, LIGHTNING)):
        raise ModuleNotFoundError('clipgs.trainer: lightning needs Lightning: pip install lightning; '
                                  'clipgs.trainer: plain works without it')


def _check_resumable() -> None:
    if not cfg.train.auto_resume:
        return
    if cfg.clipgs.trainer == 'lightning':
        raise ValueError('train.auto_resume has no effect on clipgs.trainer: lightning, which would train from the '
                         'start and append to the statistics; choose another out_dir, or clipgs.trainer: plain')
    foreign = sorted(path for path in Path(get_ckpt_dir()).glob('*.ckpt') if not path.stem.isdecimal())
    if foreign:
        raise ValueError(f'{foreign[0]} is a checkpoint of Lightning, from which clipgs.trainer: plain cannot go on; '
                         'choose another out_dir')
