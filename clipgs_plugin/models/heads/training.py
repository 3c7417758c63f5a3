"""Training of the parameters of a head."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn


def train_epochs(
    parameters: list[nn.Parameter] | list[dict],
    loss: Callable[[Tensor], Tensor],  # rows (b,) int64 -> scalar
    num_rows: int,
    optimizer: Mapping,
    epochs: int,
    batch_size: int,
    seed: int,
    warmup_lr: float | None = None,
    max_norm: float = math.inf,
) -> Iterator[None]:
    """Minimise a loss over rows in random order with a cosine schedule from the learning rate to 0, step by step.

    Args:
        parameters: Parameters to train, or groups of them for ``torch.optim``.
        loss: Function of the indices of a batch.
        num_rows: Number of rows.
        optimizer: ``type``, the name of a class in ``torch.optim``, and its arguments.
        epochs: Number of passes over the rows; 0 leaves the parameters as they start.
        batch_size: Number of rows of a step. A single row that is left joins the step before, for batch norms.
        seed: Random seed of the order.
        warmup_lr: Learning rate of the first epoch; None starts with the schedule.
        max_norm: Norm to which the gradient of all parameters together is clipped.

    Yields:
        None, after each epoch, or once without epochs.
    """
    if epochs < 0:
        raise ValueError(f'epochs={epochs}: expected at least 0')
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size}: expected at least 1')
    settings = dict(optimizer)
    solver = getattr(torch.optim, settings.pop('type'))(parameters, **settings)
    generator = torch.Generator().manual_seed(seed)
    sizes = [min(batch_size, num_rows - start) for start in range(0, num_rows, batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    steps = len(sizes)
    for epoch in range(epochs):
        order = torch.randperm(num_rows, generator=generator)
        for step, rows in enumerate(order.split(sizes)):
            progress = (epoch * steps + step) / (epochs * steps)
            rate = settings['lr'] / 2 * (1 + math.cos(math.pi * progress))
            for group in solver.param_groups:
                group['lr'] = warmup_lr if epoch == 0 and warmup_lr is not None else rate
            with torch.enable_grad():
                solver.zero_grad()
                loss(rows).backward()
            if max_norm < math.inf:
                nn.utils.clip_grad_norm_([each for group in solver.param_groups for each in group['params']], max_norm)
            solver.step()
        yield
    if epochs == 0:
        yield
