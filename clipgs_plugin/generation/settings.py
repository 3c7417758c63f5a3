"""Settings of a run that makes triplets."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from clipgs_plugin.generation.captions import CaptionRules
from clipgs_plugin.generation.fitting import PRESETS, FitSettings
from clipgs_plugin.generation.rendering import ViewRule
from clipgs_plugin.generation.rendering.lights import LIGHTS
from clipgs_plugin.generation.rendering.meshes import RENDERERS
from clipgs_plugin.triplets.codecs import DTYPES


@dataclass(frozen=True)
class GenerationSettings:
    """How triplets are made.

    Attributes:
        views: Cameras, size and background of the pictures.
        fit: How Gaussians are fitted.
        captions: Which of the texts that come with an object, and what is made of its names.
        captioner: Config of a captioner, which adds captions of the views.
        ranker: Config of a ranker, which orders the captions and leaves some out.
        renderer: Of meshes, as :func:`~clipgs_plugin.generation.rendering.choose_renderer` takes it.
        samples: Samples of a pixel of a mesh, in each direction.
        light: Of a mesh, ``'none'`` or a name that :func:`~clipgs_plugin.generation.rendering.render_mesh` knows.
        max_gaussians: Splats of more Gaussians keep so many, those that cover most; None keeps all.
        seed: Randomness is a function of the seed and an object's uid.
        device: Of torch, on which Gaussians are drawn and fitted.
        dtype: Of stored Gaussians, ``'float16'`` or ``'float32'``.
        webp_quality: Of stored views, 0 to 100; None stores them without loss.
        objects_per_shard: Objects in a full shard.

    Raises:
        ValueError: A value out of its range.
    """

    views: ViewRule = field(default_factory=ViewRule)
    fit: FitSettings = PRESETS['default']
    captions: CaptionRules = field(default_factory=CaptionRules)
    captioner: Mapping | None = None
    ranker: Mapping | None = None
    renderer: str = 'auto'
    samples: int = 3
    light: str = 'none'
    max_gaussians: int | None = None
    seed: int = 0
    device: str = 'cpu'
    dtype: str = 'float16'
    webp_quality: int | None = 90
    objects_per_shard: int = 128

    def __post_init__(self) -> None:
        if self.device_type not in ('cpu', 'cuda'):
            raise ValueError(f'device={self.device!r}: expected cpu or cuda')
        for name, known in (('renderer', ('auto', *RENDERERS)), ('light', LIGHTS), ('dtype', DTYPES)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name}={getattr(self, name)!r}: expected one of {", ".join(known)}')
        for name in ('samples', 'objects_per_shard', 'max_gaussians'):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)}: expected at least 1')
        if self.webp_quality is not None and not 0 <= self.webp_quality <= 100:
            raise ValueError(f'webp_quality={self.webp_quality}: expected 0 to 100, or None to store without loss')

    @property
    def device_type(self) -> str:
        """``'cpu'`` or ``'cuda'``."""
        return self.device.partition(':')[0]

    @classmethod
    def from_config(cls, config: Mapping) -> GenerationSettings:
        """Settings of the parts of a config's ``generation``.

        Args:
            config: ``views``, ``fit`` (fields of :class:`FitSettings` over those of its ``preset``), ``captions``
                (fields of :class:`CaptionRules`, ``captioner`` and ``ranker``), ``mesh`` (``renderer``, ``samples``,
                ``light``), ``splats`` (``max_gaussians``), ``storage``, ``seed`` and ``device``; each may be absent.
                ``source`` is left to the caller.

        Raises:
            ValueError: An unknown part or setting.
        """
        _check_names('generation', config, {'source', 'fit', *_ALONE, *_PARTS})
        given = {part: plain(config.get(part, {})) for part in ('fit', *_PARTS)}
        for part, known in _PARTS.items():
            _check_names(part, given[part], known)
        preset = given['fit'].pop('preset', 'default')
        if preset not in PRESETS:
            raise ValueError(f'fit.preset={preset!r}: expected one of {", ".join(PRESETS)}')
        _check_names('fit', given['fit'], {f.name for f in fields(FitSettings)})
        captions = given.pop('captions')
        models = {name: captions.pop(name) for name in _MODELS & set(captions)}
        return cls(views=ViewRule(**given['views']), fit=replace(PRESETS[preset], **given['fit']),
                   captions=CaptionRules(**captions), **models, **given['mesh'], **given['splats'], **given['storage'],
                   **{name: config[name] for name in _ALONE & set(config)})


_ALONE, _MODELS = {'seed', 'device'}, {'captioner', 'ranker'}
_PARTS = dict(views={f.name for f in fields(ViewRule)}, captions={f.name for f in fields(CaptionRules)} | _MODELS,
              mesh={'renderer', 'samples', 'light'}, splats={'max_gaussians'},
              storage={'dtype', 'webp_quality', 'objects_per_shard'})


def _check_names(part: str, given: Iterable[str], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f'{part} has no setting {unknown[0]!r}; it takes {", ".join(sorted(known))}')


def plain(value):
    """Dicts, lists and values of a config without their classes, fit to cross processes and be stored."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
