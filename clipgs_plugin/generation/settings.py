"""Settings of a generation run: what triplets are like, and how the work is executed."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from clipgs_plugin.generation.captions import CaptionRules
from clipgs_plugin.generation.fields import check_fields
from clipgs_plugin.generation.fitting import PRESETS, FitSettings
from clipgs_plugin.generation.rendering import ViewRule
from clipgs_plugin.generation.rendering.lights import LIGHTS
from clipgs_plugin.generation.rendering.meshes import RENDERERS
from clipgs_plugin.parallel import EXECUTORS
from clipgs_plugin.triplets.codecs import DTYPES

BATCH_SIZES = dict(cpu=1, cuda=32)
TIME_LIMIT = 600.0  # seconds


@dataclass(frozen=True)
class GenerationSettings:
    """Settings that determine the stored triplets.

    Attributes:
        views: Cameras, image size and background of the views.
        fit: How Gaussians are fitted.
        captions: Which texts of an object become captions, and the templates for its names.
        captioner: Config of a captioner, which adds captions of the views.
        ranker: Config of a ranker, which sorts the captions and may drop some.
        renderer: Renderer of meshes, an argument of :func:`~clipgs_plugin.generation.rendering.choose_renderer`.
        samples: Samples along each side of a pixel when a mesh is rendered.
        light: Light on meshes, ``'none'`` or a name that :func:`~clipgs_plugin.generation.rendering.render_mesh` takes.
        max_gaussians: Maximum number of Gaussians of a splat file, kept by opacity times area; None keeps all.
        seed: Random seed; the random numbers of an object depend on it and on the uid only.
        device: Torch device that renders and fits Gaussians.
        dtype: Type of stored Gaussians, ``'float16'`` or ``'float32'``.
        webp_quality: WebP quality of stored views, 0 to 100; None stores them losslessly.
        objects_per_shard: Number of objects in a full shard.

    Raises:
        ValueError: A value is out of range.
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
        check_fields(self)
        if self.device_type not in ('cpu', 'cuda'):
            raise ValueError(f'device={self.device!r}: expected cpu or cuda')
        for name, known in (('renderer', ('auto', *RENDERERS)), ('light', LIGHTS), ('dtype', DTYPES)):
            _check_choice(self, name, known)
        for name in ('samples', 'objects_per_shard', 'max_gaussians'):
            _check_least(self, name, 1)
        if self.webp_quality is not None and not 0 <= self.webp_quality <= 100:
            raise ValueError(f'webp_quality={self.webp_quality}: expected 0 to 100, or None for lossless views')

    @property
    def device_type(self) -> str:
        """Device without its index, ``'cpu'`` or ``'cuda'``."""
        return self.device.partition(':')[0]

    @classmethod
    def from_config(cls, config: Mapping) -> GenerationSettings:
        """Build settings from the ``generation`` dict of a config.

        Args:
            config: Any of ``views``, ``fit`` (fields of :class:`FitSettings`, over those of its ``preset``),
                ``captions`` (fields of :class:`CaptionRules`, ``captioner`` and ``ranker``), ``mesh`` (``renderer``,
                ``samples``, ``light``), ``splats`` (``max_gaussians``), ``storage``, ``seed`` and ``device``.
                ``source`` is ignored.

        Raises:
            ValueError: A part or a setting is unknown.
        """
        _check_names('generation', config, {'source', 'fit', *_TOP_LEVEL, *_PARTS})
        given = {part: to_builtin(config.get(part, {})) for part in ('fit', *_PARTS)}
        for part, known in (*_PARTS.items(), ('fit', {'preset', *(f.name for f in fields(FitSettings))})):
            _check_names(part, given[part], known)
        preset = given['fit'].pop('preset', 'default')
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f'fit.preset={preset!r}: expected one of {", ".join(PRESETS)}')
        captions = given.pop('captions')
        models = {name: captions.pop(name) for name in _MODELS & set(captions)}
        try:
            rules = CaptionRules(**captions)
        except TypeError as error:
            raise ValueError(f'captions: {error}') from error
        return cls(views=ViewRule(**given['views']), fit=replace(PRESETS[preset], **given['fit']),
                   captions=rules, **models, **given['mesh'], **given['splats'], **given['storage'],
                   **{name: config[name] for name in _TOP_LEVEL & set(config)})


