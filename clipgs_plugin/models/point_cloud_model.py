"""Published point-cloud models in their original form, without the additions of CLIP-GS."""
from __future__ import annotations

from typing import NamedTuple

from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.models.query_projection import QueryProjection
from clipgs_plugin.models.quiet_init import QuietInit
from clipgs_plugin.registry import MODELS


class PointCloudOutput(NamedTuple):
    """Outputs of a point-cloud model for a batch of clouds."""

    patch_tokens: Tensor  # (B, G, C) after the patch encoder, before any reduction or lift
    feature: Tensor       # (B, D) the family's own pooled feature; (B, 16, D) for ReCon++
    embedding: Tensor     # (B, E) after the projection, not normalised; the feature without a projection. That of
                          # queries is (B, 2, E) for ReCon, (B, 16, E) for ReCon++


@MODELS.register_module()
class PointCloudModel(QuietInit, BaseModule):
    """Point-cloud model: patches, transformer, and an optional projection into a CLIP space.

    Its parameters have the same names as in a :class:`GSEncoder`.

    Args:
        tokenizer: A :class:`PointTokenizer` or its config.
        backbone: A backbone over tokens or its config.
        projection: Module that maps the backbone's readout to the embedding, a :class:`QueryProjection` of its
            queries, or None.
        init_cfg: Initialisation config of mmengine.
    """

    def __init__(self, tokenizer: nn.Module | dict, backbone: nn.Module | dict, projection: nn.Module | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.tokenizer = MODELS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        self.backbone = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        self.projection = projection

    def forward(
        self,
        points: Tensor,                       # (B, N, 3)
        colors: Tensor | None = None,         # (B, N, 3)
        attributes: Tensor | None = None,     # (B, N, C)
        center_idx: Tensor | None = None,     # (B, G)
        neighbor_idx: Tensor | None = None,   # (B, G, K)
    ) -> PointCloudOutput:
        """Embed clouds in the frame and colour range of the family's contract.

        :class:`PointTokenizer` describes the arguments.
        """
        tokens = self.tokenizer(points, colors, attributes, center_idx, neighbor_idx)
        features = self.backbone.forward_features(tokens)
        feature = embedding = self.backbone.readout(features, tokens.mask)
        if self.projection is not None:
            of_queries = isinstance(self.projection, QueryProjection)
            embedding = self.projection(self.backbone.queries(features) if of_queries else feature)
        return PointCloudOutput(tokens.features, feature, embedding)
