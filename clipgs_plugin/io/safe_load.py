"""Loading of checkpoint files from anywhere without running code from them.

``torch.load(weights_only=True)`` refuses every global but those of tensors. Checkpoints of mmengine and of published
point-cloud models also hold a log history, numpy scalars and parsed arguments. Their few globals map to inert stand-ins
here: none of the named functions or classes is ever called.
"""
from __future__ import annotations

import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# How torch names a global that it refuses.
_REFUSED = re.compile(r'(?:GLOBAL|[Uu]nsupported class|but got <class) \'?([\w.]+)')
_NUMBER = re.compile(r'[?bhilqBHILQefd]|[biuf][1248]')


class Inert:
    """Stand-in for an object of a checkpoint that is no tensor and no plain data; takes any arguments, does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        pass


class _Dtype(Inert):
    """Stand-in for ``numpy.dtype`` that keeps the code of a plain number."""

    def __init__(self, code=None, *args) -> None:
        self.code = code if isinstance(code, str) and _NUMBER.fullmatch(code) else None


def _scalar(dtype=None, data=None, *args) -> int | float | bool | Inert:
    """Return the Python number of a pickled numpy scalar, or a stand-in for anything else."""
    code = getattr(dtype, 'code', None)
    if code is None or not isinstance(data, bytes) or len(data) != np.dtype(code).itemsize:
        return Inert()
    return np.frombuffer(data, code)[0].item()


# The globals beyond tensors that checkpoints of mmengine, Point-BERT and ULIP name.
STAND_INS: dict[str, Callable] = {
    'mmengine.logging.history_buffer.HistoryBuffer': Inert,
    'builtins.getattr': Inert,  # of the bound methods in a HistoryBuffer
    'argparse.Namespace': Inert,
    'numpy.ndarray': Inert,
    'numpy.dtype': _Dtype,
    **{f'numpy.{core}.multiarray.{name}': value for core in ('core', '_core')
       for name, value in dict(scalar=_scalar, _reconstruct=Inert).items()},
    **{f'numpy.dtypes.{name}': Inert for name in (
        'BoolDType', 'Float16DType', 'Float32DType', 'Float64DType', 'Int32DType', 'Int64DType', 'UInt8DType')},
}


def load_file(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Load a file of ``torch.save`` or safetensors; no code in it runs, whatever its origin.

    Args:
        path: Path of the file.
        map_location: Device of the tensors, as ``torch.load`` takes it.

    Returns:
        Content of the file. Objects that are neither tensors nor plain data are :class:`Inert`.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: The path is a folder.
        ValueError: The file is damaged or holds something that could run code.
    """
    path = Path(path).expanduser()
    check_path(path)
    if path.suffix == '.safetensors':
        return _load_safetensors(path, map_location)
    check_archive(path)
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()]):
            return torch.load(path, map_location=map_location, weights_only=True)
    # torch's unpickler raises almost anything on damaged bytes; the file and the remedy matter to a user.
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(f'{path}: {why_refused(path, str(error))}') from error


def check_path(path: Path) -> None:
    """Check that a path is that of a file."""
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; give the path of the file in it')
    if not path.is_file():
        raise FileNotFoundError(f'{path}: file not found; download the checkpoint and give its path')


def _load_safetensors(path: Path, map_location: Any) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors
    try:
        device = str(map_location) if isinstance(map_location, str | torch.device) else 'cpu'
        return load_safetensors(path, device=device)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f'{path}: {why_refused(path, str(error))}') from error


