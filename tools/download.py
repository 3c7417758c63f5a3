"""Download published point-cloud models into the cache of the Hugging Face Hub."""
from __future__ import annotations

from clipgs_plugin.tools._downloads import fetch, readable
from clipgs_plugin.tools._program import parser, run


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/download.py uni3d-b')
    args.add_argument('names', nargs='+', metavar='NAME',
                      help='names of published models, as listed by tools/list_backbones.py')
    options = args.parse_args(argv)

    from clipgs_plugin.models.checkpoints.download import require_hub_file
    for name in options.names:  # a wrong name is reported before anything is downloaded
        require_hub_file(name)
    for name in dict.fromkeys(options.names):
        path = fetch(name)
        print(f'{name}: {path} ({readable(path.stat().st_size)})')
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-download``."""
    run(main)


if __name__ == '__main__':
    cli()
