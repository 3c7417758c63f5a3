"""An encoder of Gaussians as a point backbone of mmdet3d."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin import ops
from clipgs_plugin.models.backbones.pointnet2 import row_mlp
from clipgs_plugin.models.quiet_init import QuietInit
from clipgs_plugin.models.tokenizers.gs_tokenizer import GSTokenizer
from clipgs_plugin.models.tokenizers.patches import XYZ
from clipgs_plugin.models.tokenizers.point_tokenizer import MAX_COLOR
from clipgs_plugin.ops.sampling import check_count
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch
from clipgs_plugin.structures.attributes import NUM_RAW, RAW_SLICES, attribute_names, unpack
from clipgs_plugin.structures.gaussian_cloud import MISSING_COLOR

NEIGHBORS = 3
# Channels of a point by their number: positions, positions and colours, all of a Gaussian as `pack` orders them.
CHANNELS = (3, 6, NUM_RAW)
OF_POINTS = {'xyz', 'position', 'rgb', 'sh_dc'}  # attributes that points without Gaussians have


@MODELS.register_module()
class GSPointBackbone(QuietInit, BaseModule):
    """Point backbone with the interface of mmdet3d's ``PointNet2SASSG``, over the tokens of a :class:`GSEncoder`.

    The centres of the patches are its one set abstraction, with the backbone's tokens as features. One feature
    propagation takes them to the points: the inverse-distance mean of the three nearest centres, then an MLP that sees
    the point's own channels too (Qi et al., "PointNet++", NeurIPS 2017).

    The encoder sees each cloud turned to y up and normalised into the unit sphere, as its weights were trained. All
    outputs are in the frame and unit of the input. ``patch_dropout`` of the backbone is ignored, and its pooling and
    projection are unused: train in several processes with ``find_unused_parameters=True``.

    Args:
        encoder: :class:`GSEncoder` or its config, with a :class:`GSTokenizer` and a backbone over tokens. Its
            ``init_cfg`` names the weights to start from, its ``frozen`` the parts that are not trained.
        in_channels: Number of channels of a point, positions included. 3: positions; colours are then grey. 6:
            positions and sRGB in [0, 1]. 14: position, sRGB, opacity logit, log scale and quaternion wxyz, as
            :func:`clipgs_plugin.structures.attributes.pack` returns them.
        fp_channels: Widths of the MLP after the interpolation; without any, the interpolated features are the output.
        num_seeds: Number of points, by farthest point sampling, to which features are propagated; None takes all.
        up: Up axis of the points, ``'z'`` in mmdet3d.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - input: (B, N, in_channels), and optionally the number of points of each cloud, (B,)
        - output: a dict of lists, see :meth:`forward`

    Raises:
        ValueError: An option is out of range, or the encoder needs attributes that the points do not have.
    """

    def __init__(self, encoder: nn.Module | dict, in_channels: int = NUM_RAW, fp_channels: Sequence[int] = (256, 256),
                 num_seeds: int | None = None, up: str = 'z', init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if in_channels not in CHANNELS:
            raise ValueError(f'in_channels={in_channels}: expected 3 (positions), 6 (and sRGB) or {NUM_RAW} (all of a '
                             'Gaussian); select the columns with use_dim of the loading transform')
        if num_seeds is not None:
            check_count('num_seeds', num_seeds)
        self.encoder = MODELS.build(encoder) if isinstance(encoder, dict) else encoder
        _check_encoder(self.encoder, in_channels)
        self.encoder.projection = nn.Identity()  # before weights are loaded, so that none for it are looked for
        self.encoder.embed_dim = self.encoder.backbone.out_channels
        self.in_channels = in_channels
        self.num_seeds = num_seeds
        self.register_buffer('upright', ops.axis_change(up, 'y'), persistent=False)
        self.mlp = row_mlp(self.encoder.backbone.embed_dims + in_channels - 3, fp_channels)

    def forward(self, points: Tensor, lengths: Tensor | None = None) -> dict[str, list[Tensor]]:
        """Return positions, features and indices, by level.

        Every index is one of a real point. An object with fewer points than a level has repeats them in turn.

        Args:
            points: Points, (B, N, in_channels).
            lengths: Number of points of each cloud, (B,); the rest is padding. None means N.

        Returns:
            Levels ``sa_*``: the points, then the G centres (N if there are fewer points). Levels ``fp_*``: the
            centres, then the seeds, or all points. Of each level ``xyz`` (B, M, 3), ``features`` (B, D, M) and
            ``indices`` of the points (B, M), int64. The features of the points are their channels after the position,
            or None if there are none.

        Raises:
            ValueError: The shape is wrong, or colours are not in [0, 1].
        """
        self._check_shape(points)
        n = points.shape[1]
        if lengths is None:
            lengths = torch.full((len(points),), n, device=points.device)
        point_idx = torch.arange(n, device=points.device) % lengths[:, None]
        points = _take(points, point_idx)
        self._check_colors(points)
        xyz, channels = points[..., XYZ], points[..., XYZ.stop:]
        center_idx, tokens = self.encode(self.to_gaussians(points, lengths))
        seed_idx = point_idx
        if self.num_seeds is not None:
            seed_idx = ops.farthest_point_sample(xyz, min(self.num_seeds, n), lengths, start='farthest')
        centers, seeds = _take(xyz, center_idx), _take(xyz, seed_idx)
        spread = interpolate(centers, tokens, seeds, lengths.clamp(max=tokens.shape[1]))
        if len(self.mlp):
            spread = self._refine(torch.cat([spread, _take(channels, seed_idx)], dim=-1), lengths)
        tokens, spread = tokens.transpose(1, 2), spread.transpose(1, 2)
        return dict(
            fp_xyz=[centers, seeds], fp_features=[tokens, spread], fp_indices=[center_idx, seed_idx],
            sa_xyz=[xyz, centers], sa_indices=[point_idx, center_idx],
            sa_features=[channels.transpose(1, 2) if self.in_channels > 3 else None, tokens])

    def to_gaussians(self, points: Tensor, lengths: Tensor) -> GaussianBatch:
        """Return the points (B, N, in_channels) as Gaussians in the frame of the encoder."""
        raw = points.new_zeros(*points.shape[:2], NUM_RAW, dtype=torch.float32)
        raw[..., RAW_SLICES['rgb']] = MISSING_COLOR
        raw[..., RAW_SLICES['quat'].start] = 1.0
        raw = torch.cat([points.float(), raw[..., self.in_channels:]], dim=-1)
        clouds = unpack(raw, lengths).to_clouds()
        return GaussianBatch.from_clouds([cloud.transform(self.upright).normalise() for cloud in clouds])

    def encode(self, batch: GaussianBatch) -> tuple[Tensor, Tensor]:
        """Return the indices of the centres in the objects, (B, G), and their features, (B, G, D)."""
        patches = self.encoder.tokenizer.group(batch)
        tokens = self.encoder.tokenizer.encode(patches)
        count = min(tokens.features.shape[1], batch.means.shape[1])
        # The tokenizer sorts the Gaussians; a centre is found again by its position.
        center_idx = ops.knn(batch.means, patches.centers, 1, batch.lengths)[0][:, :count, 0]
        features = self.encoder.backbone.forward_features(tokens)[:, -tokens.features.shape[1]:]
        return center_idx, _repeat(features[:, :count], batch.lengths)

    def _refine(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Apply the MLP to the features of real points, (B, M, C) to (B, M, D), so that batch norms see no padding."""
        real = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
        rows = self.mlp(features[real])
        return _repeat(rows.new_zeros(*real.shape, rows.shape[-1]).index_put((real,), rows), lengths)

    def _check_shape(self, points: Tensor) -> None:
        if points.ndim != 3 or points.shape[2] != self.in_channels:
            raise ValueError(f'points have shape {tuple(points.shape)}, expected (B, N, {self.in_channels}); sample '
                             'clouds to one size before they are stacked')

    def _check_colors(self, points: Tensor) -> None:
        if self.in_channels > 3:
            low, high = (float(x) for x in points.detach()[..., RAW_SLICES['rgb']].aminmax())
            if low < 1 - MAX_COLOR or high > MAX_COLOR:
                raise ValueError(f'colours run from {low:g} to {high:g}, expected sRGB in [0, 1]; normalise them with '
                                 'NormalizePointsColor(color_mean=None)')


