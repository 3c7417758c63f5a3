"""Encoder of 3D Gaussians: tokenizer, backbone and projection."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from clipgs_plugin.models.backbones.lora import add_lora, merge_lora
from clipgs_plugin.models.checkpoints.catalogue import is_published, published_encoder
from clipgs_plugin.models.checkpoints.report import LoadReport
from clipgs_plugin.models.parts import PARTS, part_of
from clipgs_plugin.models.quiet_init import QuietInit
from clipgs_plugin.models.tokenizers.tokens import Tokens
from clipgs_plugin.registry import MODELS, WEIGHT_INITIALIZERS
from clipgs_plugin.structures import GaussianBatch

PRETRAINED = ('PointCloudPretrained', 'CLIPGSPretrained')  # initialisers that run last


@MODELS.register_module()
class GSEncoder(QuietInit, BaseModule):
    """Encoder from Gaussians to an embedding (CLIP-GS, arXiv 2412.19142, Sec. 4.1).

    Args:
        tokenizer: Module or config that maps a :class:`GaussianBatch` to tokens; None if the backbone takes Gaussians.
        backbone: Module, config, or name of a published checkpoint. Its ``input`` is ``'tokens'`` or ``'gaussians'``,
            and its ``parts`` maps its parts to prefixes of names (see :class:`TokenBackbone`). Without ``parts``, all
            of it is ``'blocks'``.
        embed_dim: E, width of the teacher's embedding.
        init_cfg: Initialisation config of mmengine. ``PointCloudPretrained`` and ``CLIPGSPretrained`` run last, after
            the ``init_weights`` of all children, so that nothing overwrites their weights.
        frozen: Parts that are not trained, out of ``'patch_encoder'``, ``'refinement'``, ``'position'``,
            ``'blocks'``, ``'norm'``, ``'prompts'``, ``'lora'`` and ``'projection'``. Their parameters require no
            gradient. Modules that lie wholly inside one of them stay in eval mode, so that batch norms keep their
            statistics and dropout is off. ``patch_dropout`` and ``grad_checkpointing`` of the backbone stay active.
            Parts that this encoder lacks may be named.
        lora: Options of :func:`~clipgs_plugin.models.backbones.lora.add_lora` for the blocks of the backbone, for
            example ``dict(rank=8, alpha=16, targets=('attn', 'mlp'))``; None adds nothing. The added layers form the
            part ``'lora'``, which is trained even if the blocks are frozen.
        projection: Module, or its config without widths, that maps the backbone's feature to the embedding; None is a
            Linear. ``'torch.nn.Identity'`` leaves the feature as it is. A
            :class:`~clipgs_plugin.models.query_projection.MixedProjection` takes the queries of ReCon or ReCon++ in
            place of the pooled feature.
        teacher: Name of the teacher whose space the encoder embeds into, as in the catalogue of teachers. The
            projection of a published model for another teacher is not loaded. None compares the widths only; a
            :class:`CLIPGS` with a live teacher fills in its name.

    Shapes:
        - input: :class:`GaussianBatch` of B objects
        - output: (B, E), not normalised

    Raises:
        ValueError: Tokenizer and backbone do not match, ``frozen`` names an unknown part, or ``lora`` finds no layer
            to adapt.
    """

    def __init__(self, tokenizer: nn.Module | dict | None = None, backbone: nn.Module | dict | str = 'uni3d-b',
                 embed_dim: int = 1024, init_cfg: dict | list[dict] | None = None, frozen: Sequence[str] = (),
                 lora: dict | None = None, teacher: str | None = None,
                 projection: nn.Module | dict | None = None) -> None:
        if is_published(backbone):
            tokenizer, backbone, init_cfg = published_encoder(backbone, tokenizer, init_cfg)
        super().__init__(init_cfg)
        self.tokenizer = MODELS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        self.backbone = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        if not hasattr(self.backbone, 'parts'):
            self.backbone.parts = {'blocks': ('',)}
        self._check_seam()
        self.embed_dim = embed_dim
        self.teacher = teacher
        self.projection = self._build_projection(projection)
        self.load_reports: list[LoadReport] = []  # one per applied initialiser of PRETRAINED
        if lora is not None:
            add_lora(self.backbone, **lora)
        self.frozen = (frozen,) if isinstance(frozen, str) else tuple(frozen)
        self._freeze()

    def parts(self) -> dict[str, list[str]]:
        """Return the names of the parameters by part.

        Every parameter is in exactly one part. Every part is a key; parts that this encoder lacks map to an empty list.

        Raises:
            ValueError: A parameter of the backbone is in none of its ``parts``.
        """
        names: dict[str, list[str]] = {part: [] for part in (*PARTS, *self.backbone.parts)}
        for name, _ in self.named_parameters():
            names[part_of(name, self.backbone)].append(name)
        return names

    def set_trained(self, frozen: Sequence[str] = (), lora: dict | None = None, num_prompts: int = 0) -> GSEncoder:
        """Choose anew which parameters are trained, for an encoder that has its weights; return the encoder.

        Low-rank updates that it has are folded into its weights. New ones do not change the embedding, prompts do.

        Args:
            frozen: Parts that are not trained, in place of those that were.
            lora: Options of new low-rank updates; None adds nothing.
            num_prompts: Number of new prompts; 0 keeps those that it has.

        Raises:
            ValueError: ``frozen`` names an unknown part, ``lora`` finds no layer to adapt, or the backbone has prompts
                already or takes none.
        """
        merge_lora(self.backbone)
        if lora is not None:
            add_lora(self.backbone, **lora)
        if num_prompts:
            if getattr(self.backbone, 'prompt_tokens', True) is not None:
                have = 'has prompts already' if hasattr(self.backbone, 'prompt_tokens') else 'takes no prompts'
                raise ValueError(f'num_prompts={num_prompts}: the {type(self.backbone).__name__} {have}; leave '
                                 'num_prompts out')
            self.backbone.set_prompts(num_prompts)
        self.requires_grad_(True)
        self.frozen = (frozen,) if isinstance(frozen, str) else tuple(frozen)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if not self.frozen:
            return
        parts = self.parts()
        unknown = [part for part in self.frozen if part not in parts]
        if unknown:
            raise ValueError(f'frozen={self.frozen}: unknown part {", ".join(map(repr, unknown))}; expected some of '
                             f'{tuple(parts)}')
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
        """Check that the tokenizer makes the input of the backbone."""
        name, takes = type(self.backbone).__name__, self.backbone.input
        if takes == 'gaussians':
            if self.tokenizer is not None:
                raise ValueError(f'{name} takes Gaussians, not the tokens of a {type(self.tokenizer).__name__}; set '
                                 'tokenizer=None')
            return
        if self.tokenizer is None:
            raise ValueError(f'{name} takes {takes}, but tokenizer is None; '
                             "set tokenizer=dict(type='GSTokenizer', ...)")
        if self.tokenizer.channels != self.backbone.in_channels:
            raise ValueError(f'{type(self.tokenizer).__name__} has channels={self.tokenizer.channels}, but '
                             f'{name} has in_channels={self.backbone.in_channels}; set both to the same value')

    def _build_projection(self, projection: nn.Module | dict | None) -> nn.Module:
        """Build the projection, and check that the backbone has the input that it takes."""
        backbone = self.backbone
        if projection is None:
            return nn.Linear(backbone.out_channels, self.embed_dim)
        if isinstance(projection, dict):
            queries = 'embed_dims' if hasattr(backbone, 'queries') else 'out_channels'
            projection = MODELS.build(dict(
                projection, in_features=getattr(backbone, queries), out_features=self.embed_dim))
        if _takes_queries(projection) and not hasattr(backbone, 'queries'):
            raise ValueError(f'a {type(projection).__name__} projects queries, which a {type(backbone).__name__} does '
                             'not have; leave out projection')
        if isinstance(projection, nn.Identity) and backbone.out_channels != self.embed_dim:
            raise ValueError(f'without a projection the embedding is the feature of {type(backbone).__name__}, of '
                             f'width {backbone.out_channels}; set embed_dim={backbone.out_channels}')
        return projection

    def init_weights(self) -> None:
        """Initialise as mmengine does, then load published or trained weights; a second call does nothing."""
        configs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        last = [cfg for cfg in configs if _is_pretrained(cfg)]
        self.init_cfg, original = [cfg for cfg in configs if not _is_pretrained(cfg)], self.init_cfg
        was_initialised = self.is_init
        super().init_weights()
        self.init_cfg = original
        if not was_initialised:
            for cfg in last:
                WEIGHT_INITIALIZERS.build(cfg)(self)

    def forward(self, batch: GaussianBatch) -> Tensor:
        return self.embed_tokens(batch if self.tokenizer is None else self.tokenizer(batch))

    def embed_tokens(self, inputs: Tokens | GaussianBatch) -> Tensor:
        """Embed the input of the backbone, (B, E)."""
        read = self.backbone.forward_queries if _takes_queries(self.projection) else self.backbone
        return self.projection(read(inputs))


def _takes_queries(projection: nn.Module) -> bool:
    return getattr(projection, 'input', None) == 'queries'


def _is_pretrained(cfg: dict) -> bool:
    kind = cfg['type']
    return (kind if isinstance(kind, str) else kind.__name__).split('.')[-1] in PRETRAINED


def parts_in(model: nn.Module) -> dict[str, str]:
    """Map each parameter of a model's GSEncoder, by its name in the model, to its part; empty without a GSEncoder."""
    return {f'{prefix}.{name}' if prefix else name: part
            for prefix, module in model.named_modules() if isinstance(module, GSEncoder)
            for part, names in module.parts().items() for name in names}
