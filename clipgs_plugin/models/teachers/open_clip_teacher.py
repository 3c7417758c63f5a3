"""The frozen CLIP side: any open_clip model behind two calls that return unit vectors."""
from __future__ import annotations

import difflib
import functools
import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

PREPROCESS_KEYS = ('mean', 'std', 'interpolation', 'resize_mode')


class _Shared:
    """Holds an object outside a module's tree; a deep copy of the holder (an EMA model's, say) shares the object."""

    def __init__(self, value: nn.Module) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict) -> _Shared:
        return self


@MODELS.register_module()
class OpenCLIPTeacher(nn.Module):
    """A frozen open_clip model: pictures and texts to unit vectors of one space.

    The network is not part of the module tree. It follows to other devices, but a model that holds a teacher does not
    count, initialise, optimise, average, save or look for its weights, ``train()`` leaves it in eval mode, and
    checkpoints load strictly with or without a teacher. It is at :attr:`network`.

    Args:
        model: A name of the catalogue (``'toy-clip'``, ``'vit-bigg-14-laion2b'``) in small letters or not, any name
            of ``open_clip.list_models()``, open_clip's ``'hf-hub:ORG/REPO'`` and ``'local-dir:FOLDER'``, or a folder
            that ``tools/train_toy_clip.py`` wrote.
        pretrained: A tag of ``open_clip.list_pretrained_tags_by_model(model)``, which open_clip downloads, or a local
            weight file, loaded strictly (OpenAI's from a file need the ``-quickgelu`` name of the architecture, which
            the file does not tell). None takes what the catalogue says for ``model``, and random weights, with a
            warning, for an architecture without an entry.
        precision: ``'fp32'``, ``'fp16'`` or ``'bf16'``, of the network; results are float32 always.
        batch_size: Pictures or texts that go through the network at once.
        cache_dir: Where open_clip keeps downloads, its own default if None.

    Shapes:
        - :meth:`encode_image`: (n, 3, H, W) to (n, E)
        - :meth:`encode_text`: n texts to (n, E)

    Raises:
        ValueError: Unknown model, a ``pretrained`` that is neither a tag of it nor a file, or a file of another model.
        FileNotFoundError: The weights of a tag are neither in open_clip's cache nor to be downloaded.
    """

    def __init__(self, model: str, pretrained: str | Path | None = None, precision: str = 'fp32',
                 batch_size: int = 256, cache_dir: str | None = None) -> None:
        super().__init__()
        if precision not in ('fp32', 'fp16', 'bf16'):
            raise ValueError(f"precision={precision!r}, expected 'fp32', 'fp16' or 'bf16'")
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size}, expected at least 1')
        import open_clip
        source = _resolve(model, pretrained)
        network, preprocess, tokenizer = _build(source, precision, cache_dir)
        network.eval().requires_grad_(False)
        self._network = _Shared(network)
        self.name: str = source.name  # names the folder of cached features
        self.embed_dim: int = open_clip.get_model_config(source.model)['embed_dim']
        self.trained: bool = source.trained
        self.precision = precision
        self.batch_size = batch_size
        self.preprocess: Callable = preprocess  # PIL image to (3, S, S), the transform of open_clip
        self.tokenizer: Callable = tokenizer    # list of str to (n, L) int64
        self.eval()

    @property
    def network(self) -> nn.Module:
        """The open_clip model, frozen and in eval mode."""
        return self._network.value

    @property
    def device(self) -> torch.device:
        return self.network.logit_scale.device

    @property
    def logit_scale(self) -> float:
        """The factor on cosines with which this teacher was trained, 100 for most."""
        return float(self.network.logit_scale.exp())

    @functools.cached_property
    def fingerprint(self) -> str:
        """A short hash of the weights, equal for equal weights whatever file or tag they came from."""
        digest = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            head = value.flatten()[:256].float().cpu().numpy()
            digest.update(f'{name}{tuple(value.shape)}'.encode() + head.tobytes())
        return digest.hexdigest()[:16]

    def require_weights(self) -> OpenCLIPTeacher:
        """Itself, where it has weights.

        Raises:
            ValueError: It is an architecture with random weights.
        """
        if not self.trained:
            raise ValueError(f'{self.name.removesuffix("-random")} is an architecture without weights, whose features '
                             'would be noise; name its weights, a tag or a file, as pretrained')
        return self

    def train(self, mode: bool = True) -> OpenCLIPTeacher:
        """Stays in eval mode, whatever the mode of the model that holds it."""
        return super().train(False)

    def extra_repr(self) -> str:
        return f'{self.name!r}, embed_dim={self.embed_dim}, {self.precision}'

    def _apply(self, fn: Callable, recurse: bool = True) -> OpenCLIPTeacher:
        # Follows the model that holds it to other devices, not to other dtypes, which precision decides.
        self.network.to(fn(torch.empty(0, device=self.device)).device)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Unit vectors of pictures, (n, E) float32 on the teacher's device.

        Args:
            pixels: Either what :attr:`preprocess` makes of pictures, floats (n, 3, S, S) of the network's own size,
                as open_clip takes them; or the pictures themselves, uint8 sRGB (n, 3, H, W) of any one size, which
                go through :meth:`prepare`.
        """
        self._check_pixels(pixels)
        prepare = self.prepare if pixels.dtype == torch.uint8 else nn.Identity()
        features = [self.network.encode_image(prepare(chunk).to(self.device, self._input_dtype), normalize=True).float()
                    for chunk in pixels.split(self.batch_size)]
        return self._unit(features)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, (n, E) float32 on the teacher's device."""
        if isinstance(texts, str):
            raise TypeError(f'encode_text takes a list of str, got the string {texts!r}; write [{texts!r}]')
        texts = list(texts)
        features = []
        for start in range(0, len(texts), self.batch_size):
            tokens = self.tokenizer(texts[start:start + self.batch_size]).to(self.device)
            features.append(self.network.encode_text(tokens, normalize=True).float())
        return self._unit(features)

    def prepare(self, pixels: Tensor) -> Tensor:
        """The network's input from uint8 sRGB pictures, (n, 3, H, W) to (n, 3, S, S) float32 on the teacher's device.

        It is :attr:`preprocess` on tensors; the two differ by at most two grey levels of 255, at few pixels.
        """
        from open_clip.transform import ResizeKeepRatio
        from torchvision.transforms import Normalize, Resize
        pixels = pixels.to(self.device)
        for step in self.preprocess.transforms:
            height, width = pixels.shape[-2:]
            if isinstance(step, ResizeKeepRatio):
                size = step.get_params(SimpleNamespace(size=(width, height)), step.size, step.longest)
                pixels = _resize(pixels, size, step.interpolation)
            elif isinstance(step, Resize):
                side = step.size if isinstance(step.size, int) else None
                size = step.size if side is None else [int(side * x / min(height, width)) for x in (height, width)]
                pixels = _resize(pixels, size, step.interpolation)
            elif isinstance(step, Normalize):
                pixels = step(pixels.float() / 255)
            else:
                pixels = step(pixels)
        return pixels

    def _check_pixels(self, pixels: Tensor) -> None:
        if pixels.dim() != 4 or pixels.shape[1] != 3:
            raise ValueError(f'pixels have shape {tuple(pixels.shape)}, expected (n, 3, H, W); '
                             'move the colour channels to the front with permute(0, 3, 1, 2)')
        if pixels.dtype == torch.uint8:
            return
        if not pixels.is_floating_point():
            raise ValueError(f'pixels are {pixels.dtype}, expected uint8 pictures or the floats that preprocess makes')
        size = self.network.visual.image_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        if tuple(pixels.shape[-2:]) != size:
            raise ValueError(f'float pixels of {tuple(pixels.shape[-2:])}, expected {size}, as preprocess makes them; '
                             'pictures of any size go in as uint8')

    @property
    def _input_dtype(self) -> torch.dtype:
        return {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}[self.precision]

    def _unit(self, chunks: list[Tensor]) -> Tensor:
        if not chunks:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return nn.functional.normalize(torch.cat(chunks), dim=-1)


