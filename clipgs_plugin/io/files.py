"""Atomic file writing, and conversion between clouds and numpy arrays."""
from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from clipgs_plugin.structures import GaussianCloud


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file under a temporary name and rename it, so that no reader sees an incomplete file.

    Raises:
        FileNotFoundError: The folder of the file does not exist.
        OSError: The system cannot write the file, which the error names.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path}: its folder does not exist, create it first')
    temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
    try:
        with temporary.open('xb') as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # not the temporary name, and not None as for a full disk
        raise


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file's remaining bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` of numbers and strings, without adding a suffix to the name.

    Raises:
        FileNotFoundError: The folder of the file does not exist.
        ValueError: An array holds objects, which numpy would pickle.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f'{path}: {name!r} holds {array}, expected numbers or strings, which do not need '
                             'pickle; convert it')
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_whole(path, [buffer.getbuffer()])


def cloud_from_arrays(means, quats, log_scales, opacity_logits, sh) -> GaussianCloud:
    """Copy arrays (N, 3), (N, 4), (N, 3), (N,), (N, K, 3) into a contiguous float32 cloud."""
    tensor = lambda x: torch.from_numpy(np.array(x, np.float32, order='C'))  # noqa: E731
    return GaussianCloud(tensor(means), tensor(quats), tensor(log_scales), tensor(opacity_logits), tensor(sh))


def arrays_from_cloud(cloud: GaussianCloud) -> dict[str, np.ndarray]:
    """Return the raw fields by name, float32 on the CPU."""
    return {name: value.detach().to('cpu', torch.float32).numpy() for name, value in cloud.fields()}
