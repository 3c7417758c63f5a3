"""The tensors of a foreign checkpoint, by the names its model gave them."""
from __future__ import annotations

import argparse
import pickle
import pickletools
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor

# How torch names what it refuses to unpickle.
_CODE = re.compile(r'(?:GLOBAL|[Uu]nsupported class|but got <class) \'?([\w.]+)')
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
        IsADirectoryError: It is a folder.
        ValueError: The file holds no tensors or something that is not data, or it is damaged.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; name the file in it')
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint; download it and give its path')
    content = _load(path, trust_pickle)
    while isinstance(content, Mapping) and (inner := next((content[key] for key in WRAPPERS
                                                           if isinstance(content.get(key), Mapping)), None)):
        content = inner
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
    except (ImportError, AttributeError) as error:  # of code that a trusted file names
        raise ValueError(f'{path}: needs code that is not here ({error}); put the repository that wrote it on '
                         'PYTHONPATH') from error
    # What torch raises on a damaged file, beside its refusal of code, depends on where the damage lies.
    except (UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        if trust_pickle and _is_pickle(path):
            with path.open('rb') as file:
                return pickle.load(file)
        raise ValueError(f'{path}: {_what_is_wrong(path, str(error))}') from error


def _what_is_wrong(path: Path, message: str) -> str:
    """Why a file was not loaded and what to do, from its first bytes and from what torch says of it."""
    with path.open('rb') as file:
        first = file.read(64)
    if first.startswith(b'version https://git-lfs'):
        return 'is a pointer of git-LFS and not the file itself; fetch it with git lfs pull'
    if first.lstrip()[:1] == b'<':
        return 'is a web page and not the file; download the file itself'
    if path.suffix != '.safetensors' and first[8:9] == b'{':
        return f'is a file of safetensors by another name; call it {path.stem}.safetensors'
    code = _CODE.search(message)
    if code or _is_pickle(path):
        held = code[1] if code else 'a pickle of something else than tensors and plain data'
        return (f'holds {held}, which could run code, so it was not loaded; if you trust where it comes from, convert '
                f'it once: python tools/convert_checkpoint.py {path} {path.stem}.safetensors --trust-pickle')
    return 'is not a checkpoint of tensors and plain data, or truncated, so it was not loaded; download it again'


def _is_pickle(path: Path) -> bool:
    """Whether a file begins with a whole pickle of a protocol since 2."""
    with path.open('rb') as file:
        if file.read(1) != b'\x80':
            return False
        file.seek(0)
        try:
            return any(operation.name == 'STOP' for operation, _, _ in pickletools.genops(file))
        except (ValueError, EOFError, UnicodeDecodeError):  # it breaks off
            return False


def _plain_data() -> list:
    """Types that checkpoints hold beside tensors and that cannot execute anything."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in '?bhilqBHILQefdFD']
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
