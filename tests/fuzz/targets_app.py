"""Readers of what a page stores."""
import json
from pathlib import Path

from harness import Target
from mutations import damage_json

from clipgs_plugin.app.tags import TagFile


def tags(folder: Path) -> Path:
    """Write tags of three objects."""
    (folder / 'tags.json').write_text(json.dumps(dict(format=1, tags=dict(fine=['/a.ply', '/b.ply'], odd=['/c.spz']))))
    return folder / 'tags.json'


def unsound_tags(found: dict) -> str | None:
    sound = all(isinstance(path, str) for paths in found.values() for path in paths)
    return None if sound else f'tags {found!r:.200}'


TARGETS = [Target('page-tags', tags, lambda path: TagFile(path).read(), unsound_tags, damage=(damage_json,))]
