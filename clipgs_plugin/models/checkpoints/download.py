"""Download of published checkpoints through ``huggingface_hub``, held to one commit and one SHA-256."""
from __future__ import annotations

import difflib
import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

from clipgs_plugin.io.files import sha256_of
from clipgs_plugin.models.checkpoints.hub import HubFile, Record, cached_file, hub_file, read_record, write_record
from clipgs_plugin.registry.catalogue import load_catalogue

# First bytes of what torch.save writes: an archive, or before torch 1.6 a pickle.
MAGICS = (b'PK\x03\x04', b'\x80')
# Errors of the file system, which concern the cache and not the network.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class Download(NamedTuple):
    """Downloaded file of a catalogue entry.

    Attributes:
        path: Path of the file in the cache of the hub.
        sha256: SHA-256 of the file.
        recorded: True if the SHA-256 was unknown before, and was recorded now.
    """

    path: Path
    sha256: str
    recorded: bool


class Offer(NamedTuple):
    """State of a catalogue entry on the hub: commit, ETag, and size in bytes or None."""

    revision: str
    etag: str
    size: int | None


def download(name: str) -> Download:
    """Download the file of a catalogue entry into the cache of the Hugging Face Hub, unless it is there.

    Its SHA-256 is compared with the catalogue, else with the record of an earlier download, else with the one that the
    hub states. Without a catalogue value, commit and SHA-256 of the first download are recorded in the folder of the
    repository, and later downloads are held to them. A file of another content is removed.

    Raises:
        FileNotFoundError: The name is unknown, or its file does not lie on the hub.
        ConnectionError: The hub cannot be reached, or refuses the file.
        OSError: The cache cannot be written.
        ValueError: The downloaded file has another SHA-256, or is no checkpoint.
    """
    file = require_hub_file(name)
    record, path = read_record(file), cached_file(file)
    if path is None:
        etag = ask_hub(file).etag
        path = _fetch(file)
    else:
        etag = path.resolve().name  # the cache names contents by their ETag
    with path.open('rb') as opened:
        found = sha256_of(opened)
    expected = file.sha256 or (record.sha256 if record else None)
    stated = etag if re.fullmatch('[0-9a-f]{64}', etag) else None  # of large files the hub's ETag is the SHA-256
    if found != (expected or stated or found):
        source = 'the catalogue' if file.sha256 else f'the record {file.record_path}' if record else 'the hub'
        _refuse(file, path, f'has SHA-256 {found}, but {source} has {expected or stated}')
    if expected is None and stated is None and not _is_checkpoint(path):
        _refuse(file, path, 'is no checkpoint, perhaps a web page of a proxy')
    if expected is None:
        write_record(file, Record(path.relative_to(file.repo_folder / 'snapshots').parts[0], found))
    return Download(path, found, expected is None)


def require_hub_file(name: str) -> HubFile:
    """Return the file of a catalogue entry on the hub.

    Raises:
        FileNotFoundError: The name is unknown, or its file does not lie on the hub; the message names its page.
    """
    catalogue = load_catalogue('checkpoints')
    if name not in catalogue:
        close = difflib.get_close_matches(name.lower(), catalogue, n=3)
        raise FileNotFoundError(f'{name}: not a published checkpoint; '
                                + (f'close names are {", ".join(close)}; ' if close else '')
                                + 'tools/list_backbones.py lists all')
    entry, file = catalogue[name], hub_file(name)
    if entry['file'] is None:
        raise FileNotFoundError(f'{name}: its weights have not been published; see {entry["page"]}')
    if file is None:
        raise FileNotFoundError(f'{name}: its file does not lie on the Hugging Face Hub; download it from '
                                f'{entry["page"]} and save it as checkpoints/{name}.pt')
    return file


def ask_hub(file: HubFile) -> Offer:
    """Ask the hub for commit, ETag and size of a file.

    Raises:
        ConnectionError: The hub cannot be reached, does not have the file, or refuses it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    try:
        found = get_hf_file_metadata(hf_hub_url(file.repo, file.file, repo_type=file.kind, revision=_revision(file)))
    except Exception as error:  # of the hub's HTTP library, which differs between its versions
        raise _explain(file, error) from error
    if found.commit_hash is None or found.etag is None:
        raise ConnectionError(f'{file.name}: {_endpoint()} does not answer as a hub, perhaps a proxy does; '
                              f'check HF_ENDPOINT and the proxy, or {_by_hand(file)}')
    return Offer(found.commit_hash, found.etag, found.size)


def _fetch(file: HubFile) -> Path:
    """Download a file into the cache; a connection that is cut is resumed."""
    from huggingface_hub import hf_hub_download
    try:
        return Path(hf_hub_download(file.repo, file.file, repo_type=file.kind, revision=_revision(file)))
    except Exception as error:  # as above
        raise _explain(file, error) from error


def _revision(file: HubFile) -> str:
    record = read_record(file)
    return file.revision or (record.revision if record else 'main')


def _is_checkpoint(path: Path) -> bool:
    with path.open('rb') as opened:
        return opened.read(4).startswith(MAGICS)


def _refuse(file: HubFile, path: Path, reason: str) -> None:
    """Remove a downloaded file and raise a ValueError."""
    for each in (path.resolve(), path):
        each.unlink(missing_ok=True)
    raise ValueError(f'{file.name}: the file that was downloaded from {_endpoint()}/{file.repo} {reason}, so it was '
                     f'removed; download it again, or {_by_hand(file)}')


def _explain(file: HubFile, error: Exception) -> OSError:
    """Return an error that says in one sentence why a file was not downloaded, and what to do."""
    from huggingface_hub import constants, errors
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    for each in chain:
        if isinstance(each, OSError) and each.errno in DISK_ERRORS:
            return OSError(each.errno, os.strerror(each.errno), constants.HF_HUB_CACHE)
    if any(isinstance(each, errors.OfflineModeIsEnabled) for each in chain):
        reason = 'HF_HUB_OFFLINE is set and the file is not in the cache; unset it'
    elif '/xet-' in str(getattr(getattr(error, 'response', None), 'url', '')):  # the route of its tokens
        reason = f'{_endpoint()} keeps {file.repo} in Xet storage and gives no access to it; set HF_HUB_DISABLE_XET=1'
    elif isinstance(error, errors.RevisionNotFoundError | errors.RemoteEntryNotFoundError):
        reason = f'{_endpoint()}/{file.repo} does not have {file.file} at {_revision(file)}; see its page'
    elif isinstance(error, errors.RepositoryNotFoundError):  # and gated ones
        reason = f'{_endpoint()} refuses {file.repo}; log in with `hf auth login` if it is gated'
    else:
        first = next(iter(str(error).strip().splitlines()), '') or type(error).__name__
        reason = (f'the download from {_endpoint()} failed ({first.rstrip(".")}); check the network and the proxy, '
                  'set HF_HUB_DISABLE_XET=1 for plain HTTP or HF_ENDPOINT to a mirror')
    return ConnectionError(f'{file.name}: {reason}, or {_by_hand(file)}')


def _by_hand(file: HubFile) -> str:
    page = load_catalogue('checkpoints')[file.name]['page']
    return f'download {file.file} from {page} elsewhere and save it as checkpoints/{file.name}.pt'


def _endpoint() -> str:
    from huggingface_hub import constants
    return constants.ENDPOINT