def _resize(pixels: Tensor, size: Sequence[int], interpolation) -> Tensor:
    """PIL's antialiased resize on uint8 tensors: across, then down, clamped and rounded after each pass."""
    from torchvision.transforms import functional as F
    across = F.resize(pixels, (pixels.shape[-2], size[1]), interpolation, antialias=True)
    return F.resize(across, tuple(size), interpolation, antialias=True)


@dataclass(frozen=True)
class _Source:
    """Where a teacher comes from: an open_clip model and a tag, a file, or neither."""

    name: str                   # letters, digits, '.', '_' and '-', since it names a folder
    model: str
    tag: str | None = None
    file: Path | None = None
    folder: Path | None = None  # of a teacher that ships with the package: configuration, merges and weights

    @property
    def trained(self) -> bool:
        """Whether there are weights; names with a prefix bring their own."""
        return self.tag is not None or self.file is not None or ':' in self.model


def _resolve(model: str, pretrained: str | Path | None) -> _Source:
    """Turn the two arguments of a teacher into a source that exists, or say what would."""
    import open_clip
    if model.startswith(('hf-hub:', 'local-dir:')):
        if pretrained is not None:
            raise ValueError(f'model={model!r} brings its own weights, so pretrained={str(pretrained)!r} '
                             'would be ignored; leave it out')
        return _Source(_folder_name(model), model)
    catalogue = load_catalogue('teachers')
    if model.lower() in catalogue and model not in open_clip.list_models():
        model = model.lower()  # ViT-B-32-openai too; ViT-B-16-SigLIP is open_clip's name of an architecture
    name, entry = model, catalogue.get(model, {})
    if 'weights' in entry:
        folder = resources.files('clipgs_plugin').joinpath('weights', entry['weights'])
        return _from_folder(Path(str(folder)), pretrained)
    if Path(model).is_dir():
        return _from_folder(Path(model), pretrained)
    if entry and pretrained is None:
        return _Source(name, entry['model'], tag=entry['tag'])
    model = entry.get('model', model).replace('/', '-')
    if model not in open_clip.list_models():
        close = difflib.get_close_matches(name, [*catalogue, *open_clip.list_models()], n=5, cutoff=0.5)
        raise ValueError(f'unknown teacher model {name!r}; ' + (f'close matches: {", ".join(close)}' if close else
                         'see open_clip.list_models() and registry/catalogue/teachers.yml'))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        warnings.warn(f'OpenCLIPTeacher({name!r}) has random weights; name a tag or a file with pretrained=, '
                      f'tags: {", ".join(tags) or "none"}', stacklevel=3)
        return _Source(_folder_name(f'{model}-random'), model)
    if str(pretrained) in tags:
        return _Source(_folder_name(f'{model}-{pretrained}'), model, tag=str(pretrained))
    file = _existing(pretrained, model, tags)
    return _Source(_folder_name(f'{model}-{file.stem}'), model, file=file)


