"""Downloads by the programs: on request, or after a question on a terminal."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_download(args: argparse.ArgumentParser) -> None:
    """Add the option ``--download``."""
    args.add_argument('--download', action='store_true',
                      help='download the weights of a published model that are not found, without a question')


def provide_weights(model: str, download: bool) -> None:
    """Download the file of a published model that is not found, if it is requested or the user agrees.

    Other models and models whose file is found need nothing. Without a request and without a terminal, the error of
    the missing file says how to get it.

    Raises:
        FileNotFoundError: The file is not found, and was not downloaded.
        OSError: The download failed.
        ValueError: The downloaded file has another SHA-256 than is known.
    """
    from clipgs_plugin.models.checkpoints.catalogue import find_file
    from clipgs_plugin.models.checkpoints.hub import hub_file
    from clipgs_plugin.registry.catalogue import load_catalogue
    if model not in load_catalogue('checkpoints'):
        return
    try:
        find_file(model)
    except FileNotFoundError:
        if hub_file(model) is None or not (download or _agreed(model)):
            raise
        fetch(model)


def fetch(name: str) -> Path:
    """Download the file of a published model; print what is done to standard error.

    Returns:
        Path of the file.
    """
    from clipgs_plugin.models.checkpoints.download import download, require_hub_file
    from clipgs_plugin.models.checkpoints.hub import cached_file
    from clipgs_plugin.registry.catalogue import load_catalogue
    file = require_hub_file(name)
    verb = 'Downloading' if cached_file(file) is None else 'Checking'
    print(f'{verb} {name} ({file.file} of {file.repo}, licence {load_catalogue("checkpoints")[name]["licence"]})',
          file=sys.stderr)
    found = download(name)
    if found.recorded:
        print(f'note: the catalogue does not have the SHA-256 of {name}; {found.sha256} is recorded in '
              f'{file.record_path}, and later downloads are held to it', file=sys.stderr)
    return found.path


def _agreed(name: str) -> bool:
    """Ask on a terminal if a file may be downloaded, with its size and licence; False without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    from clipgs_plugin.models.checkpoints.download import ask_hub, require_hub_file
    from clipgs_plugin.registry.catalogue import load_catalogue
    entry, file = load_catalogue('checkpoints')[name], require_hub_file(name)
    size = ask_hub(file).size or entry.get('bytes')
    about = f'{readable(size)}, ' if size else ''
    print(f'{name} is not on this machine. Download {file.file} of {file.repo} ({about}licence {entry["licence"]})? '
          '[y/N] ', end='', file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ('y', 'yes')


def readable(size: int) -> str:
    """Return a number of bytes in MB or GB."""
    return f'{size / 1e9:.2f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'
