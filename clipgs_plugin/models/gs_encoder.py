"""The 3DGS encoder: tokenizer, backbone and projection."""
from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.registry import MODELS, WEIGHT_INITIALIZERS
from clipgs_plugin.structures import GaussianBatch

POINT_CLOUD_PRETRAINED = 'PointCloudPretrained'


@MODELS.register_module()
class GSEncoder(BaseModule):
    """Gaussians to an embedding (CLIP-GS, arXiv 2412.19142, Sec. 4.1).

    Args:
        tokenizer: A module or config from :class:`GaussianBatch` to tokens; None where the backbone takes Gaussians.
        backbone: A module or config; its ``input`` says whether it takes tokens or the Gaussians themselves.
        embed_dim: E, width of the teacher's embedding.
        init_cfg: Initialisation, as mmengine reads it. A ``PointCloudPretrained`` is applied after everything else
            has been initialised, the children's own ``init_weights`` included, so nothing overwrites it.

    Shapes:
        - input: :class:`GaussianBatch` of B objects
        - output: (B, E), not normalised
    """

    def __init__(self, tokenizer: nn.Module | dict | None, backbone: nn.Module | dict, embed_dim: int,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.tokenizer = MODELS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        self.backbone = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        self._check_seam()
        self.embed_dim = embed_dim
        self.projection = nn.Linear(self.backbone.out_channels, embed_dim)

    def _check_seam(self) -> None:
        name, takes = type(self.backbone).__name__, self.backbone.input
        if takes == 'gaussians':
            if self.tokenizer is not None:
                raise ValueError(f'{name} takes Gaussians, so it goes without the {type(self.tokenizer).__name__}: '
                                 'set tokenizer=None')
            return
        if self.tokenizer is None:
            raise ValueError(f'{name} takes {takes}, and there is no tokenizer to make them: '
                             "set tokenizer=dict(type='GSTokenizer', ...)")
        if self.tokenizer.channels != self.backbone.in_channels:
            raise ValueError(f'{type(self.tokenizer).__name__} makes tokens of channels={self.tokenizer.channels}, '
                             f'{name} takes in_channels={self.backbone.in_channels}; set one to the other')

    def init_weights(self) -> None:
        configs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        last = [cfg for cfg in configs if _is_point_cloud_pretrained(cfg)]
        self.init_cfg, given = [cfg for cfg in configs if not _is_point_cloud_pretrained(cfg)], self.init_cfg
        already = self.is_init
        super().init_weights()
        self.init_cfg = given
        if not already:
            for cfg in last:
                WEIGHT_INITIALIZERS.build(cfg)(self)

    def forward(self, batch: GaussianBatch) -> Tensor:
        return self.projection(self.backbone(batch if self.tokenizer is None else self.tokenizer(batch)))


def _is_point_cloud_pretrained(cfg: dict) -> bool:
    kind = cfg['type']
    return (kind if isinstance(kind, str) else kind.__name__).split('.')[-1] == POINT_CLOUD_PRETRAINED
