"""Tokenizer of the published point-cloud models."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from clipgs_plugin.models.tokenizers.patch_encoder import build_patch_encoder
from clipgs_plugin.models.tokenizers.patches import group_points, start_in_use
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.ops import ball_query, knn
from clipgs_plugin.ops.sampling import check_count, check_start
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures.attributes import POSITION, attribute_names, num_channels

MAX_COLOR = 1.5  # leaves room for rounding and augmentation; bytes are far above


@MODELS.register_module()
class PointTokenizer(BaseModule):
    """Tokenizer of published point-cloud models (Point-BERT, Yu et al., CVPR 2022).

    It takes tensors in the frame of the model family, and equals a :class:`GSTokenizer` without refinement.

    Args:
        num_groups: G, number of patches of a cloud.
        group_size: K, number of points of a patch.
        channels: C, width of a token.
        start, rule: Options of :func:`clipgs_plugin.ops.farthest_point_sample`; ``'random'`` is ``'farthest'`` in
            eval mode.
        radius: Radius of the patches, which hold the first K points inside; None takes the K nearest.
        point_attributes: Input attributes of the patch encoder, in this order: ``'xyz'`` relative to the centre,
            ``'position'`` in the cloud, ``'rgb'``, and others from :mod:`clipgs_plugin.structures.attributes`.
        missing_color: Grey level for clouds without colours; None makes colours required.
        patch_encoder: Type and options of the patch encoder; None takes :class:`PatchEncoder`.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - output: :class:`Tokens`, features (B, G, C), centers (B, G, 3)
    """

    def __init__(
        self,
        num_groups: int = 512,
        group_size: int = 64,
        channels: int = 512,
        start: int | str = 0,
        rule: str = 'pointnet2',
        radius: float | None = None,
        point_attributes: str | Sequence[str] = ('xyz', 'rgb'),
        missing_color: float | None = 0.4,
        patch_encoder: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_count('num_groups', num_groups)
        check_count('group_size', group_size)
        check_start(start, rule)
        self.num_groups = num_groups
        self.group_size = group_size
        self.channels = channels
        self.start = start
        self.rule = rule
        self.radius = radius
        self.point_attributes = attribute_names(point_attributes)
        self.missing_color = missing_color
        self.patch_encoder = build_patch_encoder(patch_encoder, self.point_attributes, channels)

    @property
    def other_attributes(self) -> tuple[str, ...]:
        """Names of the point attributes other than positions and colours, the columns of ``attributes``."""
        return tuple(name for name in self.point_attributes if name not in ('xyz', POSITION, 'rgb'))

    def extra_repr(self) -> str:
        return (f'num_groups={self.num_groups}, group_size={self.group_size}, start={self.start!r}, '
                f'rule={self.rule!r}, radius={self.radius}, point_attributes={self.point_attributes}')

    def forward(
        self,
        points: Tensor,                     # (B, N, 3) in the frame of the family
        colors: Tensor | None = None,       # (B, N, 3)
        attributes: Tensor | None = None,   # (B, N, C) other_attributes, or xyz and other_attributes
        center_idx: Tensor | None = None,   # (B, G) indices of the centres; None samples them
        neighbor_idx: Tensor | None = None,  # (B, G, K) indices of the points of patches; None finds them
    ) -> Tokens:
        center_idx, neighbor_idx = self.group(points, center_idx, neighbor_idx)
        dtype = next(self.patch_encoder.parameters()).dtype
        points, colors, attributes = (x if x is None else _floats(name, x).to(dtype) for name, x in (
            ('points', points), ('colors', colors), ('attributes', attributes)))
        b, g, k = neighbor_idx.shape
        centers = torch.take_along_dim(points, center_idx[..., None], dim=1)

        def gather(values: Tensor) -> Tensor:
            return torch.take_along_dim(values, neighbor_idx.flatten(1)[..., None], dim=1).unflatten(1, (g, k))

        neighbors = gather(points)
        channels = {'xyz': neighbors - centers[:, :, None], POSITION: neighbors}
        if 'rgb' in self.point_attributes:
            channels['rgb'] = gather(self._colors(points, colors))
        if self.other_attributes:
            widths = [num_channels((name,)) for name in self.other_attributes]
            channels.update(zip(self.other_attributes, gather(self._others(points, attributes)).split(widths, dim=-1)))
        patches = torch.cat([channels[name] for name in self.point_attributes], dim=-1).flatten(0, 1)
        features = self.patch_encoder(patches)
        return Tokens(features.unflatten(0, (b, g)), centers)

    def group(self, points: Tensor, center_idx: Tensor | None = None,
              neighbor_idx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the indices of centres (B, G) and of the points of patches (B, G, K), given or computed.

        Raises:
            ValueError: A shape does not fit, or an index is out of range.
        """
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f'points have shape {tuple(points.shape)}, expected (B, N, 3)')
        points = _floats('points', points).detach().float()
        b, n = points.shape[:2]
        if center_idx is None:
            if neighbor_idx is not None:
                raise ValueError('neighbor_idx is given without center_idx; give the centres of these patches too')
            return group_points(points, self.num_groups, self.group_size, None,
                                start_in_use(self.start, self.training), self.rule, self.radius)
        center_idx = _indices('center_idx', center_idx, (b, None), n)
        centers = torch.take_along_dim(points, center_idx[..., None], dim=1)
        if neighbor_idx is not None:
            return center_idx, _indices('neighbor_idx', neighbor_idx, (*center_idx.shape, None), n)
        return center_idx, (knn(points, centers, self.group_size)[0] if self.radius is None
                            else ball_query(points, centers, self.radius, self.group_size))

    def _colors(self, points: Tensor, colors: Tensor | None) -> Tensor:
        if colors is None and self.missing_color is None:
            raise ValueError('colors is None, but the model needs colours; give colors (B, N, 3), or set missing_color')
        if colors is None:
            return torch.full_like(points, self.missing_color)
        if colors.shape != points.shape:
            raise ValueError(f'colors have shape {tuple(colors.shape)}, expected the shape of the points, '
                             f'{tuple(points.shape)}')
        if float(colors.detach().amax()) > MAX_COLOR:
            raise ValueError(f'colors reach {float(colors.detach().amax()):g}, expected sRGB in [0, 1]; divide bytes '
                             'by 255')
        return colors

    def _others(self, points: Tensor, attributes: Tensor | None) -> Tensor:
        width = num_channels(self.other_attributes)
        if attributes is None or attributes.shape[:2] != points.shape[:2] or attributes.shape[2] - width not in (0, 3):
            found = None if attributes is None else tuple(attributes.shape)
            raise ValueError(f'attributes have shape {found}, expected ({len(points)}, {points.shape[1]}, {width}) for '
                             f'{", ".join(self.other_attributes)}, or 3 more channels with the positions first')
        return attributes[..., -width:]


def _floats(name: str, values: Tensor) -> Tensor:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        found = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f'{name} are {found}, expected a tensor of floats'
                         + (' in [0, 1]; divide bytes by 255' if name == 'colors' else ''))
    return values


def _indices(name: str, index: Tensor, shape: tuple[int | None, ...], count: int) -> Tensor:
    """Check indices of points and return them as int64; None in ``shape`` stands for any number."""
    fits = index.ndim == len(shape) and all(size in (None, found) for size, found in zip(shape, index.shape))
    if not fits or index.is_floating_point() or index.dtype == torch.bool:
        expected = ', '.join('any' if size is None else str(size) for size in shape)
        raise ValueError(f'{name} is {index.dtype} of shape {tuple(index.shape)}, expected integers of shape '
                         f'({expected})')
    index = index.long()
    if bool(((index < 0) | (index >= count)).any()):
        raise ValueError(f'{name} ranges from {int(index.min())} to {int(index.max())}, expected indices of points, '
                         f'0 to {count - 1}')
    return index
