"""Make scenes of scanned meshes on textured floors, fitted as splats, in which the object of each Gaussian is known."""
from __future__ import annotations

import sys
import time
from pathlib import Path

from clipgs_plugin.tools._program import AXES, parser, progress_bar, run

CARD = 'scenes.json'


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/make_scenes.py --meshes gso --scenes 2 work_dirs/scenes')
    args.add_argument('out', type=Path, help='folder of the scenes, OUT/0000 and so on; an interrupted run resumes')
    args.add_argument('--meshes', type=Path, required=True,
                      help='folder of meshes in metres, such as Google Scanned Objects')
    args.add_argument('--up', choices=AXES, default='z', help='up axis of the meshes (%(default)s)')
    args.add_argument('--scenes', type=int, default=10, help='number of scenes (%(default)s)')
    args.add_argument('--objects', type=int, default=7, help='objects of a scene (%(default)s)')
    args.add_argument('--gaussians', type=int, default=50_000, help='Gaussians of a scene (%(default)s)')
    args.add_argument('--views', type=int, default=60, help='views to fit (%(default)s)')
    args.add_argument('--pixels', type=int, default=176, help='width and height of a view (%(default)s)')
    args.add_argument('--iterations', type=int, default=200, help='iterations of the fit (%(default)s)')
    args.add_argument('--renderer', choices=['auto', 'egl', 'raycast'], default='auto',
                      help='renderer of the meshes (%(default)s)')
    args.add_argument('--seed', type=int, default=0, help='random seed (%(default)s)')
    options = args.parse_args(argv)
    if options.scenes < 1 or options.seed < 0:
        args.error(f'--scenes {options.scenes} --seed {options.seed}: expected at least 1 and 0')

    from clipgs_plugin.generation.scenes import SceneSettings
    from clipgs_plugin.generation.sources import MeshSource
    settings = SceneSettings(options.objects, options.gaussians, options.views, options.pixels, options.iterations,
                             options.renderer)
    source = MeshSource(up=options.up)
    listed = source.list(options.meshes)
    print(f'Making {options.scenes} scenes of {options.objects} of {len(listed)} meshes in {options.out}',
          file=sys.stderr)
    started = time.perf_counter()
    made = _make_all(options.out, options.scenes, listed, source, settings, options.seed)
    print(f'{made} scenes made in {time.perf_counter() - started:.1f} s, {options.scenes - made} existed: '
          f'{options.out}', file=sys.stderr)
    return 0


def _make_all(out: Path, count: int, listed, source, settings, seed: int) -> int:
    """Make the scenes that are not there; return their number."""
    from clipgs_plugin.generation.scenes import make_scene, write_scene
    from clipgs_plugin.generation.scenes.files import RECORD
    from clipgs_plugin.io.lock import folder_lock
    out.mkdir(parents=True, exist_ok=True)
    made = 0
    with folder_lock(out), progress_bar() as bar:
        _check_card(out / CARD, dict(settings=settings.to_dict(), seed=seed, up=source.up,
                                     meshes=[item.uid for item in listed]))
        for number in bar.track(range(count), description='scenes'):
            folder = out / f'{number:04d}'
            if not (folder / RECORD).exists():
                scene = make_scene(listed, source, settings, (seed, number))
                write_scene(scene, folder)
                made += 1
                quality, truth, seconds = (scene.record[key] for key in ('quality', 'truth', 'seconds'))
                print(f'{folder}: PSNR {quality["psnr"]:.1f} dB, {100 * truth["agreement"]:.1f} % of the pixels of '
                      f'objects agree with the meshes, {sum(seconds.values()):.0f} s')
    return made


def _check_card(path: Path, card: dict) -> None:
    """Write what the scenes of a folder are made of, or compare it with what is there.

    Raises:
        ValueError: The scenes that are there were made with other settings.
    """
    from clipgs_plugin.io.checked_json import read_json
    from clipgs_plugin.io.files import write_whole
    from clipgs_plugin.triplets.codecs import to_json
    if not path.exists():
        write_whole(path, [to_json(card, indent=1)])
    elif (found := read_json(path, schema=dict)) != card:
        different = sorted(key for key in {*card, *found} if card.get(key) != found.get(key))
        raise ValueError(f'{path}: the scenes that are there were made with other {", ".join(different)}; name another '
                         'folder, or the same settings')


def cli() -> None:
    """Run as the installed program ``clipgs-scenes``."""
    run(main)


if __name__ == '__main__':
    cli()
