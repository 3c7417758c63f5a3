"""Captions of objects: those that come with them, those made of names, and those a model gives its views."""
from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.registry import TASK_UTILS

# Words of files that say nothing of what is in them.
GENERIC = frozenset([
    '3d', 'asset', 'cloud', 'export', 'file', 'final', 'gaussian', 'gaussians', 'geometry', 'input', 'iteration',
    'manifold', 'mesh', 'meta', 'model', 'models', 'normalized', 'obj', 'object', 'original', 'out', 'output', 'point',
    'pointcloud', 'points', 'raw', 'result', 'scan', 'scene', 'simple', 'simplified', 'splat', 'splats', 'textured',
    'unnamed', 'untitled'])
_UUID = re.compile(r'[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}', re.IGNORECASE)
# Between words that are written together: teddyBear, UltraChrome, ATXSocket, 60Day.
_SEAM = re.compile(r'(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[A-Z][a-z])')


@dataclass(frozen=True)
class CaptionRules:
    """Which captions an object gets, in which order.

    Attributes:
        sources: Of ``'manifest'`` (those that came with the object), ``'name'`` (of its file), ``'category'`` and
            ``'template'``, in the order in which the captions come.
        templates: With ``{category}``, ``{name}`` and the object's attributes by name, and ``{a}`` for the article of
            the word that follows. A template of which the object has not every field is left out.
        fallback: The one caption of an object about which nothing is known, of source ``'template'``.
        limit: How many to keep at most.
    """

    sources: tuple[str, ...] = ('manifest', 'name', 'category', 'template')
    templates: tuple[str, ...] = ('a 3D model of {a} {category}',)
    fallback: str = 'a 3D object'
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ('sources', 'templates'):
            if isinstance(getattr(self, name), str):
                raise TypeError(f'{name}={getattr(self, name)!r}: expected a list, not a string')
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a config has lists
        unknown = [source for source in self.sources if source not in _RULES]
        if unknown:
            raise ValueError(f'sources names {", ".join(unknown)}, expected some of {", ".join(_RULES)}')
        if self.limit is not None and self.limit < 1:
            raise ValueError(f'limit={self.limit}: expected at least 1, or None')
        for template in self.templates:
            _fields(template)


def captions_for(listed: Listed, rules: CaptionRules | Mapping | None = None) -> tuple[dict, ...]:
    """The captions of an object by rules, ``dict(text=..., source=...)`` each, at least one, no text twice.

    Args:
        listed: The object.
        rules: :class:`CaptionRules`, a dict of its arguments, or None for its defaults.
    """
    rules = rules if isinstance(rules, CaptionRules) else CaptionRules(**(rules or {}))
    found = [caption for source in rules.sources for caption in _RULES[source](listed, rules)]
    return unique_captions(found or [dict(text=rules.fallback, source='template')])[:rules.limit]


def unique_captions(captions: Iterable[dict]) -> tuple[dict, ...]:
    """The captions without those whose text came before, but for case and spaces; without empty ones."""
    kept: dict[str, dict] = {}
    for caption in captions:
        text = ' '.join(caption['text'].split())
        if text:
            kept.setdefault(text.casefold(), {**caption, 'text': text})
    return tuple(kept.values())


def phrase(name: str) -> str:
    """A name as words: ``Asus_Z97AR_ATX_Motherboard_0012`` becomes ``asus z97ar atx motherboard``.

    Words that are written together are taken apart at their capitals. Ids at the end are dropped: UUIDs, hexadecimal
    and mixed-case hashes, numbers of four digits or more, or with a zero before. Empty where nothing else is left.
    """
    words = re.sub(r'[\W_]+', ' ', _UUID.sub(' ', name)).split()
    while words and _is_id(words[-1]):
        words.pop()
    return ' '.join(part for word in words for part in _SEAM.sub(' ', word).lower().split())


def name_phrase(listed: Listed) -> str:
    """What an object is called: by its attribute ``name``, else its file, else the folder of a file called model, say.

    Empty where all of these are numbers, ids or words that say nothing.
    """
    if isinstance(listed.attributes.get('name'), str):
        names = [listed.attributes['name']]
    else:
        path = Path(listed.path)
        names = [path.name.split('.')[0], path.parent.name]
    return next((words for words in map(phrase, names) if _says_something(words)), '')


