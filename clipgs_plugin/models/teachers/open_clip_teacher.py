"""Frozen open_clip models as teachers."""
from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from clipgs_plugin.models.teachers.sources import load_source, resolve_source
from clipgs_plugin.models.teachers.towers import TOWERS
from clipgs_plugin.registry import MODELS


class _Shared:
    """Holder of an object outside the module tree; deep copies (of EMA models, for example) share the object."""

    def __init__(self, value: nn.Module) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict) -> _Shared:
        return self


@MODELS.register_module()
class OpenCLIPTeacher(nn.Module):
    """Frozen open_clip model that maps images and texts to unit vectors of one space.

    :attr:`network` is not part of the module tree. It follows the enclosing model to other devices, but the model
    does not count, initialise, optimise, average or save its weights. ``train()`` leaves it in eval mode, and
    checkpoints load strictly with and without a teacher.

    Args:
        model: Name in the catalogue in any case (``'toy-clip'``, ``'vit-bigg-14-laion2b'``), a name of
            ``open_clip.list_models()``, open_clip's ``'hf-hub:ORG/REPO'`` or ``'local-dir:FOLDER'``, or a folder
            written by ``tools/dev/train_toy_clip.py``.
        pretrained: Tag of ``open_clip.list_pretrained_tags_by_model(model)``, which open_clip downloads, or a local
            weight file, loaded strictly. A file of OpenAI's weights needs the ``-quickgelu`` name of the
            architecture, which the file does not store. None takes the weights of the catalogue entry; an
            architecture without an entry gets random weights and a warning.
        precision: Precision of the network, ``'fp32'``, ``'fp16'`` or ``'bf16'``, also under autocast; results are
            always float32.
        batch_size: Number of images or texts per forward pass.
        cache_dir: Download folder; None takes open_clip's default.
        towers: ``'both'``, or ``'text'`` or ``'image'`` alone. A tower alone has the same vectors. Only its tensors are
            read, and the other tower is never allocated (unless open_clip must convert the file).

    Shapes:
        - :meth:`encode_image`: (n, 3, H, W) to (n, E)
        - :meth:`encode_text`: n texts to (n, E)

    Raises:
        ValueError: Unknown model, a ``pretrained`` that is neither a tag of it nor a file, or a file of another model.
        FileNotFoundError: The weights of a tag, or the tokenizer of a SigLIP, are neither cached nor downloadable.
    """

    def __init__(self, model: str, pretrained: str | Path | None = None, precision: str = 'fp32',
                 batch_size: int = 256, cache_dir: str | None = None, towers: str = 'both') -> None:
        super().__init__()
        if towers not in TOWERS:
            raise ValueError(f"towers={towers!r}, expected 'both', 'text' or 'image'")
        if precision not in ('fp32', 'fp16', 'bf16'):
            raise ValueError(f"precision={precision!r}, expected 'fp32', 'fp16' or 'bf16'")
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size}, expected at least 1')
        import open_clip
        source = resolve_source(model, pretrained)
        network, preprocess, tokenizer = load_source(source, precision, cache_dir, towers)
        network.eval().requires_grad_(False)
        self._network = _Shared(network)
        self.name: str = source.name  # names the folder of cached features
        self.embed_dim: int = open_clip.get_model_config(source.model)['embed_dim']
        self.trained: bool = source.trained
        self.towers = towers
        self.precision = precision
        self.batch_size = batch_size
        self.preprocess: Callable = preprocess  # PIL image to (3, S, S), the transform of open_clip
        self.tokenizer: Callable | None = tokenizer  # list of str to (n, L) int64; None for images alone
        self.eval()

    @property
    def network(self) -> nn.Module:
        """open_clip model, frozen and in eval mode."""
        return self._network.value

    @property
    def device(self) -> torch.device:
        return self.network.logit_scale.device

    @property
    def logit_scale(self) -> float:
        """Factor on cosines in this teacher's training, 100 for most."""
        return float(self.network.logit_scale.exp())

    @property
    def image_size(self) -> int:
        """Longer side of the network's images in pixels."""
        size = self.network.visual.image_size
        return size if isinstance(size, int) else max(size)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Short hash of the weights of both towers, independent of the file or tag they came from.

        Raises:
            ValueError: The teacher has one tower.
        """
        if self.towers != 'both':
            raise ValueError(f"{self.name} has the {self.towers} tower alone, and a fingerprint covers both; build it "
                             "with towers='both'")
        digest = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            head = value.flatten()[:256].float().cpu().numpy()
            digest.update(f'{name}{tuple(value.shape)}'.encode() + head.tobytes())
        return digest.hexdigest()[:16]

    def require_weights(self) -> OpenCLIPTeacher:
        """Return self, after a check for trained weights.

        Raises:
            ValueError: The weights are random.
        """
        if not self.trained:
            raise ValueError(f'{self.name.removesuffix("-random")} is an architecture without weights, whose features '
                             'would be noise; name its weights, a tag or a file, as pretrained')
        return self

    def train(self, mode: bool = True) -> OpenCLIPTeacher:
        """Stay in eval mode for every mode of the enclosing model."""
        return super().train(False)

    def extra_repr(self) -> str:
        return f'{self.name!r}, embed_dim={self.embed_dim}, {self.precision}, towers={self.towers!r}'

    def _apply(self, fn: Callable, recurse: bool = True) -> OpenCLIPTeacher:
        # Follow the enclosing model to other devices, but not to other dtypes, which precision decides.
        self.network.to(fn(torch.empty(0, device=self.device)).device)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encode images into unit vectors, (n, E) float32 on the teacher's device.

        Args:
            pixels: Images preprocessed by :attr:`preprocess`, floats (n, 3, S, S) of the network's own size; or
                uint8 sRGB images (n, 3, H, W) of any one size, which :meth:`prepare` preprocesses.

        Raises:
            ValueError: Pixels of another shape or type, or a teacher without the image tower.
        """
        self._require_tower('image', 'encode_image')
        self._check_pixels(pixels)
        return self._encode_pixels(pixels, self.prepare if pixels.dtype == torch.uint8 else nn.Identity())

    def encode_views(self, images: Tensor) -> Tensor:
        """Encode rendered images into unit vectors, (n, E) float32 on the teacher's device; gradients reach them.

        Args:
            images: sRGB in [0, 1], floats (n, 3, H, W) of any one size, which :meth:`prepare` preprocesses.
        """
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f'images are {images.dtype} of shape {tuple(images.shape)}, expected floats (n, 3, H, W) '
                             'in [0, 1]; encode_image takes uint8')
        return self._encode_pixels(images, self.prepare)

    def _encode_pixels(self, pixels: Tensor, prepare: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            features = [self.network.encode_image(prepare(chunk).to(self.device, self._input_dtype), normalize=True)
                        for chunk in pixels.split(self.batch_size)]
            return self._unit(features)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts into unit vectors, (n, E) float32 on the teacher's device.

        Raises:
            ValueError: The teacher does not have the text tower.
        """
        self._require_tower('text', 'encode_text')
        if isinstance(texts, str):
            raise TypeError(f'encode_text takes a list of str, got the string {texts!r}; write [{texts!r}]')
        texts = list(texts)
        features = []
        with torch.autocast(self.device.type, enabled=False):
            for start in range(0, len(texts), self.batch_size):
                tokens = self.tokenizer(texts[start:start + self.batch_size]).to(self.device)
                features.append(self.network.encode_text(tokens, normalize=True))
            return self._unit(features)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Preprocess sRGB images, (n, 3, H, W) to (n, 3, S, S) float32 on the teacher's device.

        It equals :attr:`preprocess` up to two grey levels of 255 at few pixels.

        Args:
            pixels: uint8 images, or floats in [0, 1], which receive gradients.
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
                pixels = step(pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float())
            else:
                pixels = step(pixels)
        return pixels

    def _require_tower(self, tower: str, method: str) -> None:
        if self.towers not in ('both', tower):
            raise ValueError(f"{method} needs the {tower} tower, but {self.name} was built with "
                             f"towers={self.towers!r}; build it with towers={tower!r} or 'both'")

    def _check_pixels(self, pixels: Tensor) -> None:
        if pixels.dim() != 4 or pixels.shape[1] != 3:
            raise ValueError(f'pixels have shape {tuple(pixels.shape)}, expected (n, 3, H, W); '
                             'move the colour channels to the front with permute(0, 3, 1, 2)')
        if pixels.dtype == torch.uint8:
            return
        if not pixels.is_floating_point():
            raise ValueError(f'pixels are {pixels.dtype}, expected uint8 images, or floats from preprocess')
        size = self.network.visual.image_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        if tuple(pixels.shape[-2:]) != size:
            raise ValueError(f'float pixels have size {tuple(pixels.shape[-2:])}, expected {size}, the output of '
                             'preprocess; pass images of other sizes as uint8')

    @property
    def _input_dtype(self) -> torch.dtype:
        return {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}[self.precision]

    def _unit(self, chunks: list[Tensor]) -> Tensor:
        if not chunks:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return nn.functional.normalize(torch.cat(chunks).float(), dim=-1)


def _resize(pixels: Tensor, size: Sequence[int], interpolation) -> Tensor:
    """Resize as PIL does with antialiasing: width, then height, clamped after each, and rounded if uint8."""
    from torchvision.transforms import functional as F
    for shape in ((pixels.shape[-2], size[1]), tuple(size)):
        pixels = F.resize(pixels, shape, interpolation, antialias=True)
        pixels = pixels.clamp(0, 1) if pixels.is_floating_point() else pixels
    return pixels
