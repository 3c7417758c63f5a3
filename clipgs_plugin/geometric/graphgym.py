"""Experiments of GraphGym (You et al., "Design Space for Graph Neural Networks", NeurIPS 2020) on Gaussians."""
from __future__ import annotations

import json
import logging
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from torch_geometric import seed_everything
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
        ValueError: Unknown ``clipgs.trainer``.
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
    with _own_logging():
        seed_everything(cfg.seed)
        auto_select_device()  # create_model does not know 'auto'
        _train()
    return {part: json.loads((Path(cfg.run_dir) / part / 'stats.json').read_text().splitlines()[-1])
            for part in ('train', 'val', 'test')}


def _train() -> None:
    """Make data and model by the config, and train and test."""
    if cfg.clipgs.trainer == 'lightning':
        from torch_geometric.graphgym.train import GraphGymDataModule, train
        data = GraphGymDataModule()
        model = create_model()
        cfg.params = params_count(model)
        train(model, data)
    else:
        loaders = create_loader()
        model = create_model()
        cfg.params = params_count(model)
        train_plain(model, loaders)


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
