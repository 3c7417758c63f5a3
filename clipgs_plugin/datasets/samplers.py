"""Sampler that yields the epoch with each index."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from clipgs_plugin.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler):
    """Sampler of pairs ``(epoch, index)``, so that the dataset in a worker knows the epoch.

    The order is a function of (seed, epoch). Of several processes, each takes every world-size-th index, as in
    mmengine's ``DefaultSampler``.

    Args:
        dataset: Dataset to sample from.
        shuffle: Use a new order in each epoch.
        seed: Random seed, equal in all processes; None synchronises a random one.
        round_up: Repeat the first indices until all processes have the same number.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None, round_up: bool = True) -> None:
        if len(dataset) == 0:
            raise ValueError(f'{dataset} is empty, expected at least one object; check its root and split')
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.round_up = round_up
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; mmengine's ``DistSamplerSeedHook`` calls this method."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.round_up:
            return math.ceil(len(self.dataset) / self.world_size)
        return len(range(self.rank, len(self.dataset), self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        n = len(self.dataset)
        order = np.random.default_rng((self.seed, self.epoch)).permutation(n) if self.shuffle else np.arange(n)
        if self.round_up:
            order = np.resize(order, len(self) * self.world_size)
        return ((self.epoch, index) for index in order[self.rank::self.world_size].tolist())
