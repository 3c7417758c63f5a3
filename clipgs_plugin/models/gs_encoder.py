"""The 3DGS encoder: tokenizer, backbone and projection."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.models.backbones.lora import add_lora
from clipgs_plugin.models.checkpoints.catalogue import is_published, published_encoder
from clipgs_plugin.models.checkpoints.report import LoadReport
from clipgs_plugin.models.parts import PARTS, part_of
from clipgs_plugin.registry import MODELS, WEIGHT_INITIALIZERS
from clipgs_plugin.structures import GaussianBatch

POINT_CLOUD_PRETRAINED = 'PointCloudPretrained'


@MODELS.register_module()
class GSEncoder(BaseModule):
    """Gaussians to an embedding (CLIP-GS, arXiv 2412.19142, Sec. 4.1).

    Args:
        tokenizer: A module or config from :class:`GaussianBatch` to tokens; None where the backbone takes Gaussians.
        backbone: A module or config; its ``input`` says whether it takes tokens or the Gaussians themselves, and its
            ``parts`` what of it is what (see :class:`TokenBackbone`); one without is all ``'blocks'``.
        embed_dim: E, width of the teacher's embedding.
        init_cfg: Initialisation, as mmengine reads it. A ``PointCloudPretrained`` is applied after everything else
            has been initialised, the children's own ``init_weights`` included, so nothing overwrites it.
        frozen: Names of :meth:`parts` that are not trained: of ``'patch_encoder'``, ``'refinement'``,
            ``'position'``, ``'blocks'``, ``'norm'``, ``'prompts'``, ``'lora'`` and ``'projection'``. Their parameters
            need no gradient, and modules that lie wholly inside one of them stay in eval mode, so that batch norms
            keep their statistics and nothing is dropped. ``patch_dropout`` and ``grad_checkpointing`` of the backbone
            go on as they are. A part that this encoder has not is as good as frozen.
        lora: Options of :func:`~clipgs_plugin.models.backbones.lora.add_lora`, ``dict(rank=8, alpha=16,
            targets=('attn', 'mlp'))`` for example, for the blocks of the backbone; None goes without. What it adds
            is the part ``'lora'``, which trains though the blocks be frozen.

    Shapes:
        - input: :class:`GaussianBatch` of B objects
        - output: (B, E), not normalised

    Raises:
        ValueError: Tokenizer and backbone do not fit each other, ``frozen`` names an unknown part, or ``lora`` finds
            nothing to adapt.
    """

    def __init__(self, tokenizer: nn.Module | dict | None = None, backbone: nn.Module | dict | str = 'uni3d-b',
                 embed_dim: int = 1024,
                 init_cfg: dict | list[dict] | None = None, frozen: Sequence[str] = (),
                 lora: dict | None = None) -> None:
        if is_published(backbone):
            tokenizer, backbone, init_cfg = published_encoder(backbone, tokenizer, init_cfg)
        super().__init__(init_cfg)
        self.tokenizer = MODELS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        self.backbone = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        if not hasattr(self.backbone, 'parts'):
            self.backbone.parts = {'blocks': ('',)}
        self._check_seam()
        self.embed_dim = embed_dim
        self.projection = nn.Linear(self.backbone.out_channels, embed_dim)
        self.load_reports: list[LoadReport] = []  # of each PointCloudPretrained, once it was applied
        if lora is not None:
            add_lora(self.backbone, **lora)
        self.frozen = (frozen,) if isinstance(frozen, str) else tuple(frozen)
        self._freeze()

    def parts(self) -> dict[str, list[str]]:
        """Names of the parameters by the part of the encoder that they are of.

        Every parameter is in exactly one part. All parts are there, those that this encoder has not without names.

        Raises:
            ValueError: A parameter of the backbone is in none of its ``parts``.
        """
        names: dict[str, list[str]] = {part: [] for part in (*PARTS, *self.backbone.parts)}
        for name, _ in self.named_parameters():
            names[part_of(name, self.backbone)].append(name)
        return names

    def _freeze(self) -> None:
        if not self.frozen:
            return
        parts = self.parts()
        unknown = [part for part in self.frozen if part not in parts]
        if unknown:
            raise ValueError(f'frozen={self.frozen}: there is no part {", ".join(map(repr, unknown))}; expected some '
                             f'of {tuple(parts)}')
        for part in self.frozen:
            for name in parts[part]:
                self.get_parameter(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> GSEncoder:
        super().train(mode)
        for prefix, module in self.named_modules() if mode and self.frozen else ():
            inside = {part_of(name, self.backbone) for name, _ in module.named_parameters(prefix)}
            if len(inside) == 1 and inside <= set(self.frozen):
                module.eval()
        return self

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


def parts_in(model: nn.Module) -> dict[str, str]:
    """The part that each parameter of a model's encoder is of, by its name in the model; none without a GSEncoder."""
    return {f'{prefix}.{name}' if prefix else name: part
            for prefix, module in model.named_modules() if isinstance(module, GSEncoder)
            for part, names in module.parts().items() for name in names}