def rank_captions(captions: Sequence[dict], views: ndarray, teacher) -> tuple[dict, ...]:
    """Captions by how well they fit the views, the best first; equals stay in their order.

    Args:
        captions: ``dict(text=..., source=...)`` each.
        views: sRGB, (V, H, W, 3) uint8.
        teacher: With ``encode_text`` and ``encode_image`` as
            :class:`~clipgs_plugin.models.OpenCLIPTeacher` has them.

    Returns:
        The captions with ``similarity``, the mean over views of the cosine with the text, to four digits.

    Raises:
        ValueError: No views.
    """
    import torch
    pixels = _pixels(views)
    if not captions:
        return ()
    images = teacher.encode_image(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))))
    texts = teacher.encode_text([caption['text'] for caption in captions])
    similarity = (texts.double() @ images.double().T).mean(1).tolist()
    scored = [{**caption, 'similarity': round(value, 4)} for caption, value in zip(captions, similarity)]
    return tuple(sorted(scored, key=lambda caption: -caption['similarity']))


@TASK_UTILS.register_module()
class CaptionRanker:
    """Puts the captions of an object in the order in which a teacher finds them in its views, and keeps the best.

    A teacher of the catalogue, or a tag of open_clip, is downloaded where it is not on this machine yet; ``toy-clip``
    comes with the package.

    Args:
        teacher: Model of :class:`~clipgs_plugin.models.OpenCLIPTeacher`.
        pretrained: Its tag or file of weights; None takes the catalogue's.
        precision: Of the teacher, ``'fp32'``, ``'fp16'`` or ``'bf16'``.
        device: Of torch.
        keep: Captions that an object keeps at most; None keeps all.

    Raises:
        ValueError: An unknown teacher, one without weights, or ``keep`` below 1.
        FileNotFoundError: The weights are neither on this machine nor to be downloaded.
    """

    def __init__(self, teacher: str, pretrained: str | None = None, precision: str = 'fp32', device: str = 'cpu',
                 keep: int | None = None) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f'keep={keep}: expected at least 1, or None for all')
        from clipgs_plugin.models.teachers import OpenCLIPTeacher
        self.teacher = OpenCLIPTeacher(teacher, pretrained, precision).require_weights().to(device)
        self.keep = keep

    def __call__(self, captions: Sequence[dict], views: ndarray) -> tuple[dict, ...]:
        """The captions that are kept, the best first, each with its ``similarity``; see :func:`rank_captions`."""
        return rank_captions(captions, views, self.teacher)[:self.keep]


class Captioner(Protocol):
    """A model that tells what views show. Register one in ``TASK_UTILS`` and name it in the config.

    Attributes:
        name: Told as the source of its captions.
    """

    name: str

    def caption(self, views: ndarray) -> list[str]:
        """Texts about the object in views, (V, H, W, 3) uint8 sRGB; as many as it likes, in a fixed order."""


@TASK_UTILS.register_module()
class TransformersCaptioner:
    """An image-captioning model of transformers (BLIP, BLIP-2, GIT and their like), from weights on this machine.

    Nothing is downloaded: ``model`` is a folder, or a name whose files are in Hugging Face's cache. Decoding is greedy,
    so that the same views give the same captions.

    Args:
        model: Folder of the weights, or the name of a model in the cache.
        device: Of torch.
        num_views: How many of an object's views are captioned, spread evenly over them.
        prompt: Words that begin every caption, for models that go on from any, such as BLIP and BLIP-2.
        max_new_tokens: Length of a caption.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: The weights are not on this machine.
        ValueError: Another kind of model, or damaged or missing weights.
    """

    def __init__(self, model: str | Path, device: str = 'cpu', num_views: int = 4, prompt: str | None = None,
                 max_new_tokens: int = 40) -> None:
        if num_views < 1:
            raise ValueError(f'num_views={num_views}: expected at least 1')
        try:
            import transformers
        except ImportError:
            raise ImportError('captions by a model need transformers; install it with '
                              'pip install "clipgs_plugin[caption]"') from None
        self.processor, network = _captioning_model(transformers, str(model))
        self.network = network.to(device).eval()
        self.name = Path(model).name
        self.device = device
        self.num_views = num_views
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens

    def caption(self, views: ndarray) -> list[str]:
        """A caption of each of ``num_views`` views, none twice, in the order of the views."""
        import torch
        from PIL import Image
        views = _pixels(views)
        chosen = np.arange(min(self.num_views, len(views))) * len(views) // min(self.num_views, len(views))
        words = {} if self.prompt is None else dict(text=[self.prompt] * len(chosen))
        inputs = self.processor(images=[Image.fromarray(views[i]) for i in chosen], return_tensors='pt', **words)
        inputs.pop('token_type_ids', None)  # of BERT's tokenizer; generate refuses what a model does not take
        with torch.no_grad():
            tokens = self.network.generate(**inputs.to(self.device), max_new_tokens=self.max_new_tokens,
                                           do_sample=False)
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [caption['text'] for caption in unique_captions(dict(text=text) for text in texts)]


def model_captions(captioner: Captioner, views: ndarray) -> tuple[dict, ...]:
    """The captions that a model gives the views, with its name as their source."""
    return unique_captions(dict(text=text, source=f'captioner:{captioner.name}') for text in captioner.caption(views))


