"""Pictures of an object in a CLIP model: the teacher's own answer to a search by pictures."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from clipgs_plugin.models.clip_gs import DATA_PREPROCESSOR, build, predictions
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch


@MODELS.register_module()
class CachedViews(BaseModel):
    """The mean of the teacher's unit features of some stored views of an object.

    It does not look at the Gaussians and has no weights. With other views of the objects as queries, it is what the
    teacher itself reaches from picture to picture, and bounds what an encoder that imitates the teacher can be expected
    to reach.

    Args:
        view_slots: Indices of the views in the mean; None takes all.
        data_preprocessor: Module or config.

    Shapes:
        - input: :class:`GaussianBatch` of B objects, and their features ``views`` (B, V, E)
        - output: (B, E)
    """

    def __init__(self, view_slots: Sequence[int] | None = None,
                 data_preprocessor: nn.Module | dict | None = None) -> None:
        super().__init__(build(data_preprocessor or DATA_PREPROCESSOR))
        self.view_slots = None if view_slots is None else list(view_slots)

    def forward(
        self,
        inputs: GaussianBatch,
        data_samples: dict | None = None,
        mode: str = 'tensor',
    ) -> Tensor | list[BaseDataElement]:
        """Return the means, (B, E), or with ``'predict'`` elements as those of :class:`~clipgs_plugin.models.CLIPGS`.

        Raises:
            KeyError: The batch has no features of views.
            ValueError: The mode is another one; ``'loss'`` needs weights to train, which the model does not have.
        """
        if mode not in ('tensor', 'predict'):
            raise ValueError(f"mode={mode!r}: expected 'tensor' or 'predict'; CachedViews has no weights to train, so "
                             'test it')
        if 'views' not in (data_samples or {}):
            raise KeyError("data_samples has no 'views', the teacher's features (B, V, E); cache them with "
                           'tools/cache_features.py, and set features=TEACHER of the dataset')
        views = data_samples['views'].float()
        slots = slice(None) if self.view_slots is None else torch.as_tensor(self.view_slots, device=views.device)
        embeddings = F.normalize(views[:, slots], dim=-1).mean(1)
        return embeddings if mode == 'tensor' else predictions(embeddings, data_samples)
