"""The tensors of a foreign checkpoint, by the names its model gave them."""
from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor

# How torch names what it refuses to unpickle.
_CODE = re.compile(r'(?:GLOBAL|unsupported class|Unsupported class) (\S+)')
# Where training codes put the weights: DeepSpeed, most, Point-BERT and Point-MAE, older files of theirs.
WRAPPERS = ('module', 'state_dict', 'base_model', 'model')


def read_checkpoint(path: str | Path, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Tensors of a checkpoint on the CPU, unwrapped and without a leading ``module.``.

    Nothing in the file is executed: beside tensors only plain containers, ``argparse.Namespace`` and numpy numbers
    are read, which the files of Point-BERT and ULIP hold.

    Args:
        path: A file of torch.save or of safetensors.
        trust_pickle: Run whatever code the file holds. Only for files whose origin you trust.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no tensors or something that is not data, or it is damaged.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint; download it and give its path')
    content = _load(path, trust_pickle)
    if isinstance(content, Mapping):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    state = {_strip(key): value for key, value in content.items() if isinstance(value, Tensor)} \
        if isinstance(content, Mapping) else {}
    if not state:
        raise ValueError(f'{path}: holds no tensors by name, neither bare nor under one of {WRAPPERS}')
    return state


def _load(path: Path, trust_pickle: bool):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        with torch.serialization.safe_globals(_plain_data()):
            return torch.load(path, map_location='cpu', weights_only=not trust_pickle)
    # What torch raises on a damaged file, beside its refusal of code, depends on where the damage lies.
    except (UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        if (code := _CODE.search(str(error))) and not trust_pickle:
            raise ValueError(f'{path}: holds {code[1]}, which is not plain data and could run code, so it was not '
                             'loaded; if you trust where it comes from, convert it once: python '
                             f'tools/convert_checkpoint.py {path} {path.stem}.safetensors --trust-pickle') from error
        raise ValueError(f'{path}: is not a checkpoint of tensors and plain data, or truncated, so it was not loaded '
                         f'({type(error).__name__}: {error}); download it again') from error


def _plain_data() -> list:
    """Types that checkpoints hold beside tensors and that cannot execute anything."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in ('f8', 'f4', 'i8', 'i4', '?')]
    names = ('numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar')  # of numpy 1 and of numpy 2
    return [argparse.Namespace, np.dtype, *dtypes, *[(scalar, name) for name in names]]


def _strip(key: str) -> str:
    while key.startswith('module.'):
        key = key.removeprefix('module.')
    return key


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says about itself; empty for other files."""
    from safetensors import safe_open

    if Path(path).suffix != '.safetensors':
        return {}
    with safe_open(path, 'pt') as file:
        return file.metadata() or {}
