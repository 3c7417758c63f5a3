"""Triplets in which some training views show other objects."""
from __future__ import annotations

import numpy as np
import torch

from clipgs_plugin.datasets.triplet_dataset import TripletDataset
from clipgs_plugin.registry import DATASETS


@DATASETS.register_module()
class StrayViewTriplets(TripletDataset):
    """Triplets in which a share of the training views shows other objects, as in data from the web.

    Each drawn view is replaced, with probability ``stray``, by a view of an object of the same split that is drawn for
    it. Test mode replaces nothing. With it, the weights of the image voting loss are compared.

    Args:
        stray: Probability that a view is replaced.
        options: Options of :class:`TripletDataset`.
    """

    def __init__(self, *args, stray: float = 0.4, **options) -> None:
        super().__init__(*args, **options)
        if not 0 <= stray <= 1:
            raise ValueError(f'stray={stray}: expected a probability from 0 to 1')
        self.stray = stray

    def load(self, index: int, rng: np.random.Generator) -> dict:
        results = super().load(index, rng)
        if self.test_mode:
            return results
        for slot in np.flatnonzero(rng.random(self.num_views) < self.stray):
            row, view = int(rng.choice(self.rows)), rng.choice(self.view_choice, 1)
            if 'views' in results:
                feature = self.features.image(row)[view[0]].astype(np.float32)
                results['views'][slot] = torch.from_numpy(feature)
            if 'view_pixels' in results:
                results['view_pixels'][slot] = torch.from_numpy(self.reader.read_views(row, view)[0]).permute(2, 0, 1)
        return results