@dataclass(frozen=True)
class Execution:
    """Settings of how a run is executed; on the CPU, stored objects do not depend on them.

    Attributes:
        workers: Processes of executor ``'local'``, with one thread each; 0 works in the calling process.
        executor: ``'local'``, or ``'ray'`` for all CPUs of a Ray cluster. Its nodes must see all files under the same
            paths; paths in the settings must be absolute, since nodes have other working directories.
        ray_address: Address of the cluster, see :func:`~clipgs_plugin.parallel.cluster.connected`.
        batch_size: Number of objects that a worker takes at once and, on CUDA, fits together; None selects 1 on the
            CPU and 32 on CUDA.
        time_limit: Seconds that an object may take to be loaded and rendered, to be fitted (a batch may take that
            for each object), or to be encoded. An object over the limit fails. None sets no limit; ``workers=0``
            ignores it.
        shard_index: Index of the part of the listing that this run makes.
        num_shards: Number of parts, made by independent runs. Several parts are written to
            ``out/parts/00000-of-00002`` and so on; :func:`~clipgs_plugin.generation.join_parts` joins them.

    Raises:
        ValueError: A value is out of range.
    """

    workers: int = 1
    executor: str = 'local'
    ray_address: str | None = None
    batch_size: int | None = None
    time_limit: float | None = TIME_LIMIT
    shard_index: int = 0
    num_shards: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        _check_choice(self, 'executor', EXECUTORS)
        for name, least in dict(workers=0, batch_size=1, num_shards=1).items():
            _check_least(self, name, least)
        if self.time_limit is not None and self.time_limit <= 0:
            raise ValueError(f'time_limit={self.time_limit}: expected seconds above 0, or None for no limit')
        if not 0 <= self.shard_index < self.num_shards:
            raise ValueError(f'shard_index={self.shard_index}: expected 0 to {self.num_shards - 1}, below num_shards')


_TOP_LEVEL, _MODELS = {'seed', 'device'}, {'captioner', 'ranker'}
_PARTS = dict(views={f.name for f in fields(ViewRule)}, captions={f.name for f in fields(CaptionRules)} | _MODELS,
              mesh={'renderer', 'samples', 'light'}, splats={'max_gaussians'},
              storage={'dtype', 'webp_quality', 'objects_per_shard'})


def to_builtin(value, leaf: Callable = lambda value: value):
    """Convert nested mappings and sequences, as of a config, to dicts and lists that pickle and serialise anywhere.

    Args:
        value: Any value.
        leaf: Function applied to dict keys and to values that are no mapping, list or tuple.
    """
    if isinstance(value, Mapping):
        return {leaf(key): to_builtin(item, leaf) for key, item in value.items()}
    return [to_builtin(item, leaf) for item in value] if isinstance(value, list | tuple) else leaf(value)


def _check_names(part: str, given: Iterable[str], known: set[str]) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f'{part}={given!r:.60}: expected a dict of settings')
    unknown = sorted(map(str, set(given) - known))
    if unknown:
        raise ValueError(f'{part} has no setting {unknown[0]!r}; it takes {", ".join(sorted(known))}')


def _check_choice(settings, name: str, known: Iterable[str]) -> None:
    if getattr(settings, name) not in known:
        raise ValueError(f'{name}={getattr(settings, name)!r}: expected one of {", ".join(known)}')


def _check_least(settings, name: str, least: int) -> None:
    value = getattr(settings, name)
    if value is not None and value < least:
        raise ValueError(f'{name}={value}: expected at least {least}')
