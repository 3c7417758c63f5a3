"""Runs that end with a sentence, and one run at a time in a work dir."""
from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from clipgs_plugin.io.lock import folder_lock

_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
TRACEBACK = 'traceback.txt'


@contextlib.contextmanager
def claimed(work_dir: str | Path) -> Iterator[None]:
    """Hold the lock of a run's work dir, which is made if it is missing.

    Of several processes of a launcher, the main one holds it.

    Raises:
        FolderInUse: Another run holds the folder.
        OSError: The folder cannot be made or written.
    """
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    is_main = all(os.environ.get(name, '0') == '0' for name in _RANKS)
    with folder_lock(work_dir) if is_main else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def in_a_sentence(work_dir: str | Path) -> Iterator[None]:
    """Turn any error of a run into one whose message is a sentence; the traceback goes into a file of the work dir.

    Errors of values, files and imports speak for themselves and pass. A log that cannot be written, for example on a
    full disk, prints nothing; the next checkpoint reports the disk.

    Raises:
        ValueError: Any other error, by its type and message.
    """
    raise_exceptions, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except (ValueError, OSError, ImportError):
        raise
    except Exception as error:
        path = Path(work_dir) / TRACEBACK
        with contextlib.suppress(OSError):
            path.write_text(''.join(traceback.format_exception(error)), encoding='utf-8')
        message = ' '.join(str(error).split())
        shown = message if len(message) < 400 else f'{message[:400]} ...'
        raise ValueError(f'{type(error).__name__}: {shown}'
                         + (f'; the traceback is in {path}' if path.is_file() else '')) from error
    finally:
        logging.raiseExceptions = raise_exceptions