def interpolate(
    centers: Tensor,   # (B, G, 3)
    features: Tensor,  # (B, G, D) of the centres
    queries: Tensor,   # (B, M, 3)
    lengths: Tensor,   # (B,) number of centres of each cloud
) -> Tensor:
    """Return the mean of the features of the three nearest centres, weighted by inverse distance, (B, M, D).

    At a centre this is its own feature. A cloud of fewer centres has a mean of those.
    """
    index, squared = ops.knn(centers, queries, NEIGHBORS, lengths)
    repeats = torch.arange(NEIGHBORS, device=index.device) >= lengths[:, None, None]
    weights = (1 / (squared.sqrt() + 1e-8)).masked_fill(repeats, 0)
    weights = (weights / weights.sum(-1, keepdim=True)).to(features.dtype)
    gathered = _take(features, index.flatten(1)).unflatten(1, index.shape[1:])
    return (weights[..., None] * gathered).sum(2)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return rows (B, M, C) of values (B, N, C) at indices (B, M)."""
    return torch.take_along_dim(values, index[..., None], dim=1)


def _repeat(features: Tensor, lengths: Tensor) -> Tensor:
    """Fill the padding of features (B, M, D) with the rows of the object in turn, as indices of samples repeat."""
    return _take(features, torch.arange(features.shape[1], device=features.device) % lengths[:, None])


def _check_encoder(encoder: nn.Module, in_channels: int) -> None:
    """Check that the encoder has tokens, and that the channels of a point hold the attributes that it sees."""
    tokenizer = encoder.tokenizer
    if not isinstance(tokenizer, GSTokenizer):
        raise ValueError(f'the encoder has a {type(encoder.backbone).__name__} and '
                         f'{"no tokenizer" if tokenizer is None else type(tokenizer).__name__}, but a point backbone '
                         'needs the centres of patches; give it a GSTokenizer and a backbone over tokens')
    needed = {*attribute_names(tokenizer.point_attributes),
              *(tokenizer.attributes if tokenizer.refinement is not None else ())}
    if in_channels < NUM_RAW and needed - OF_POINTS:
        raise ValueError(f'in_channels={in_channels}, but the tokenizer needs {", ".join(sorted(needed - OF_POINTS))}; '
                         f'set in_channels={NUM_RAW}, or refine=False and point_attributes of points')
