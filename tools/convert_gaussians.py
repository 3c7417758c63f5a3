"""Convert splat files between formats and report the errors of lossy formats."""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path

from clipgs_plugin.tools._program import (
    AXES,
    FILES,
    USER_ERRORS,
    add_preparation,
    describe,
    one_line,
    parser,
    prepare_cloud,
    progress_bar,
    run,
)


def main(argv: list[str] | None = None) -> int:
    from clipgs_plugin.io import FORMATS
    writable = [name for name, format in FORMATS.items() if format.write]
    args = parser(__doc__, FILES, 'python tools/convert_gaussians.py work_dirs/files work_dirs/spz --format spz')
    args.add_argument('input', metavar='IN', type=Path, help='splat file of any format, or folder of splat files')
    args.add_argument('output', metavar='OUT', type=Path, help='file to write, in the format of its suffix '
                      f'({", ".join(FORMATS[name].suffix for name in writable)}), or folder to write if IN is a folder')
    args.add_argument('--format', choices=writable, help='output format if IN is a folder')
    add_preparation(args, up=None)
    args.add_argument('--to-up', choices=AXES, default='y', help='up axis of OUT if --up is given (%(default)s)')
    args.add_argument('--spz-version', type=int, choices=[2, 3, 4], help='version of written .spz files (3)')
    args.add_argument('--gltf-encoding', choices=['float', 'integer', 'spz'],
                      help='values in written glTF files (float)')
    args.add_argument('--clean', action='store_true', help='drop invalid Gaussians instead of refusing the file')
    args.add_argument('--overwrite', action='store_true', help='replace existing splat files that are no input')
    args.add_argument('--json', action='store_true', help='print the results as JSON')
    options = args.parse_args(argv)
    jobs = _jobs(args, options)

    print(f'Converting {len(jobs)} file{"s" * (len(jobs) != 1)} of {options.input} to {options.output}',
          file=sys.stderr)
    results, failed = [], 0
    with progress_bar() as bar:
        for source, target in bar.track(jobs, description='converting'):
            try:
                results.append(convert(source, target, options))
            except USER_ERRORS as error:
                failed += 1
                print(f'error: {one_line(error)}', file=sys.stderr)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            _print(result)
    if failed:
        print(f'{failed} of {len(jobs)} files failed', file=sys.stderr)
    return 1 if failed else 0


