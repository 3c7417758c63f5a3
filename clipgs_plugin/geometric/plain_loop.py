"""Training loop of GraphGym in plain torch."""
from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn
from torch_geometric.graphgym.checkpoint import load_ckpt, save_ckpt
from torch_geometric.graphgym.config import cfg
from torch_geometric.graphgym.logger import Logger, create_logger
from torch_geometric.graphgym.loss import compute_loss
from torch_geometric.graphgym.optim import create_optimizer, create_scheduler
from torch_geometric.loader import DataLoader


def train_plain(model: nn.Module, loaders: Sequence[DataLoader]) -> None:
    """Train and test a GraphGym model as GraphGym does, without Lightning.

    It writes the same files: ``train/stats.json``, ``val/stats.json`` and ``test/stats.json``, with a line for each
    epoch, or for the last one in ``test``, and checkpoints. With ``train.auto_resume`` it goes on after the last one.

    Args:
        model: Model of ``create_model``.
        loaders: Loaders of train, val and test, of ``create_loader``.
    """
    loggers = create_logger()
    optimizer = create_optimizer(model.parameters(), cfg.optim)
    scheduler = create_scheduler(optimizer, cfg.optim)
    last = cfg.optim.max_epoch - 1
    first = load_ckpt(model, optimizer, scheduler, cfg.train.epoch_resume) if cfg.train.auto_resume else 0
    for epoch in range(first, cfg.optim.max_epoch):
        _run_epoch(model, loaders[0], loggers[0], epoch, optimizer)
        scheduler.step()
        if (epoch + 1) % cfg.train.eval_period == 0 or epoch == last:
            _run_epoch(model, loaders[1], loggers[1], epoch)
        if cfg.train.enable_ckpt and ((epoch + 1) % cfg.train.ckpt_period == 0 or epoch == last):
            save_ckpt(model, optimizer, scheduler, epoch)
    _run_epoch(model, loaders[2], loggers[2], last)
    for logger in loggers:
        logger.close()


def _run_epoch(model: nn.Module, loader: DataLoader, logger: Logger, epoch: int,
               optimizer: torch.optim.Optimizer | None = None) -> None:
    """Pass through a loader once, in training if there is an optimiser, and log."""
    model.train(optimizer is not None)
    start = time.time()
    with torch.set_grad_enabled(optimizer is not None):
        for batch in loader:
            batch = batch.to(torch.device(cfg.accelerator))
            batch.split = logger.name
            pred, true = model(batch)
            loss, score = compute_loss(pred, true)
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            lr = 0.0 if optimizer is None else optimizer.param_groups[0]['lr']
            logger.update_stats(true=true.detach().cpu(), pred=score.detach().cpu(), loss=loss.item(), lr=lr,
                                time_used=time.time() - start, params=cfg.params)
            start = time.time()
    logger.write_epoch(epoch)
