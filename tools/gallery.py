"""Write a page of an index that opens from disk, with groups and a map."""
from __future__ import annotations

import sys
from pathlib import Path

from clipgs_plugin.tools._page import page_folders, processors, read_catalog, require, thumbnails_of
from clipgs_plugin.tools._program import FILES, one_line, parser, printable, progress_bar, run


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, FILES, 'python tools/embed.py work_dirs/files -o work_dirs/embeddings.npz',
                  'python tools/gallery.py work_dirs/embeddings.npz -o work_dirs/gallery')
    args.add_argument('index', type=Path, help='index written by tools/embed.py, a folder or an .npz')
    args.add_argument('-o', '--out', type=Path, default=Path('page'),
                      help='folder to write; only a gallery is ever replaced (%(default)s)')
    args.add_argument('--where', action='append', default=[], metavar='CONDITION',
                      help="objects to show, such as 'category=chair' or 'gaussians>=5000'; all of several hold")
    args.add_argument('--group', metavar='COLUMN',
                      help='column to group by, beside clusters (category if there is one)')
    args.add_argument('--clusters', type=int, help='number of clusters (the square root of half of the objects)')
    args.add_argument('--map', choices=['pca', 'umap'], default='pca',
                      help='layout of the map; umap needs umap-learn, of the extra report (%(default)s)')
    args.add_argument('--splats', action='store_true',
                      help='write the splats themselves, in viewers of about a megabyte an object')
    args.add_argument('--title', help='heading (the name of the index)')
    args.add_argument('--page', type=Path, metavar='FOLDER', help='folder of cached thumbnails (INDEX.page)')
    args.add_argument('--workers', type=int, default=processors(), help='threads that draw thumbnails (%(default)s)')
    options = args.parse_args(argv)
    if options.workers < 1 or (options.clusters is not None and options.clusters < 1):
        args.error('--workers and --clusters are at least 1')

    if options.splats:
        require('viser')
    from clipgs_plugin.app.gallery import GallerySettings, check_folder, write_gallery

    check_folder(options.out)
    catalog = read_catalog(options.index)
    rows = catalog.rows(options.where)
    group = options.group or ('category' if 'category' in catalog.shown() else None)
    settings = GallerySettings(options.title or options.index.name, group, options.clusters, options.map,
                               options.splats)
    thumbnails = thumbnails_of(catalog, page_folders(options.index, options.page))
    failed = 0
    print(f'Drawing {len(rows):,} objects of {options.index} with {options.workers} threads', file=sys.stderr)
    with progress_bar() as bar:
        drawn = bar.add_task('drawing', total=len(rows))

        def done(row: int, error: Exception | None) -> None:
            nonlocal failed
            bar.advance(drawn)
            if error is not None:
                failed += 1
                bar.console.print(f'failed   {printable(one_line(error))}', soft_wrap=True, highlight=False,
                                  markup=False)
        page = write_gallery(catalog, thumbnails, rows, options.out, settings, options.workers, done)
    print(page)
    if failed:
        print(f'{failed} of {len(rows)} objects could not be drawn', file=sys.stderr)
    return 1 if failed else 0


def cli() -> None:
    """Run as the installed program ``clipgs-gallery``."""
    run(main)


if __name__ == '__main__':
    cli()
