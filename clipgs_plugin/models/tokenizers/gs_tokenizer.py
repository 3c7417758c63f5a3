"""GS tokenizer, from Gaussians to tokens."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from clipgs_plugin import ops
from clipgs_plugin.models.tokenizers.patch_encoder import build_patch_encoder
from clipgs_plugin.models.tokenizers.patches import XYZ, Patches, canonicalise, extract, group_points, start_in_use
from clipgs_plugin.models.tokenizers.refinement import Refinement
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.ops.sampling import check_count, check_start
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch
from clipgs_plugin.structures.attributes import SCALE_QUANTITIES, attribute_names, linearise, num_channels, pack

COMBINATIONS = ('mean', 'concat', 'turn')
MAX_REFINE_WIDTH = 256
IDENTITY_AXES = (0, 1, 2)
# Attributes for which permuting the axes of positions is enough; the others have an orientation.
PERMUTABLE = ('xyz', 'position', 'rgb', 'opacity', 'sh_dc')


@MODELS.register_module()
class GSTokenizer(BaseModule):
    r"""Serialised Gaussian tokens (CLIP-GS, arXiv 2412.19142, Sec. 4.1, Fig. 3 and 4).

    .. math:: t_g = E_{pc}([P_g; C_g]) + W \, \mathrm{pool}(\mathrm{conv}_{1\times3}(\pi(A_g)))

    with positions :math:`P_g` relative to the centre of patch :math:`g`, absolute colours :math:`C_g`, all
    linearised attributes :math:`A_g`, orders :math:`\pi` along curves, and :math:`W` zero at the start. So a model
    starts as the point-cloud model that initialises its patch encoder.

    An object with n < ``num_groups`` Gaussians has n patches. Its other tokens are zero and masked, and no layer sees
    them, batch norms included. An object with fewer than ``group_size`` Gaussians repeats them to fill each patch.
    Repeats count in the statistics of batch norms and are neighbours in the orders, but change no maximum.

    Args:
        num_groups: G, number of patches of an object. The paper states neither G nor K; 512 and 64 are the values of
            Uni3D, on which it builds.
        group_size: K, number of Gaussians of a patch.
        channels: C, width of a token.
        attributes: Input attributes of the refinement branch: ``'paper'`` (19 channels), ``'gauge_free'`` (13
            channels, invariant to the 24 labellings of a Gaussian's axes), ``'shape'`` (the same without the size, and
            with bounded flatness), or a tuple of names from
            :mod:`clipgs_plugin.structures.attributes`.
        orders: Curves that order the Gaussians of a patch: ``'xyz'``, ``'hilbert'``, ``'z'``.
        combine: Reduction of several orders to one feature, which the paper does not state: ``'mean'`` averages the
            pooled features, ``'concat'`` concatenates them before the gate, ``'turn'`` uses one order per patch, in
            turn over the patches.
        strides: Strides of the rows of convolutions; ``(1, 1, 2, 2)`` is another reading of the paper's figure.
        refine: Add the refinement branch. Without it this is the tokenizer of the point-cloud models.
        start: First centre of farthest point sampling. With ``'farthest'`` or ``'random'`` the Gaussians are first
            sorted by content, so that the order of the file does not matter; ``'random'`` is ``'farthest'`` in eval
            mode. An integer is an index into the order of the file, as published checkpoints use it; then the order
            matters.
        rule: Rule of farthest point sampling: ``'exact'``, or ``'pointnet2'`` (with ``start=0``) for weights trained
            with the kernel of that library; see :func:`clipgs_plugin.ops.farthest_point_sample`.
        scale: Quantity of the scale: ``'sigmoid'`` of the logarithm (the paper's), ``'log'`` or ``'linear'``.
        radius: Radius of the patches: the first K Gaussians inside, in the order of the file, as in OpenShape. None
            takes the K nearest.
        point_attributes: Input attributes of the patch encoder: ``('xyz', 'rgb')``, or ``('xyz',)`` for weights
            without colour.
        point_axes: Order of the axes of positions for the patch encoder and the backbone. ``(0, 2, 1)`` swaps y and
            z, the reflection that OpenShape's z-up models were trained under. The refinement branch keeps the
            object's frame.
        patch_encoder: Type and options of the patch encoder: :class:`PatchEncoder` (the default),
            :class:`SetAbstraction` or :class:`SoftPatchEncoder`.
        refine_widths: Width of each row of convolutions, one for each stride; None doubles from 64 up to 256.
        pooling: Pooling of the refinement branch, ``'max'`` or ``'mean'``.
        init_cfg: Initialisation config of mmengine.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: :class:`Tokens`, features (B, G, C), centers (B, G, 3), mask (B, G) or None
    """

    def __init__(
        self,
        num_groups: int = 512,
        group_size: int = 64,
        channels: int = 512,
        attributes: str | Sequence[str] = 'paper',
        orders: Sequence[str] = ('xyz', 'hilbert', 'z'),
        combine: str = 'mean',
        strides: Sequence[int] = (1, 1, 2),
        refine: bool = True,
        start: int | str = 'farthest',
        rule: str = 'exact',
        scale: str = 'sigmoid',
        radius: float | None = None,
        point_attributes: str | Sequence[str] = ('xyz', 'rgb'),
        point_axes: Sequence[int] = (0, 1, 2),
        patch_encoder: dict | None = None,
        refine_widths: Sequence[int] | None = None,
        pooling: str = 'max',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        orders = (orders,) if isinstance(orders, str) else tuple(orders)
        if combine not in COMBINATIONS:
            raise ValueError(f'combine={combine!r}: expected one of {COMBINATIONS}')
        if refine and not (orders and set(orders) <= set(ops.ordering.CURVES)):
            raise ValueError(f'orders={orders}: expected one or more of {ops.ordering.CURVES}')
        if scale not in SCALE_QUANTITIES:
            raise ValueError(f'scale={scale!r}: expected one of {sorted(SCALE_QUANTITIES)}')
        check_start(start, rule)
        check_count('num_groups', num_groups)
        check_count('group_size', group_size)
        check_axes(point_axes, attribute_names(point_attributes))
        self.num_groups = num_groups
        self.group_size = group_size
        self.channels = channels
        self.attributes = attribute_names(attributes)
        self.point_attributes = attribute_names(point_attributes)
        self.orders = orders
        self.combine = combine
        self.start = start
        self.rule = rule
        self.radius = radius
        self.scale = scale
        self.point_axes = tuple(point_axes)
        self.patch_encoder = build_patch_encoder(patch_encoder, self.point_attributes, channels)
        self.refinement = None
        if refine:
            widths = refine_widths or [min(64 << row, MAX_REFINE_WIDTH) for row in range(len(strides))]
            self.refinement = Refinement(num_channels(self.attributes), channels, len(orders), combine == 'concat',
                                         widths, strides, pooling)

    def extra_repr(self) -> str:
        branch = f'orders={self.orders}, combine={self.combine!r}' if self.refinement is not None else 'refine=False'
        return (f'num_groups={self.num_groups}, group_size={self.group_size}, start={self.start!r}, '
                f'rule={self.rule!r}, {branch}')

    @property
    def dtype(self) -> torch.dtype:
        return next(self.patch_encoder.parameters()).dtype

    def forward(self, batch: GaussianBatch) -> Tokens:
        return self.encode(self.group(batch))

    def group(self, batch: GaussianBatch) -> Patches:
        """Sample the centres and gather the Gaussians of each patch."""
        if not isinstance(batch, GaussianBatch):
            raise TypeError(f'GSTokenizer takes a GaussianBatch, got {type(batch).__name__}; make one with '
                            'GaussianBatch.from_clouds([cloud, ...])')
        raw, lengths = pack(batch).float(), batch.lengths
        with torch.autocast(raw.device.type, enabled=False):
            if isinstance(self.start, str):
                raw = canonicalise(raw, lengths)
            center_idx, neighbor_idx = group_points(raw[..., XYZ], self.num_groups, self.group_size, lengths,
                                                    start_in_use(self.start, self.training), self.rule, self.radius)
            return extract(raw, center_idx, neighbor_idx, lengths)

    def encode(self, patches: Patches) -> Tokens:
        """Encode grouped patches into tokens."""
        features = self.patch_encoder(self.point_channels(patches))
        if self.refinement is not None:
            features = features + self.refinement(self.linearise(patches, self.attributes), self.order(patches))
        return Tokens(patches.to_batch(features), patches.centers[..., self.point_axes], patches.mask)

    def point_channels(self, patches: Patches) -> Tensor:
        """Return the input of the patch encoder, (P, K, C)."""
        if self.point_axes != IDENTITY_AXES:
            raw, offsets = patches.raw.clone(), patches.offsets[..., self.point_axes]
            raw[..., XYZ] = raw[..., XYZ][..., self.point_axes]
            patches = patches._replace(raw=raw, offsets=offsets)
        return self.linearise(patches, self.point_attributes)

    def linearise(self, patches: Patches, attributes: tuple[str, ...]) -> Tensor:
        """Map the Gaussians of each patch to channels of the given attributes, (P, K, C)."""
        with torch.autocast(patches.raw.device.type, enabled=False):
            return linearise(patches.raw, attributes, self.scale, patches.offsets[:, None]).to(self.dtype)

    def order(self, patches: Patches) -> Tensor:
        """Return indices that sort the Gaussians of each patch, (orders, P, K), or (1, P, K) with ``'turn'``.

        Gaussians with equal keys stay in the order of the patch, nearest to the centre first.
        """
        points = patches.raw[..., XYZ]
        orders = torch.stack([ops.curve_order(points, curve) for curve in self.orders])
        if self.combine != 'turn':
            return orders
        turn = torch.arange(patches.centers.shape[1], device=points.device).expand(patches.centers.shape[:2])
        turn = (turn.flatten() if patches.mask is None else turn[patches.mask]) % len(self.orders)
        return torch.take_along_dim(orders, turn[None, :, None], dim=0)


def check_axes(axes: Sequence[int], attributes: tuple[str, ...]) -> None:
    """Check that the axes are a permutation, and one that the attributes allow.

    Raises:
        ValueError: The axes are no permutation of 0, 1 and 2, or an attribute has an orientation.
    """
    if sorted(axes) != [0, 1, 2]:
        raise ValueError(f'point_axes={tuple(axes)}: expected the axes 0, 1 and 2 in some order')
    if tuple(axes) != IDENTITY_AXES and not set(attributes) <= set(PERMUTABLE):
        raise ValueError(f'point_axes={tuple(axes)} permutes positions only, but point_attributes={attributes} have '
                         f'orientations; expected some of {PERMUTABLE}')
