"""Sources of an open_clip model: a catalogue entry, a tag, a file or a folder."""
from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError

from torch import nn

from clipgs_plugin.io.safe_load import check_archive, check_finite, why_refused
from clipgs_plugin.models.teachers.towers import build_tower, keep_tower, load_tower
from clipgs_plugin.registry.catalogue import load_catalogue

VIEWS = 'views:'  # before the name of a teacher, the model of rendered views in it
PREPROCESS_KEYS = ('mean', 'std', 'interpolation', 'resize_mode')


@dataclass(frozen=True)
class Source:
    """An open_clip model with a tag, a file or neither."""

    name: str                   # letters, digits, '.', '_' and '-', since it names a folder of features
    model: str
    tag: str | None = None
    file: Path | None = None
    folder: Path | None = None  # of a teacher of this package: configuration, merges and weights

    @property
    def trained(self) -> bool:
        """True if it has weights; names with a prefix bring their own."""
        return self.tag is not None or self.file is not None or ':' in self.model


def model_of_features(teacher: str) -> str:
    """Return the model that embeds queries into the space of a teacher's cached features.

    Args:
        teacher: Name of the features, which is a name of a teacher, or its architecture and tag joined by a dash.
    """
    import open_clip
    for model, tag in open_clip.list_pretrained():
        if re.sub(r'[^\w.-]', '-', f'{model}-{tag}') == teacher:
            return f'{VIEWS}{model}@{tag}'
    return f'{VIEWS}{teacher}'


def resolve_source(model: str, pretrained: str | Path | None) -> Source:
    """Find the source for the arguments of :class:`~clipgs_plugin.models.OpenCLIPTeacher`.

    Raises:
        ValueError: Unknown model, or a ``pretrained`` that is neither a tag of it nor a file.
    """
    import open_clip
    if model.startswith(('hf-hub:', 'local-dir:')):
        if pretrained is not None:
            raise ValueError(f'model={model!r} brings its own weights, so pretrained={str(pretrained)!r} '
                             'would be ignored; leave it out')
        return Source(_folder_name(model), model)
    catalogue = load_catalogue('teachers')
    if model.lower() in catalogue and model not in open_clip.list_models():
        model = model.lower()  # accepts ViT-B-32-openai, and keeps open_clip's own names like ViT-B-16-SigLIP
    name, entry = model, catalogue.get(model, {})
    if 'weights' in entry:
        folder = resources.files('clipgs_plugin').joinpath('weights', entry['weights'])
        return _from_folder(Path(str(folder)), pretrained)
    if Path(model).is_dir():
        return _from_folder(Path(model), pretrained)
    if entry and pretrained is None:
        return Source(name, entry['model'], tag=entry['tag'])
    model = entry.get('model', model).replace('/', '-')
    if model not in open_clip.list_models():
        close = difflib.get_close_matches(name, [*catalogue, *open_clip.list_models()], n=5, cutoff=0.5)
        raise ValueError(f'unknown teacher model {name!r}; ' + (f'close matches: {", ".join(close)}' if close else
                         'see open_clip.list_models() and registry/catalogue/teachers.yml'))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        warnings.warn(f'OpenCLIPTeacher({name!r}) has random weights; name a tag or a file with pretrained=, '
                      f'tags: {", ".join(tags) or "none"}', stacklevel=3)
        return Source(_folder_name(f'{model}-random'), model)
    if str(pretrained) in tags:
        return Source(_folder_name(f'{model}-{pretrained}'), model, tag=str(pretrained))
    file = _existing(pretrained, model, tags)
    return Source(_folder_name(f'{model}-{file.stem}'), model, file=file)


def _from_folder(folder: Path, pretrained: str | Path | None) -> Source:
    """Find a teacher in a folder of ``NAME.json`` for open_clip, ``merges.txt.gz`` and ``weights.safetensors``."""
    import open_clip
    configs = sorted(folder.glob('*.json'))
    if len(configs) != 1:
        raise ValueError(f'{folder} holds {len(configs)} .json files, expected one, the architecture of a teacher')
    open_clip.add_model_config(configs[0])  # each time, since two folders may share a name
    name = configs[0].stem
    file = _existing(pretrained or folder / 'weights.safetensors', name, [])
    return Source(name if pretrained is None else _folder_name(f'{name}-{file.stem}'), name, file=file, folder=folder)


def _folder_name(text: str) -> str:
    return re.sub(r'[^\w.-]', '-', text, flags=re.ASCII)


