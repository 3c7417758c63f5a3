"""Files that pages are made of, in the folder ``static`` of this package."""
from importlib.resources import files

SHARED = ('page.css', 'parts.js', 'grid.js', 'panel.js', 'map.js')  # of both pages


def static_text(name: str) -> str:
    """Return a file of the pages."""
    return files('clipgs_plugin.app').joinpath('static', name).read_text(encoding='utf-8')
