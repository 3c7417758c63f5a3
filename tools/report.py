"""Report a training run on one HTML page: curves, student beside teacher, retrieval gallery, confusion matrix."""
from __future__ import annotations

from pathlib import Path

from clipgs_plugin.tools._program import FEATURES, TRAINED, WORLD, parser, run, usable_device


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, WORLD, FEATURES, TRAINED, 'python tools/report.py work_dirs/run -o work_dirs/report.html')
    args.add_argument('run', type=Path, help='work dir of tools/train.py')
    args.add_argument('-o', '--out', type=Path, default=None, help='page to write (RUN/report.html)')
    args.add_argument('--gallery', type=Path, metavar='PNG',
                      help='image file for every other row of the retrieval gallery')
    args.add_argument('--device', default='cpu', help='device to compute on (%(default)s)')
    args = args.parse_args(argv)

    from clipgs_plugin.apis.report import collect_report
    from clipgs_plugin.visualization.report import draw_gallery, render_html
    out = args.out or args.run / 'report.html'
    report = collect_report(args.run, usable_device(args.device))
    out.write_text(render_html(report), encoding='utf-8')
    if args.gallery:
        draw_gallery(report.gallery[1::2]).save(args.gallery)
    width = max(len(row[0]) for row in report.rows)
    print(f'{"":{width}}  ' + '  '.join(report.columns[1:]))
    for row in report.rows:
        cells = (f"{cell:>{len(column)}}" for cell, column in zip(row[1:], report.columns[1:]))
        print(f"{row[0]:{width}}  " + "  ".join(cells))
    print(f'report: {out}')
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-report``."""
    run(main)


if __name__ == '__main__':
    cli()
