"""Lock of a folder that one process at a time may write."""
from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = '.lock'
_HELD: set[Path] = set()  # by this process; the locks of the system do not exclude their own process
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_BYTE = 1 << 30           # locked; Windows keeps others from reading what is locked, and the owner is at the start


class FolderInUse(OSError):
    """Folder that another run writes."""


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a folder; no other process, nor this one, can take it meanwhile.

    The system frees the lock when the process ends, however it ends, and child processes do not inherit it. The lock
    is a file ``.lock`` in the folder, which is removed at the end; one that a killed process left is taken over. On a
    file system without locks, a warning says so and nothing is locked.

    Args:
        folder: Existing folder.

    Raises:
        FolderInUse: The lock is held.
        OSError: The folder does not exist or cannot be written.
    """
    folder = Path(folder).resolve()
    path = folder / LOCK
    if folder in _HELD:
        raise FolderInUse(f'{folder} is in use by this process; end its other run first')
    file = _acquire(path)
    _HELD.add(folder)
    try:
        yield
    finally:
        _HELD.discard(folder)
        if os.name == 'nt':  # where an open file cannot be removed
            file.close()
        with suppress(OSError):
            path.unlink()
        file.close()


def _acquire(path: Path) -> BinaryIO:
    """Open and lock a file, and write the owner into it."""
    while True:
        try:
            file = path.open('a+b')
        except OSError as error:
            if not path.exists():  # the folder cannot be written, of which the user knows the name
                error.filename = str(path.parent)
            raise
        try:
            _lock(file)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(f'process {os.getpid()} on {socket.gethostname()}'.encode())
                file.flush()
                return file
        except OSError as error:
            owner = path.read_bytes()[:200].decode('utf-8', 'replace') if path.exists() else ''
            file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise FolderInUse(f'{path.parent} is in use by {owner or "another process"}; wait until it ends, stop it, '
                              'or use another folder') from None
        except BaseException:
            file.close()
            raise
        file.close()  # the process that held it has removed it since it was opened


def _lock(file: BinaryIO) -> None:
    """Lock a byte of a file without waiting."""
    try:
        if os.name == 'nt':
            import msvcrt
            file.seek(_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _BYTE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(f'{file.name}: this file system has no locks ({error}); take care that one run at a time writes '
                      'the folder', stacklevel=5)
