"""Readers of what tools/embed.py keeps beside an index."""
from pathlib import Path

from harness import Target

from clipgs_plugin.io.json_lines import JsonLines

ENTRY = dict(path=str, size=int, mtime_ns=int, error=str, message=str)


def failures(folder: Path) -> Path:
    """Write a list of two files that failed."""
    line = b'{"error": "ValueError", "message": "a.ply: no splat", "mtime_ns": 1, "path": "a.ply", "size": 8}\n'
    (folder / 'failed.jsonl').write_bytes(2 * line)
    return folder / 'failed.jsonl'


def read(path: Path) -> list[dict]:
    """Read the list as a run that continues does."""
    with JsonLines(path) as log:
        return list(log.entries(ENTRY))


def unsound(entries: list[dict]) -> str | None:
    sound = all(type(entry[name]) is kind for entry in entries for name, kind in ENTRY.items())
    return None if sound else f'entries {entries!r:.200}'


TARGETS = [Target('failed-files', failures, read, unsound)]