def _existing(pretrained: str | Path, model: str, tags: list[str]) -> Path:
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    close = difflib.get_close_matches(str(pretrained), tags, n=5, cutoff=0.5) or tags
    raise ValueError(f'pretrained={str(pretrained)!r} is neither a file nor a tag of {model!r}'
                     + (f'; tags: {", ".join(close)}' if close else ''))


def load_source(source: Source, precision: str, cache_dir: str | None,
                towers: str = 'both') -> tuple[nn.Module, Callable, Callable | None]:
    """Build the network, PIL transform and tokenizer of a source; the image tower alone has no tokenizer.

    One tower alone is built and read without the other. Where open_clip must convert the file, or the source is a
    repository or a folder of open_clip, both are loaded and the other one is dropped.

    Raises:
        ValueError: The file holds the weights of another model, is damaged, or could run code.
        FileNotFoundError: The weights of a tag, or the tokenizer, are neither cached nor downloadable.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2
    file, options = source.file, dict(precision=precision, cache_dir=cache_dir)
    if source.tag is not None:
        file = _download(source, cache_dir)
        # Weights trained with QuickGELU give wrong vectors without it, and open_clip only warns.
        options['force_quick_gelu'] = bool(open_clip.get_pretrained_cfg(source.model, source.tag).get('quick_gelu'))
    elif source.file is not None:
        check_archive(source.file)
        if source.folder is None:
            options['force_preprocess_cfg'] = _common_preprocess(source.model)
    network = None
    if towers != 'both' and ':' not in source.model:
        network = build_tower(source.model, source.tag, towers, **options)
        if file is not None and not load_tower(network, file, towers):
            network = None
    if network is None:
        network = _load_both(source, options)
    preprocess = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    keep_tower(network, towers)
    check_finite(dict(network.named_parameters()), source.tag or source.file or source.model)
    return network, preprocess, None if towers == 'image' else _tokenizer(source, cache_dir)


def _tokenizer(source: Source, cache_dir: str | None) -> Callable:
    """Return the tokenizer of a source: that of CLIP, or the model's own (SigLIP's), which lies on the hub."""
    import open_clip
    merges = {} if source.folder is None else {'bpe_path': str(source.folder / 'merges.txt.gz')}
    try:
        return open_clip.get_tokenizer(source.model, cache_dir=cache_dir, **merges)
    except (OSError, ValueError) as error:
        config = {} if ':' in source.model else open_clip.get_model_config(source.model)
        name = config.get('text_cfg', {}).get('hf_tokenizer_name')
        if name is None:
            raise
        reason = ''.join(str(error).splitlines()[:1])[:200].rstrip('.')
        raise FileNotFoundError(
            f'the tokenizer {name!r} of {source.model!r} is neither here nor downloadable ({type(error).__name__}: '
            f"{reason}); copy the hub's cache from a machine that has it, or build the image tower alone with "
            "towers='image'") from error


def _load_both(source: Source, options: dict) -> nn.Module:
    """Build the whole network of a source by open_clip."""
    import open_clip
    pretrained = source.tag or (str(source.file) if source.file else None)
    try:
        return open_clip.create_model(source.model, pretrained, **options)
    except UnpicklingError as error:
        raise ValueError(f'{pretrained}: {why_refused(Path(pretrained), str(error))}') from error
    except RuntimeError as error:
        if source.file is None:
            raise
        raise ValueError(f'{source.file}: not the weights of open_clip model {source.model!r}; name the '
                         f'architecture of these weights. Error of open_clip: {error}') from error


def _download(source: Source, cache_dir: str | None) -> Path:
    """Return the file of a tag's weights, from the cache or the network."""
    import open_clip
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(source.model, source.tag),
                                                  cache_dir=cache_dir))
    except (OSError, RuntimeError, ValueError) as error:
        reason = ''.join(str(error).splitlines()[:1])[:200].rstrip('.')
        raise FileNotFoundError(
            f'could not download the weights of {source.model!r} with tag {source.tag!r} '
            f'({type(error).__name__}: {reason}); check the network, copy '
            "the hub's cache from a machine that has them, or copy their file and name it: "
            f"OpenCLIPTeacher({source.model!r}, pretrained='/path/to/weights.safetensors')"
        ) from error


def _common_preprocess(model: str) -> dict:
    """Return the preprocessing that all tags of a model share, since a weight file lacks it (SigLIP's mean)."""
    import open_clip
    configs = [{key: config[key] for key in PREPROCESS_KEYS if key in config}
               for config in (open_clip.get_pretrained_cfg(model, tag)
                              for tag in open_clip.list_pretrained_tags_by_model(model))]
    return configs[0] if configs and all(config == configs[0] for config in configs) else {}
