"""Tensors and metadata of checkpoint files."""
from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from clipgs_plugin.io.safe_load import check_path, is_pickle, load_file, why_refused

# Keys under which training code stores the weights: DeepSpeed, most, Point-BERT and Point-MAE, their older files.
WRAPPERS = ('module', 'state_dict', 'base_model', 'model')
LOGIT_SCALE = 'logit_scale'
MAX_DEPTH = 4  # of wrappers in wrappers; a pickled mapping can contain itself


def read_checkpoint(path: str | Path, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint onto the CPU, without wrappers and without a leading ``module.``.

    Nothing in the file is executed. Besides tensors, only plain containers, ``argparse.Namespace`` and numpy numbers
    are accepted; the files of Point-BERT and ULIP contain them.

    Args:
        path: File written by ``torch.save`` or safetensors.
        trust_pickle: Execute the code in the file if it holds any. Use it only for files from a trusted origin.

    Returns:
        Tensors by their names in the file.

    Raises:
        FileNotFoundError: The file does not exist.
        IsADirectoryError: The path is a folder.
        ValueError: The file holds no tensors, holds code, or is damaged.
    """
    path = Path(path).expanduser()
    content = _load_trusted(path) if trust_pickle and path.suffix != '.safetensors' else load_file(path)
    state = {_strip(key): value for key, value in _find_tensors(content).items()}
    state |= _find_logit_scale(content) if state else {}
    if not state:
        raise ValueError(f'{path}: holds no named tensors, neither at the top level nor under one of {WRAPPERS}')
    return state


def read_classes(path: str | Path) -> list[str] | None:
    """Read the class names of the training data from a checkpoint of mmengine's Runner; None if it has none."""
    content = load_file(Path(path).expanduser())
    for key in ('meta', 'dataset_meta', 'classes'):
        content = content.get(key) if isinstance(content, Mapping) else None
    named = isinstance(content, (list, tuple)) and all(isinstance(name, str) for name in content)
    return list(content) if named and content else None


def _load_trusted(path: Path):
    """Return the whole content of a file, and execute the code it holds."""
    check_path(path)
    try:
        return torch.load(path, map_location='cpu', weights_only=False)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'{path}: needs code that is not installed ({error}); add the repository that wrote the file '
                         'to PYTHONPATH') from error
    # On a damaged file, the type of torch's error depends on the position of the damage.
    except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        if is_pickle(path):
            with path.open('rb') as file:
                return pickle.load(file)
        raise ValueError(f'{path}: {why_refused(path, str(error))}') from error


def _find_tensors(content: object, depth: int = MAX_DEPTH) -> dict[str, Tensor]:
    """Return the named tensors of the first wrapper that holds any, or those beside the wrappers."""
    if not isinstance(content, Mapping):
        return {}
    wrapped = (_find_tensors(content.get(key), depth - 1) for key in WRAPPERS if depth > 0)
    return next(filter(None, wrapped), None) or {key: value for key, value in content.items()
                                                 if isinstance(value, Tensor)}


def _find_logit_scale(content: Mapping) -> dict[str, Tensor]:
    """Return the temperature that OpenShape saves beside the weights, as a state dict of its own."""
    beside = content.get(LOGIT_SCALE)
    tensors = {_strip(key): value for key, value in beside.items()} if isinstance(beside, Mapping) else {}
    return {key: value for key, value in tensors.items() if key == LOGIT_SCALE and isinstance(value, Tensor)}


def _strip(key: str) -> str:
    while key.startswith('module.'):
        key = key.removeprefix('module.')
    return key


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata of a safetensors file. Other files have none."""
    from safetensors import safe_open

    if Path(path).suffix != '.safetensors':
        return {}
    with safe_open(path, 'pt') as file:
        return file.metadata() or {}