def _jobs(args: argparse.ArgumentParser, options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Return pairs of input and output files; wrong arguments end the program."""
    from clipgs_plugin.io import FORMATS, SUFFIXES, format_of_name, sog
    source, target = options.input, options.output
    if not source.exists():
        args.error(f'{source} does not exist; check the path')
    if source.is_dir() and not (source / sog.META).is_file():
        if options.format is None:
            args.error(f'{source} is a folder; choose the output format with --format')
        if target.is_file():
            args.error(f'{target} is a file, expected a folder because {source} is one')
        format, jobs = FORMATS[options.format], []
        for path in sorted(source.iterdir()):
            is_sog = path.is_dir() and (path / sog.META).is_file()
            if is_sog or (path.is_file() and path.name.lower().endswith(SUFFIXES)):
                stem = path.name if is_sog else path.name[:-len(format_of_name(path).suffix)]
                jobs.append((path, target / stem / sog.META if format.suffix == sog.META
                             else target / (stem + format.suffix)))
        if not jobs:
            args.error(f'{source} holds no splat files, expected suffixes {", ".join(SUFFIXES)}')
        outputs = [output for _, output in jobs]
        for job in jobs:
            if outputs.count(job[1]) > 1:
                args.error(f'{job[0]} and another file of {source} would both become {job[1]}; rename one')
    else:
        if options.format is not None:
            args.error('--format is for folders; the suffix of OUT selects the format of a file')
        if target.is_dir():
            args.error(f'{target} is a folder; name the file to write')
        try:
            format = format_of_name(target)
        except ValueError as error:
            args.error(str(error))
        if format.write is None:
            args.error(f'{format.suffix} files cannot be written; choose another suffix')
        jobs = [(source, target)]
    if options.spz_version and format.name != 'spz':
        args.error(f'--spz-version is for .spz, not {format.suffix}; remove it')
    if options.gltf_encoding and format.name not in ('glb', 'gltf'):
        args.error(f'--gltf-encoding is for .glb and .gltf, not {format.suffix}; remove it')
    _check_outputs(args, jobs, options.overwrite)
    return jobs


def _check_outputs(args: argparse.ArgumentParser, jobs: list[tuple[Path, Path]], overwrite: bool) -> None:
    """End the program if it would replace a file, unless that is a splat, no input, and to be overwritten."""
    from clipgs_plugin import read_gaussians
    from clipgs_plugin.io import sog
    inputs = {(source / sog.META if source.is_dir() else source).resolve() for source, _ in jobs}
    for _, target in jobs:
        if not os.path.exists(target):  # a name that is too long is an error of its own file, later
            continue
        if target.resolve() in inputs:
            args.error(f'{target} is an input, which is never replaced; name another file or folder')
        if not overwrite:
            args.error(f'{target} exists; replace it with --overwrite')
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                read_gaussians(target, clean=True)
        except USER_ERRORS as error:
            args.error(f'{target} exists and is not a splat file ({one_line(error)}); delete it or name another')


def convert(source: Path, target: Path, options: argparse.Namespace) -> dict:
    """Convert one file and return the names, formats, sizes and measured errors."""
    from clipgs_plugin import read_gaussians, write_gaussians
    from clipgs_plugin.io import format_of_file, format_of_name
    from clipgs_plugin.io.conversion import measure_losses, stored_order
    from clipgs_plugin.io.notes import read_notes, write_options

    read, written = format_of_file(source), format_of_name(target)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always')
        cloud = read_gaussians(source, clean=options.clean)
    cloud, preparation = prepare_cloud(cloud, options, options.to_up)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = write_options(read_notes(source), written)
    write_gaussians(cloud, target, **kept, **(dict(version=options.spz_version) if options.spz_version else {}),
                    **(dict(encoding=options.gltf_encoding) if options.gltf_encoding else {}))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the render mode, which is noted above
        back = read_gaussians(target)
    return dict(
        input=str(source), input_format=read.description, output=str(target), output_format=written.description,
        gaussians=len(cloud), sh_degree=cloud.sh_degree, written_sh_degree=back.sh_degree,
        notes=[str(note.message) for note in notes], **preparation,
        bytes=sum(path.stat().st_size for path in _files(source)),
        written_bytes=sum(path.stat().st_size for path in _files(target)),
        losses=[dataclasses.asdict(loss)
                for loss in measure_losses(stored_order(cloud, written), back)])


def _files(path: Path) -> list[Path]:
    """Return the file itself, or the files of a SOG folder."""
    from clipgs_plugin.io import sog
    folder = path if path.is_dir() else path.parent if path.name == sog.META else None
    return [path] if folder is None else [folder / sog.META, *folder.glob('*.webp')]


def _print(result: dict) -> None:
    """Print the sizes and errors of one conversion."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(escape(
        f'{result["input"]}: {result["gaussians"]:,} Gaussians of SH degree {result["sh_degree"]}, '
        f'{result["input_format"]}, {result["bytes"]:,} bytes'), soft_wrap=True)
    if found := describe(result):
        console.print(escape(f'  {found[2:]}'), soft_wrap=True)
    for note in result['notes']:
        console.print(escape(f'  {note}'), soft_wrap=True)
    if result['written_sh_degree'] < result['sh_degree']:
        console.print(f'  SH bands above {result["written_sh_degree"]} dropped: colours depend less on the view')
    if any(loss['largest'] for loss in result['losses']):
        table = Table('error', 'rms', 'largest', 'unit')
        for loss in result['losses']:
            table.add_row(loss['quantity'], f'{loss["rms"]:.2g}', f'{loss["largest"]:.2g}', loss['unit'])
        console.print(table)
    else:
        console.print('  lossless')
    console.print(escape(f'{result["output"]}: {result["output_format"]}, {result["written_bytes"]:,} bytes'),
                  soft_wrap=True)


def cli() -> None:
    """Run as the installed program ``clipgs-convert``."""
    run(main)


if __name__ == '__main__':
    cli()
