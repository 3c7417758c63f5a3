"""Make the toy world, procedural objects as Gaussians with views and captions, as a triplet dataset."""
from __future__ import annotations

import sys
import time
from pathlib import Path

from clipgs_plugin.tools._program import parser, progress_bar, run


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/make_toy_world.py work_dirs/toy_world --num-train 120 --num-test 60')
    args.add_argument('out', type=Path, help='folder of the dataset; an interrupted world resumes')
    args.add_argument('--num-train', type=int, default=1200, help='training objects (%(default)s)')
    args.add_argument('--num-val', type=int, default=600,
                      help='validation objects, of the same looks as training (%(default)s)')
    args.add_argument('--num-test', type=int, default=400,
                      help='test objects, of unseen combinations of category and look (%(default)s)')
    args.add_argument('--num-views', type=int, default=8, help='views of an object (%(default)s)')
    args.add_argument('--size', type=int, default=64, help='width and height of a view in pixels (%(default)s)')
    args.add_argument('--num-gaussians', type=int, default=1024, help='Gaussians of an object (%(default)s)')
    args.add_argument('--seed', type=int, default=0, help='random seed (%(default)s)')
    args.add_argument('--workers', type=int, default=2, help='processes, which do not change the bytes (%(default)s)')
    args.add_argument('--export', type=Path, metavar='DIR',
                      help='folder for a few unseen objects as .ply, .splat and .spz files')
    args.add_argument('--num-export', type=int, default=9, help='number of exported objects (%(default)s)')
    args = args.parse_args(argv)

    from clipgs_plugin.toy_world.specs import CATEGORIES
    from clipgs_plugin.toy_world.writing import export_files, write_world
    total = args.num_train + args.num_val + args.num_test
    print(f'Making {total:,} objects of {len(CATEGORIES)} categories with {args.num_views} views each in {args.out}',
          file=sys.stderr)
    started = time.perf_counter()
    with progress_bar() as bar:
        made = write_world(args.out, args.num_train, args.num_val, args.num_test, args.num_views, args.size,
                           args.num_gaussians, args.seed, args.workers,
                           track=lambda specs: bar.track(specs, description='objects'))
    seconds = time.perf_counter() - started
    print(f'{made:,} objects made in {seconds:.1f} s, {total - made:,} existed: {args.out}', file=sys.stderr)
    if args.export:
        for path in export_files(args.export, args.num_export, args.num_gaussians, args.seed):
            print(path)
    return 0


def cli() -> None:
    """Run as the installed program ``clipgs-toy-world``."""
    run(main)


if __name__ == '__main__':
    cli()
