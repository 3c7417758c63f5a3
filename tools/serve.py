"""Serve a page that searches an index, on this machine only."""
from __future__ import annotations

import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipgs_plugin.tools._downloads import add_download
from clipgs_plugin.tools._page import page_folders, processors, read_catalog, require, tag_file, thumbnails_of
from clipgs_plugin.tools._program import (
    FILES,
    check_up_cue,
    load_inferencer,
    parser,
    prepared,
    repeated_preparation,
    run,
    teacher_for,
)

if TYPE_CHECKING:
    from torch import Tensor

    from clipgs_plugin.app.thumbnails import Thumbnails
    from clipgs_plugin.search import IndexCard


class IndexEmbedder:
    """Queries embedded by the model of an index, which is loaded at the first one.

    Args:
        card: Origin of the index, with the options that prepared its objects.
        device: Device to compute on.
        download: Download the weights of a published model if they are not found.
    """

    def __init__(self, card: IndexCard, device: str, download: bool) -> None:
        self.card, self.device, self.download, self._clipgs = card, device, download, None
        self.options = repeated_preparation(card.options)

    @property
    def clipgs(self):
        """Model with its teacher.

        Raises:
            ValueError: Its weights are not those of the index.
        """
        if self._clipgs is None:
            clipgs = load_inferencer(self.card.model, self.card.checkpoint or None, self.device, self.download)
            self.card.refuse_other_weights(clipgs, 'the index')
            self._clipgs = clipgs
        return self._clipgs

    def text(self, text: str) -> Tensor:
        """Embed a text, (E,)."""
        with teacher_for(self.clipgs, 'texts', 'search with a splat or "more like this", which need none'):
            return self.clipgs.embed_text(text)[0]

    def image(self, path: Path) -> Tensor:
        """Embed a picture, (E,)."""
        with teacher_for(self.clipgs, 'pictures', 'search with a splat or "more like this", which need none'):
            return self.clipgs.embed_images(path)[0]

    def splat(self, path: Path) -> Tensor:
        """Embed a splat prepared as the objects of the index, (E,)."""
        cloud, _ = prepared(path, self.options, self.clipgs)
        return self.clipgs.embed_gaussians(cloud, turns=self.options.turns)[0]


class Ended(Exception):
    """End of the page while thumbnails are drawn."""


@contextmanager
def drawing(thumbnails: Thumbnails, count: int, workers: int) -> Iterator[None]:
    """Draw the thumbnails that are not there, while the page is already used; stop at the end of the context."""
    ended = threading.Event()

    def work() -> None:
        failed = 0

        def done(row: int, error: Exception | None) -> None:
            nonlocal failed
            if ended.is_set():
                raise Ended
            failed += error is not None
        with suppress(Ended):
            thumbnails.draw_all(range(count), workers, done)
            print(f'thumbnails of {count - failed:,} objects are drawn'
                  + (f', {failed:,} cannot be' if failed else ''), file=sys.stderr)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # since no thread can be started while the interpreter exits


def free_port(wanted: int) -> socket.socket:
    """Listen at a port of this machine; 0 takes any that is free.

    Raises:
        OSError: The port is in use.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(('127.0.0.1', wanted))
        listening.listen()
    except OSError as error:
        raise OSError(f'port {wanted} of this machine cannot be used ({error.strerror}); choose another with --port, '
                      'or 0 for any that is free') from error
    return listening


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, FILES, 'python tools/embed.py work_dirs/files -o work_dirs/embeddings.npz',
                  'python tools/serve.py work_dirs/embeddings.npz')
    args.add_argument('index', type=Path, help='index written by tools/embed.py, a folder or an .npz')
    args.add_argument('--port', type=int, default=8737, help='port on this machine, 0 for any (%(default)s)')
    args.add_argument('--page', type=Path, metavar='FOLDER',
                      help="folder of thumbnails and tags (INDEX.page beside the index, or in the user's cache if that "
                           'cannot be written)')
    args.add_argument('--exports', type=Path, metavar='FOLDER',
                      help='folder in which selections may be copied; without it the page writes lists only')
    args.add_argument('--workers', type=int, default=processors(), help='threads that draw thumbnails (%(default)s)')
    args.add_argument('--device', default='cpu', help='device to embed queries on (%(default)s)')
    add_download(args)
    options = args.parse_args(argv)
    if options.workers < 1 or not 0 <= options.port < 65536:
        args.error('--workers is at least 1, and --port is 0 to 65535')

    require('fastapi', 'uvicorn')
    import uvicorn

    from clipgs_plugin.app.server import make_app
    from clipgs_plugin.app.site import Site, Sites, stamp_of
    from clipgs_plugin.app.tags import TagFile
    from clipgs_plugin.search.approximate import advice

    embedder_of = lru_cache(1)(lambda card: IndexEmbedder(card, options.device, options.download))

    def read() -> Site:
        catalog = read_catalog(options.index)
        folders = page_folders(options.index, options.page)
        tags, embedder = TagFile(tag_file(folders)), embedder_of(catalog.index.card)
        return Site(catalog, thumbnails_of(catalog, folders), tags, embedder, options.exports)
    sites = Sites(read, lambda: stamp_of(options.index))
    site = sites.at()
    site.tags.read()  # so that a damaged file ends the program, which the page could not load
    check_up_cue(args, site.embedder.options)
    if site.catalog.index.folder and (note := advice(options.index, len(site.catalog))):
        print(note, file=sys.stderr)
    token = secrets.token_urlsafe(18)
    with free_port(options.port) as listening:
        port = listening.getsockname()[1]
        print(f'{len(site.catalog):,} objects of {options.index} at http://127.0.0.1:{port}/?token={token} '
              '(Ctrl-C ends)', flush=True)
        app = make_app(sites, port, token, options.workers)
        server = uvicorn.Server(uvicorn.Config(app, log_level='warning', access_log=False, server_header=False))
        with drawing(site.thumbnails, len(site.catalog), options.workers):
            server.run(sockets=[listening])
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-serve``."""
    run(main)


if __name__ == '__main__':
    cli()