def _captioning_model(transformers, model: str) -> tuple:
    """Processor and network of a captioning model on this machine."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError
    try:
        # A folder at once: on the way to the cache, from_pretrained asks the network for other things than files.
        folder = model if Path(model).is_dir() else snapshot_download(model, local_files_only=True)
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        if not (hasattr(processor, 'image_processor') and hasattr(processor, 'tokenizer')):
            raise ValueError(f'{model}: has a {type(processor).__name__} alone; take a model such as BLIP, BLIP-2 or '
                             'GIT, whose folder has a processor of both pictures and texts')
        network, report = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, output_loading_info=True)
    except OSError as error:
        raise FileNotFoundError(
            f'{model}: no image-captioning model on this machine ({str(error).splitlines()[0]}). Nothing is '
            'downloaded unasked: get one, for example with hf download Salesforce/blip-image-captioning-base '
            '--local-dir FOLDER, and name the folder') from error
    except HFValidationError:
        raise ValueError(f'{model}: no folder, and no name of a model in Hugging Face\'s cache such as '
                         'Salesforce/blip-image-captioning-base') from None
    except SafetensorError as error:
        raise ValueError(f'{model}: its weights are damaged ({error}); download them again') from error
    if report['missing_keys']:
        raise ValueError(f'{model}: its files lack {len(report["missing_keys"])} of the weights, such as '
                         f'{min(report["missing_keys"])}; download them again')
    return processor, network


# Rules

def _from_manifest(listed: Listed, rules: CaptionRules) -> list[dict]:
    return [dict(caption) for caption in listed.captions]


def _from_name(listed: Listed, rules: CaptionRules) -> list[dict]:
    return [dict(text=name_phrase(listed), source='name')] if name_phrase(listed) else []


def _from_category(listed: Listed, rules: CaptionRules) -> list[dict]:
    return [dict(text=_category(listed), source='category')] if _category(listed) else []


def _from_templates(listed: Listed, rules: CaptionRules) -> list[dict]:
    values = {key: str(value) for key, value in listed.attributes.items()
              if isinstance(value, (str, int, float)) and str(value)}
    values.update(category=_category(listed), name=name_phrase(listed))
    return [dict(text=_filled(template, values), source='template') for template in rules.templates
            if all(values.get(field) for field in _fields(template))]


_RULES: dict[str, Callable[[Listed, CaptionRules], list[dict]]] = dict(
    manifest=_from_manifest, name=_from_name, category=_from_category, template=_from_templates)


def _category(listed: Listed) -> str:
    return phrase(listed.category or '')


def _fields(template: str) -> list[str]:
    """The fields of a template but the article.

    Raises:
        ValueError: A field without a name, or a stray brace.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f'template {template!r}: {error}') from None
    if not all(field.isidentifier() for field in fields):
        raise ValueError(f'template {template!r} has the fields {fields}, expected names such as {{category}}')
    return [field for field in fields if field != 'a']


def _filled(template: str, values: Mapping[str, str]) -> str:
    text = template.format(**{**values, 'a': '\0'})
    return re.sub(r'\0(\W*)(\w*)', lambda match: _article(match[2]) + match[1] + match[2], text)


def _article(word: str) -> str:
    word = word.lower()
    vowel = word[:1] in 'aeiou' and not word.startswith(('uni', 'use', 'usu', 'eu', 'one', 'uk'))
    return 'an' if vowel or word.startswith(('hour', 'honest', 'heir', '8')) or word in ('11', '18') else 'a'


def _is_id(word: str) -> bool:
    """Whether a word is a hash or a running number."""
    if word.isdigit():
        return len(word) >= 4 or (len(word) > 1 and word[0] == '0')
    if re.fullmatch(r'[0-9a-f]{8,}|[0-9A-F]{8,}', word) and re.search(r'\d', word):
        return True
    # Hashes change between small letters, capitals and digits more often than words written together do.
    kinds = re.sub(r'\d', '0', re.sub(r'[A-Z]', 'A', re.sub(r'[a-z]', 'a', word)))
    changes = sum(x != y and x + y != 'Aa' for x, y in pairwise(kinds))
    return len(word) >= 10 and len(set(kinds)) == 3 and changes >= 4


def _says_something(words: str) -> bool:
    return any(word not in GENERIC and not word.isdigit() and len(word) > 1 for word in words.split())


def _pixels(views: ndarray) -> ndarray:
    views = np.asarray(views)
    if views.ndim != 4 or views.shape[-1] != 3 or views.dtype != np.uint8 or not len(views):
        raise ValueError(f'views have shape {views.shape} and dtype {views.dtype}, expected (V, H, W, 3) uint8, at '
                         'least one')
    return views
