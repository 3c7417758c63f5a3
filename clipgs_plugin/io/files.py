"""Atomic file writing, errors that name the file, and conversion between clouds and numpy arrays."""
from __future__ import annotations

import hashlib
import io
import os
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from clipgs_plugin.structures import GaussianCloud

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MAX_RATIO, FREE_BYTES = 100, 2 ** 23  # of compressed positions
# What parsers of damaged bytes raise. Errors of the library's own code, such as AssertionError, are not among them.
PARSER_ERRORS = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError, RuntimeError,
                 SyntaxError, BufferError, OSError, struct.error, zlib.error, zipfile.BadZipFile)


@contextmanager
def refuse_damage(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises into a ValueError that names the file.

    Errors that name the file pass, and so do OSErrors of the file system, which do.

    Args:
        path: File that is parsed.
        kind: Name of its format.

    Raises:
        ValueError: The parser raised another error; the message quotes it.
    """
    try:
        yield
    except PARSER_ERRORS as error:
        if (isinstance(error, OSError) and error.filename is not None) or (
                type(error) is ValueError and str(path) in str(error)):
            raise
        reason = ascii(f'{type(error).__name__}: {error}')[1:-1]
        raise ValueError(f'{path}: damaged or not a {kind} ({reason[:200]}); download or export it again') from error


def check_ratio(path: Path, what: str, promised: int, held: int) -> None:
    """Refuse data that would grow more than any real object does, before it is decompressed.

    Real Gaussians compress to a twentieth at best, even if only their positions differ.

    Raises:
        ValueError: ``promised`` bytes are more than ``MAX_RATIO`` for each one that is held, and ``FREE_BYTES``.
    """
    if promised > FREE_BYTES + MAX_RATIO * held:
        raise ValueError(f'{path}: {what} {promised} bytes of {held} compressed ones, expected at most {MAX_RATIO} '
                         'times as many; it is damaged or made to fill the memory, download or export it again')


def read_text(path: Path) -> str:
    """Read a text in UTF-8.

    Raises:
        OSError: The file cannot be read.
        ValueError: The bytes are no text in UTF-8.
    """
    try:
        return path.read_text('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: not a text in UTF-8 ({error.reason} at byte {error.start}); it is damaged, download '
                         'it again') from None


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file under a temporary name and rename it, so that no reader sees an incomplete file.

    What a killed process leaves behind, ``.NAME.tmp``, is used by the next write of the same name.

    Raises:
        FileNotFoundError: The folder of the file does not exist.
        OSError: The name is too long for the file system, or the system cannot write the file; the error names it.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path}: its folder does not exist, create it first')
    size, longest = len(os.fsencode(path.name)), _longest_name(path.parent)
    if size > longest:
        raise OSError(f'{path}: a name of {size} bytes, the file system allows at most {longest}; shorten it')
    # The temporary name may be longer than the file system allows although the name is not.
    name = path.name if size + 40 <= longest else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    try:
        file, temporary = _open_temporary(path.with_name(f'.{name}.tmp'))
    except OSError as error:
        error.filename = str(path)
        raise

    def release() -> None:
        if fcntl is None:  # Windows renames and removes closed files only; elsewhere the lock holds until the end
            file.close()

    try:
        for part in parts:
            file.write(part)
        file.flush()
        release()
        os.replace(temporary, path)
    except BaseException as error:
        release()
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # not the temporary name, and not None as for a full disk
        raise
    finally:
        file.close()


def _longest_name(folder: Path) -> int:
    """Return the longest name in bytes that a folder's file system allows."""
    return os.pathconf(folder, 'PC_NAME_MAX') if hasattr(os, 'pathconf') else 255


def _open_temporary(path: Path) -> tuple[BinaryIO, Path]:
    """Open a temporary file, empty: the one of this name unless another process writes it, else one of a new name."""
    if fcntl:
        try:
            file = path.open('ab')
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), path.lstat()):  # else another process has just renamed it
                    file.truncate(0)
                    return file, path
            except OSError:  # another writer holds the lock, or the file system does not have locks
                pass
            file.close()
        except PermissionError:  # of another user
            pass
    path = path.with_name(f'{path.stem}.{uuid.uuid4().hex}')
    return path.open('xb'), path


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
