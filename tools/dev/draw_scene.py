"""Draw the picture of the documentation on scenes: a made scene, and its objects in colours of their own."""
from __future__ import annotations

import sys
from pathlib import Path

import torch

from clipgs_plugin.tools._program import parser, run


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/draw_scene.py -o work_dirs/scene.webp')
    args.add_argument('-o', '--out', type=Path, default=Path('docs/images/scene_objects.webp'),
                      help='picture to write (%(default)s)')
    args.add_argument('--gaussians', type=int, default=120_000, help='Gaussians of the scene (%(default)s)')
    options = args.parse_args(argv)
    import tempfile

    from PIL import Image

    from clipgs_plugin import ops, read_gaussians, scenes
    from clipgs_plugin.tools.benchmarks.scenes import write_scene

    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder) / 'scene.ply', options.gaussians, 0, 0)
        cloud = read_gaussians(Path(folder) / 'scene.ply')
    objects = scenes.SceneObjects.from_labels(scenes.split_by_clusters(cloud))
    target = cloud.means.median(0).values * torch.tensor([1.0, 0, 1])
    camera = ops.look_at(target + torch.tensor([[1.0, 5.5, 9.0]]), target[None])
    width, height = 480, 360
    pictures = []
    for shown in (cloud, scenes.colored(cloud, objects)):
        images, _ = ops.render(shown, camera, ops.intrinsics(48.0, width, height)[None], width, height, (1.0, 1.0, 1.0))
        pictures.append((images[0].clamp(0, 1) * 255).round().byte())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(pictures, dim=1).numpy()).save(options.out, quality=85)
    print(f'{len(objects)} objects in {options.out}', file=sys.stderr)
    return 0


def cli() -> None:
    """Run as a program."""
    run(main)


if __name__ == '__main__':
    cli()
