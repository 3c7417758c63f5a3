"""Views of a splat in a CLIP model: an embedding of 3D objects without 3D weights."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from clipgs_plugin.models.clip_gs import DATA_PREPROCESSOR, build, predictions
from clipgs_plugin.ops.cameras import intrinsics
from clipgs_plugin.ops.rendering import render_batch
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch, GaussianCloud
from clipgs_plugin.visualization.turntable import orbit_cameras

# Pooling of the unit vectors of views, (B, V, E) to (B, E).
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    'mean': lambda features: features.mean(1), 'max': lambda features: features.amax(1)}


@MODELS.register_module()
class MultiViewCLIP(BaseModel):
    """Rendered views of an object, embedded by the image tower of a frozen CLIP model and pooled.

    It has no weights besides the teacher's, is not trained, and gives what every 3D encoder in the same space has to
    beat. All five raw parameters of the Gaussians receive gradients; the cameras follow the object without gradients.

    Args:
        teacher: Module or config of :class:`~clipgs_plugin.models.OpenCLIPTeacher`.
        num_views: Number of views of an object, V.
        elevation: Elevation of the ring of cameras in degrees; several numbers alternate between rings, and None
            spreads the cameras over the whole sphere.
        fov_degrees: Field of view in degrees.
        up: Up axis of the objects.
        framed: Share of the visible Gaussians that the cameras frame, so that floaters do not shrink the object.
        background: sRGB colour in [0, 1].
        size: Side of the square views in pixels; None takes the side of the teacher's images.
        pooling: ``'mean'`` or ``'max'`` of the unit vectors of the views.
        backend: Backend of :func:`~clipgs_plugin.ops.rendering.render`.
        data_preprocessor: Module or config.

    Shapes:
        - input: :class:`GaussianBatch` of B objects, of any number of Gaussians and SH degree, in any frame
        - output: (B, E)
    """

    def __init__(
        self,
        teacher: nn.Module | dict,
        num_views: int = 12,
        elevation: float | Sequence[float] | None = (0.0, 30.0),
        fov_degrees: float = 40.0,
        up: str | Sequence[float] = 'y',
        framed: float = 0.95,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        size: int | None = None,
        pooling: str = 'mean',
        backend: str = 'auto',
        data_preprocessor: nn.Module | dict | None = None,
    ) -> None:
        preprocessor = data_preprocessor or DATA_PREPROCESSOR
        super().__init__(build(preprocessor))
        if pooling not in POOLINGS:
            raise ValueError(f'pooling={pooling!r}: expected one of {sorted(POOLINGS)}')
        if num_views < 1 or not 0 < framed <= 1:
            raise ValueError(f'num_views={num_views}, framed={framed}: expected at least 1, and a share in (0, 1]')
        self.teacher = build(teacher)
        self.num_views, self.elevation, self.fov_degrees, self.up = num_views, elevation, fov_degrees, up
        self.framed, self.background, self.pooling, self.backend = framed, tuple(background), pooling, backend
        self.size = size or self.teacher.image_size
        # No parameter: the teacher is frozen, and its factor belongs to its space.
        self.register_buffer('logit_scale', torch.tensor([math.log(self.teacher.logit_scale)]), persistent=False)

    @property
    def embed_dim(self) -> int:
        return self.teacher.embed_dim

    def extra_repr(self) -> str:
        return f'{self.num_views} views of {self.size} px, {self.pooling}'

    def forward(
        self,
        inputs: GaussianBatch,
        data_samples: dict | None = None,
        mode: str = 'tensor',
    ) -> Tensor | list[BaseDataElement]:
        """Embed a batch of objects.

        Args:
            inputs: B objects.
            data_samples: Stacked values by name.
            mode: ``'tensor'`` or ``'predict'``.

        Returns:
            ``'tensor'``: embeddings, (B, E), not normalised. ``'predict'``: elements as those of
            :class:`~clipgs_plugin.models.CLIPGS`.

        Raises:
            ValueError: The mode is another one; ``'loss'`` needs weights to train, which the model does not have.
        """
        if mode == 'tensor':
            return self.embed(inputs)
        if mode == 'predict':
            return predictions(self.embed(inputs), data_samples or {})
        raise ValueError(f"mode={mode!r}: expected 'tensor' or 'predict'; MultiViewCLIP has no weights to train, so "
                         'test it, or train CLIPGS')

    def embed(self, objects: GaussianBatch) -> Tensor:
        """Render, encode and pool, (B, E); a few objects at a time, which bounds the memory of their images."""
        clouds, step = objects.to_clouds(), max(1, self.teacher.batch_size // self.num_views)
        pooled = []
        for start in range(0, len(clouds), step):
            images = self.render_views(clouds[start:start + step])
            features = self.teacher.encode_views(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            pooled.append(POOLINGS[self.pooling](features))
        return torch.cat(pooled)

    def render_views(self, clouds: Sequence[GaussianCloud]) -> Tensor:
        """Render the views that the teacher sees, (B, V, 3, S, S), sRGB in [0, 1]."""
        placed = [orbit_cameras(cloud, self.num_views, self.elevation, self.up, self.fov_degrees, self.framed)
                  for cloud in clouds]
        # The radius of every object becomes 1, since render_batch has one near plane.
        clouds = [cloud.translate_scale(cloud.means.new_zeros(3), 1 / radius)
                  for cloud, (_, radius) in zip(clouds, placed)]
        viewmats = torch.stack([viewmats for viewmats, _ in placed])
        viewmats[..., :3, 3] /= viewmats.new_tensor([radius for _, radius in placed])[:, None, None]
        cameras = intrinsics(self.fov_degrees, self.size, self.size).to(viewmats).expand(*viewmats.shape[:2], 3, 3)
        images, _ = render_batch(clouds, viewmats, cameras, self.size, self.size, self.background, self.backend)
        return images.clamp(0, 1).movedim(-1, -3)
