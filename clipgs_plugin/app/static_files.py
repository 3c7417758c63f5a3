"""Files that pages are made of, in the folder ``static`` of this package."""
from importlib.resources import files

SHARED = ('page.css', 'parts.js', 'grid.js', 'panel.js', 'map.js')  # of both pages
# Of a page on disk, which does not have the headers of a server.
DISK_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; frame-src 'self'; "
               "base-uri 'none'; form-action 'none'")


def static_text(name: str) -> str:
    """Return a file of the pages."""
    return files('clipgs_plugin.app').joinpath('static', name).read_text(encoding='utf-8')


def page_text(body: str, scripts: tuple[str, ...], root: str = '', policy: str = '') -> str:
    """Return the HTML of a page.

    Args:
        body: Name of the file of its body.
        scripts: Names of its own scripts, in order; the shared ones precede the last.
        root: Folder of style and scripts, as the page names it.
        policy: Content security policy, for pages without headers.
    """
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n' if policy else ''
    shared = tuple(name for name in SHARED if name.endswith('.js'))
    tags = ''.join(f'<script src="{root}{name}"></script>\n' for name in (*scripts[:-1], *shared, scripts[-1]))
    return (static_text('head.html').format(policy=meta, root=root) + static_text(body).rstrip() + '\n' + tags
            + '</body>\n</html>\n')