def check_archive(path: Path) -> None:
    """Check the archive of a ``torch.save`` file: stored members that fill no more than the file, with right CRCs.

    torch itself does not compare the CRCs, so damage within a tensor would go unnoticed. Files of torch before 1.6 are
    no archives and pass.

    Raises:
        ValueError: A member is compressed, or its bytes do not match their CRC.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = path.stat().st_size
            if any(x.compress_type != zipfile.ZIP_STORED for x in members) or sum(x.file_size for x in members) > size:
                raise ValueError(f'{path}: its archive is compressed, which torch.save never does, so it was not '
                                 'loaded; save it again with torch.save')
            damaged = archive.testzip()
    # Besides BadZipFile, damaged directories raise errors of names, sizes and versions.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f'{path}: {why_refused(path, str(error))}') from error
    if damaged is not None:
        raise ValueError(f'{path}: {damaged} in it does not match its checksum, so the file is damaged; download it '
                         'again, or take an earlier checkpoint')


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that hold NaN or infinite values.

    Args:
        tensors: Tensors by name; those without floating point values pass.
        path: Path of their file, for the error.

    Raises:
        ValueError: A tensor holds NaN or infinite values, or claims more values than its storage holds.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_sparse or not tensor.is_floating_point():
            continue
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f'{path}: tensor {name} of shape {tuple(tensor.shape)} has more values than the file '
                             'stores; the file is damaged, download it again')
        if not tensor.isfinite().all():
            raise ValueError(f'{path}: tensor {name} holds NaN or infinite values; take an earlier checkpoint, or '
                             'download the file again')


def training_state(content: Any, path: str | Path) -> Any:
    """Return the content of a training checkpoint, ready for ``Runner.resume`` of mmengine.

    The log history only smooths what is logged, and is dropped. So is ``meta['config']``: mmengine would execute that
    text as a config file to compare numbers of GPUs.

    Args:
        content: Content of the file, from :func:`load_file`.
        path: Path of the file, for the error.

    Raises:
        ValueError: The weights are not finite, or the metadata is nested too deeply.
    """
    if not isinstance(content, dict):
        return content
    state = content.get('state_dict', content)
    check_finite(state if isinstance(state, Mapping) else {}, path)
    try:
        ours = {key: _without_stand_ins(content[key], {}) for key in ('meta', 'message_hub') if key in content}
    except RecursionError:
        raise ValueError(f'{path}: its metadata is nested too deeply to be that of a training run') from None
    if isinstance(ours.get('meta'), dict):
        ours['meta'].pop('config', None)
    hub = ours.get('message_hub')
    if isinstance(hub, dict):
        info, resumed = (hub.get(name) or {} for name in ('runtime_info', 'resumed_keys'))
        ours['message_hub'] = dict(log_scalars=OrderedDict(), runtime_info=info, resumed_keys=OrderedDict(
            (key, value) for key, value in resumed.items() if key in info))
    return {**content, **ours}


def _without_stand_ins(value: Any, done: dict[int, Any]) -> Any:
    """Copy nested dicts, lists and tuples without their :class:`Inert` values; ``done`` holds the copies by id."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        copy = done[id(value)] = type(value)()
        copy.update((key, _without_stand_ins(item, done)) for key, item in value.items()
                    if not isinstance(item, Inert))
    elif isinstance(value, list | tuple):
        copy = done[id(value)] = []
        copy.extend(_without_stand_ins(item, done) for item in value if not isinstance(item, Inert))
        if isinstance(value, tuple):
            copy = done[id(value)] = tuple(copy)
    else:
        return value
    return copy


def why_refused(path: Path, message: str) -> str:
    """Explain why a file was not loaded, from its first bytes and torch's error message."""
    with path.open('rb') as file:
        first = file.read(64)
    if first.startswith(b'version https://git-lfs'):
        return 'is a git-LFS pointer, not the checkpoint itself; fetch the file with git lfs pull'
    if first.lstrip()[:1] == b'<':
        return 'is a web page, not a checkpoint; download the file itself'
    if path.suffix != '.safetensors' and first[8:9] == b'{':
        return f'is a safetensors file with another extension; rename it to {path.stem}.safetensors'
    code = _REFUSED.search(message)
    if code or is_pickle(path):
        held = code[1][:100] if code else 'pickled objects other than tensors and plain data'
        return (f'holds {held}, which could run code, so it was not loaded; if you trust its origin, convert it once: '
                f'python tools/convert_checkpoint.py {path} {path.stem}.safetensors --trust-pickle')
    return 'is truncated or not a checkpoint of tensors and plain data, so it was not loaded; download it again'


def is_pickle(path: Path) -> bool:
    """Check whether a file begins with a complete pickle of protocol 2 or later."""
    with path.open('rb') as file:
        if file.read(1) != b'\x80':
            return False
        file.seek(0)
        try:
            return any(operation.name == 'STOP' for operation, _, _ in pickletools.genops(file))
        except (ValueError, EOFError, MemoryError, OverflowError):  # truncated, or lengths beyond the file
            return False
