"""Report a training run on one HTML page: curves, student beside teacher, retrieval gallery, confusion matrix."""
from __future__ import annotations

import io
from pathlib import Path

from clipgs_plugin.tools._program import FEATURES, TRAINED, WORLD, check_output, parser, run, usable_device

SOFTWARE = 'clipgs_plugin'  # in the pictures


def main(argv: list[str] | None = None) -> int:
    parse = parser(__doc__, WORLD, FEATURES, TRAINED, 'python tools/report.py work_dirs/run -o work_dirs/report.html')
    parse.add_argument('run', type=Path, help='work dir of tools/train.py or tools/test.py')
    parse.add_argument('--compare', type=Path, metavar='RUN',
                       help='another work dir of tools/test.py, for differences by metric and class')
    parse.add_argument('-o', '--out', type=Path, default=None,
                       help='.html page to write; only a report is ever replaced (RUN/report.html)')
    parse.add_argument('--gallery', type=Path, metavar='PNG',
                       help='.png file for every other row of the retrieval gallery')
    parse.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args = parse.parse_args(argv)

    from clipgs_plugin.apis.report import collect_report
    from clipgs_plugin.io.files import write_whole
    from clipgs_plugin.visualization.report import draw_gallery, render_html
    out = args.out or args.run / 'report.html'
    check_output(parse, out, ('.html',), 'a report', _require_report)
    if args.gallery:
        check_output(parse, args.gallery, ('.png',), 'a gallery', _require_gallery)
    report = collect_report(args.run, usable_device(args.device), other=args.compare)
    if args.gallery and not report.gallery:
        raise ValueError(f'{args.run}: the test data have no cached features and views, of which a gallery is drawn; '
                         'leave out --gallery')
    write_whole(out, [render_html(report).encode()])
    if args.gallery:
        from PIL.PngImagePlugin import PngInfo
        buffer, info = io.BytesIO(), PngInfo()
        info.add_text('Software', SOFTWARE)
        draw_gallery(report.gallery[1::2]).save(buffer, 'PNG', pnginfo=info)
        write_whole(args.gallery, [buffer.getbuffer()])
    width = max((len(row[0]) for row in report.rows), default=0)
    print(f'{"":{width}}  ' + '  '.join(report.columns[1:]))
    for row in report.rows:
        cells = (f"{cell:>{len(column)}}" for cell, column in zip(row[1:], report.columns[1:]))
        print(f"{row[0]:{width}}  " + "  ".join(cells))
    if report.missing:
        print(report.missing)
    if args.compare:
        _print_differences(report.tables[0])
    print(f'report: {out}')
    return 0


def _print_differences(table) -> None:
    width = max(len(row[0]) for row in table.rows)
    print(f'\n{table.note}')
    for name, *_, difference in table.rows:
        print(f'{name:{width}}  {difference:>8}')


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