def _from_folder(folder: Path, pretrained: str | Path | None) -> _Source:
    """A teacher in a folder: ``NAME.json`` for open_clip, ``merges.txt.gz`` and ``weights.safetensors``."""
    import open_clip
    configs = sorted(folder.glob('*.json'))
    if len(configs) != 1:
        raise ValueError(f'{folder} holds {len(configs)} .json files, expected the one of a teacher\'s architecture')
    open_clip.add_model_config(configs[0])  # again each time: of two folders with one name the last is meant
    name = configs[0].stem
    file = _existing(pretrained or folder / 'weights.safetensors', name, [])
    return _Source(name if pretrained is None else _folder_name(f'{name}-{file.stem}'), name, file=file, folder=folder)


def _folder_name(text: str) -> str:
    return re.sub(r'[^\w.-]', '-', text, flags=re.ASCII)


def _existing(pretrained: str | Path, model: str, tags: list[str]) -> Path:
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    close = difflib.get_close_matches(str(pretrained), tags, n=5, cutoff=0.5) or tags
    raise ValueError(f'pretrained={str(pretrained)!r} is neither a file nor a tag of {model!r}'
                     + (f'; tags: {", ".join(close)}' if close else ''))


def _build(source: _Source, precision: str, cache_dir: str | None) -> tuple[nn.Module, Callable, Callable]:
    """Network, PIL transform and tokenizer of a source."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2
    options = {}
    if source.tag is not None:
        _download(source, cache_dir)
        # Tags trained with QuickGELU give wrong vectors without it, and open_clip only warns.
        options['force_quick_gelu'] = bool(open_clip.get_pretrained_cfg(source.model, source.tag).get('quick_gelu'))
    elif source.file is not None and source.folder is None:
        options['force_preprocess_cfg'] = _common_preprocess(source.model)
    pretrained = source.tag or (str(source.file) if source.file else None)
    try:
        network = open_clip.create_model(source.model, pretrained, precision=precision, cache_dir=cache_dir, **options)
    except RuntimeError as error:
        if source.file is None:
            raise
        raise ValueError(f'{source.file}: not the weights of open_clip model {source.model!r}; name the '
                         f'architecture that they belong to. open_clip says: {error}') from error
    preprocess = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    merges = {} if source.folder is None else {'bpe_path': str(source.folder / 'merges.txt.gz')}
    return network, preprocess, open_clip.get_tokenizer(source.model, cache_dir=cache_dir, **merges)


def _download(source: _Source, cache_dir: str | None) -> None:
    import open_clip
    try:
        open_clip.download_pretrained(open_clip.get_pretrained_cfg(source.model, source.tag), cache_dir=cache_dir)
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(
            f'could not download the weights of {source.model!r} with tag {source.tag!r} '
            f'({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}). Without a network, copy '
            f"the file here and name it: OpenCLIPTeacher({source.model!r}, pretrained='/path/to/weights.safetensors')"
        ) from error


def _common_preprocess(model: str) -> dict:
    """What all tags of a model agree on in preprocessing, which a weight file does not say (SigLIP's mean, say)."""
    import open_clip
    configs = [{key: config[key] for key in PREPROCESS_KEYS if key in config}
               for config in (open_clip.get_pretrained_cfg(model, tag)
                              for tag in open_clip.list_pretrained_tags_by_model(model))]
    return configs[0] if configs and all(config == configs[0] for config in configs) else {}
