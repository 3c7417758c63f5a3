"""Report runs on one HTML page: metrics, curves, differences, retrieval gallery, map of embeddings, confusions."""
from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin.tools._program import FEATURES, TRAINED, WORLD, check_output, parser, run, usable_device

SOFTWARE = 'clipgs_plugin'  # in the pictures


def main(argv: list[str] | None = None) -> int:
    parse = parser(__doc__, WORLD, FEATURES, TRAINED, 'python tools/report.py work_dirs/run -o work_dirs/report.html')
    parse.add_argument('runs', type=Path, nargs='+', metavar='RUN',
                       help='work dir of tools/train.py, tools/test.py or tools/few_shot.py, or folder of '
                            'tools/run_table.py; two runs are compared by metric and class')
    parse.add_argument('--compare', type=Path, metavar='RUN', help='one more run')
    parse.add_argument('-o', '--out', type=Path, default=None,
                       help='.html page to write; only a report is ever replaced (report.html of the first run)')
    parse.add_argument('--gallery', type=Path, metavar='PNG',
                       help='.png file for every other row of the retrieval gallery')
    parse.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args = parse.parse_args(argv)

    from clipgs_plugin.apis.report import collect_report
    from clipgs_plugin.io.files import write_whole
    from clipgs_plugin.visualization.report import draw_gallery, render_html
    runs = [*args.runs, *([args.compare] if args.compare else [])]
    out = args.out or runs[0] / 'report.html'
    check_output(parse, out, ('.html',), 'a report', _require_report)
    if args.gallery:
        check_output(parse, args.gallery, ('.png',), 'a gallery', _require_gallery)
    report = collect_report(*runs, device=usable_device(args.device))
    if args.gallery and not report.gallery:
        raise ValueError(f'{runs[0]}: the test data have no cached features and views, of which a gallery is drawn; '
                         'leave out --gallery')
    write_whole(out, [render_html(report).encode()])
    if args.gallery:
        from PIL.PngImagePlugin import PngInfo
        buffer, info = io.BytesIO(), PngInfo()
        info.add_text('Software', SOFTWARE)
        draw_gallery(report.gallery[1::2]).save(buffer, 'PNG', pnginfo=info)
        write_whole(args.gallery, [buffer.getbuffer()])
    if report.rows:
        _print_table(report.columns, report.rows)
    elif report.metrics:
        _print_table(report.metrics.columns, report.metrics.rows)
    if report.missing:
        print(report.missing)
    for table in report.differences[:1]:
        print(f'\n{table.note}')
        _print_table(('', table.columns[-1]), [(row[0], row[-1]) for row in table.rows])
    print(f'report: {out}')
    return 0


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        print('  '.join([f'{row[0]:<{widths[0]}}', *(f'{cell:>{width}}' for cell, width in zip(row[1:], widths[1:]))]))


def _require_report(path: Path) -> None:
    """Raise a ValueError unless this program wrote a page."""
    from clipgs_plugin.apis.report import TITLE
    from clipgs_plugin.visualization.html_page import page
    if not path.read_bytes().startswith(page(TITLE, ()).partition('</title>')[0].encode()):
        raise ValueError(f'{path} is another page')


def _require_gallery(path: Path) -> None:
    """Raise a ValueError unless this program drew an image."""
    from PIL import Image
    with Image.open(path) as image:
        if image.info.get('Software') != SOFTWARE:
            raise ValueError(f'{path} is another image')


def cli() -> None:
    """Run as the installed program ``clipgs-report``."""
    run(main)


if __name__ == '__main__':
    cli()
