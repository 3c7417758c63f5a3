"""Files of the catalogue on the Hugging Face Hub: their place in its cache, and the record of what was downloaded."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.registry.catalogue import load_catalogue


@dataclass(frozen=True)
class HubFile:
    """File of a catalogue entry on the Hugging Face Hub.

    Attributes:
        name: Name of the entry.
        repo: Repository, ``OWNER/NAME``.
        kind: Kind of the repository, ``'model'`` or ``'dataset'``.
        file: Path of the file in the repository.
        revision: Commit to take; None for the newest.
        sha256: SHA-256 of the file, or None if unknown.
    """

    name: str
    repo: str
    kind: str
    file: str
    revision: str | None = None
    sha256: str | None = None

    @property
    def repo_folder(self) -> Path:
        """Folder of the repository in the cache."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repo, repo_type=self.kind)

    @property
    def record_path(self) -> Path:
        """Path of the record, beside the blobs and snapshots of the repository."""
        return self.repo_folder / 'clipgs' / f'{self.file}.json'


@dataclass(frozen=True)
class Record:
    """Commit and content of a downloaded file, to which later downloads are held."""

    revision: str
    sha256: str


def hub_file(name: str) -> HubFile | None:
    """Return the file of a catalogue entry on the hub, or None if it lies elsewhere."""
    entry = load_catalogue('checkpoints')[name]
    if 'hub' not in entry:
        return None
    kind = 'dataset' if entry['hub'].startswith('datasets/') else 'model'
    return HubFile(name, entry['hub'].removeprefix('datasets/'), kind, entry['file'], entry.get('revision'),
                   entry.get('sha256'))


def cached_file(file: HubFile) -> Path | None:
    """Find a file in the cache of the hub, without network: at its known commit, else at the branch ``main``."""
    from huggingface_hub import try_to_load_from_cache
    record = read_record(file)
    revision = file.revision or (record.revision if record else 'main')
    path = try_to_load_from_cache(file.repo, file.file, revision=revision, repo_type=file.kind)
    return Path(path) if isinstance(path, str) else None


def read_record(file: HubFile) -> Record | None:
    """Read the record of an earlier download, or None if there is none.

    Raises:
        ValueError: The record is damaged.
    """
    path = file.record_path
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
        return Record(str(values['revision']), str(values['sha256']))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: not a record of revision and sha256 ({error}); remove it and download {file.name} '
                         'again') from error


def write_record(file: HubFile, record: Record) -> None:
    """Write the record of a download."""
    file.record_path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file.record_path, [json.dumps(vars(record), indent=1).encode()])
