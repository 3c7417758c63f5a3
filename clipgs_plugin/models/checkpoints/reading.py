"""Safe reading of checkpoint files: tensors and metadata."""
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

# The wording of torch when it refuses to unpickle a type.
_CODE = re.compile(r'(?:GLOBAL|[Uu]nsupported class|but got <class) \'?([\w.]+)')
# Keys under which training code stores the weights: DeepSpeed, most, Point-BERT and Point-MAE, their older files.
WRAPPERS = ('module', 'state_dict', 'base_model', 'model')


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
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; give the path of the file in it')
    if not path.is_file():
        raise FileNotFoundError(f'{path}: file not found; download the checkpoint and give its path')
    content = _load(path, trust_pickle)
    while isinstance(content, Mapping) and (inner := next((content[key] for key in WRAPPERS
                                                           if isinstance(content.get(key), Mapping)), None)):
        content = inner
    state = {_strip(key): value for key, value in content.items() if isinstance(value, Tensor)} \
        if isinstance(content, Mapping) else {}
    if not state:
        raise ValueError(f'{path}: holds no named tensors, neither at the top level nor under one of {WRAPPERS}')
    return state


def _load(path: Path, trust_pickle: bool):
    """Return the whole content of a file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        with torch.serialization.safe_globals(_plain_data()):
            return torch.load(path, map_location='cpu', weights_only=not trust_pickle)
    except (ImportError, AttributeError) as error:  # a trusted file names a missing module
        raise ValueError(f'{path}: needs code that is not installed ({error}); add the repository that wrote the file '
                         'to PYTHONPATH') from error
    # On a damaged file, the type of torch's error depends on the position of the damage.
    except (UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        if trust_pickle and _is_pickle(path):
            with path.open('rb') as file:
                return pickle.load(file)
        raise ValueError(f'{path}: {_explain(path, str(error))}') from error


def _explain(path: Path, message: str) -> str:
    """Explain why a file was not loaded, from its first bytes and torch's error message."""
    with path.open('rb') as file:
        first = file.read(64)
    if first.startswith(b'version https://git-lfs'):
        return 'is a git-LFS pointer, not the checkpoint itself; fetch the file with git lfs pull'
    if first.lstrip()[:1] == b'<':
        return 'is a web page, not a checkpoint; download the file itself'
    if path.suffix != '.safetensors' and first[8:9] == b'{':
        return f'is a safetensors file with another extension; rename it to {path.stem}.safetensors'
    code = _CODE.search(message)
    if code or _is_pickle(path):
        held = code[1] if code else 'pickled objects other than tensors and plain data'
        return (f'holds {held}, which could run code, so it was not loaded; if you trust its origin, convert it once: '
                f'python tools/convert_checkpoint.py {path} {path.stem}.safetensors --trust-pickle')
    return 'is truncated or not a checkpoint of tensors and plain data, so it was not loaded; download it again'


def _is_pickle(path: Path) -> bool:
    """Check whether a file begins with a complete pickle of protocol 2 or later."""
    with path.open('rb') as file:
        if file.read(1) != b'\x80':
            return False
        file.seek(0)
        try:
            return any(operation.name == 'STOP' for operation, _, _ in pickletools.genops(file))
        except (ValueError, EOFError, UnicodeDecodeError):  # truncated
            return False


def _plain_data() -> list:
    """Return harmless types that checkpoints hold besides tensors."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in '?bhilqBHILQefdFD']
    names = ('numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar')  # numpy 1 and numpy 2
    return [argparse.Namespace, np.dtype, *dtypes, *[(scalar, name) for name in names]]


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
