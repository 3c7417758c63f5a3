"""One tower of an open_clip model, built and loaded without the other."""
from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

TOWERS = ('both', 'text', 'image')
# Stand-ins for the tower that is not wanted, of one narrow block, so that open_clip builds the rest at no cost.
_NO_IMAGE = dict(layers=1, width=8, head_width=8, patch_size=16)
_NO_TEXT = dict(layers=1, width=8, heads=1, vocab_size=8)

Opened = tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor]]  # shapes by name, and the reader of one tensor


def build_tower(model: str, tag: str | None, tower: str, **options) -> nn.Module:
    """Build an open_clip model with one tower of random weights, and a stand-in of a few numbers for the other.

    Args:
        model: Name of ``open_clip.list_models()``.
        tag: Tag whose preprocessing the model takes, or None.
        tower: ``'text'`` or ``'image'``.
        options: Further arguments of ``open_clip.create_model``.

    Raises:
        ValueError: The model is a CoCa, whose decoder joins the towers.
    """
    import open_clip
    config = open_clip.get_model_config(model)
    if 'multimodal_cfg' in config:
        raise ValueError(f"{model} is a CoCa, whose decoder joins the towers; build it with towers='both'")
    stand_in = (dict(vision_cfg={**_NO_IMAGE, 'image_size': config['vision_cfg'].get('image_size', 224)})
                if tower == 'text' else dict(text_cfg=_NO_TEXT))
    with _without_note_on_weights():
        return open_clip.create_model(model, tag, load_weights=False, pretrained_text=False, **stand_in, **options)


def keep_tower(network: nn.Module, tower: str) -> nn.Module:
    """Remove the other tower from an open_clip model; ``'both'`` removes nothing."""
    if tower != 'both':
        for members in (network._modules, network._parameters, network._buffers):
            for name in members:
                if not _is_of(name, tower):
                    members[name] = None
    return network


def load_tower(network: nn.Module, path: Path, tower: str) -> bool:
    """Load one tower from a file of both, without reading the other.

    Returns:
        False if the file is not in open_clip's own layout or its tower is another one; nothing is loaded then.
    """
    with torch.no_grad(), _opened(path) as opened:
        if opened is None:
            return False
        shapes, read = opened
        names = {name: found for name, found in _own_names(shapes, network).items() if _is_of(name, tower)}
        expected = {name: value for name, value in network.state_dict().items() if _is_of(name, tower)}
        if names.keys() != expected.keys() or any(
                shapes[names[name]] != tuple(value.shape) and not value.numel() == math.prod(shapes[names[name]]) == 1
                for name, value in expected.items()):
            return False
        for name, value in expected.items():
            value.copy_(read(names[name]).reshape(value.shape))  # logit_scale has the shape () or (1,)
    return True


def _is_of(name: str, tower: str) -> bool:
    return name.startswith('logit_') or (name.partition('.')[0] == 'visual') == (tower == 'image')


def _own_names(names: Mapping[str, object], network: nn.Module) -> dict[str, str]:
    """Return the names of a file by those of the network, which begin with ``text.`` if its text tower is a module."""
    from open_clip.model import convert_to_custom_text_state_dict
    own = {name.removeprefix('module.'): name for name in names}
    return own if 'positional_embedding' in network._parameters else convert_to_custom_text_state_dict(own)


@contextmanager
def _opened(path: Path) -> Iterator[Opened | None]:
    """Open a file of tensors without reading them; None if it is another kind of file, which open_clip may convert."""
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError, safe_open
        try:
            file = safe_open(path, 'pt')
        except SafetensorError:
            yield None
            return
        with file:
            yield {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, file.get_tensor  # noqa: SIM118
    else:
        yield _mapped(path)


def _mapped(path: Path) -> Opened | None:
    """Map a file of ``torch.save`` into memory; None for pickles, TorchScript, and files of other objects."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError):
        return None
    content = content.get('state_dict', content) if isinstance(content, dict) else {}
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        return None
    return {name: tuple(value.shape) for name, value in content.items()}, content.__getitem__


@contextmanager
def _without_note_on_weights() -> Iterator[None]:
    """Hold back the note of open_clip that a model without weights is random, since they are loaded later."""
    def keep(record: logging.LogRecord) -> bool:
        return 'No pretrained weights loaded' not in record.getMessage()
    logging.getLogger().addFilter(keep)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(keep)
