"""Export a model to ONNX, OpenVINO or torch.export, from given patch indices to embeddings."""
from __future__ import annotations

import sys
from pathlib import Path

from clipgs_plugin.tools._program import add_preparation, parser, prepared, run

FORMATS = {'.onnx': 'onnx', '.xml': 'openvino', '.pt2': 'torch'}


def parse(argv: list[str] | None):
    """Parse the options."""
    args = parser(__doc__, 'python tools/export.py clipgs_toy work_dirs/clipgs_toy.onnx')
    args.add_argument('model', help='name of a model with weights (tools/list_models.py), or path of a config')
    args.add_argument('out', metavar='OUT', type=Path, help='file to write: .onnx, .xml (OpenVINO) or .pt2 (torch)')
    args.add_argument('--checkpoint', help='weights of a config')
    args.add_argument('--format', choices=sorted(FORMATS.values()), help='format of the file (that of its suffix)')
    args.add_argument('--object', metavar='FILE', type=Path,
                      help='splat file on which the export is compared with the model (random Gaussians)')
    args.add_argument('--download', action='store_true', help='download the weights of a published model')
    args.add_argument('--overwrite', action='store_true', help='replace an existing file')
    add_preparation(args)
    options = args.parse_args(argv)
    suffix = options.out.suffix
    if suffix not in FORMATS:
        args.error(f'{options.out}: the name of the file ends in one of {", ".join(FORMATS)}')
    if options.format not in (None, FORMATS[suffix]):
        args.error(f'{options.out}: a file of --format {options.format} does not end in {suffix}')
    if options.out.exists() and not options.overwrite:
        args.error(f'{options.out} exists; add --overwrite to replace it')
    return options


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)

    from clipgs_plugin.apis.export import export_model, require_packages
    from clipgs_plugin.tools._program import load_inferencer

    format = FORMATS[args.out.suffix]
    require_packages(format)  # before a model is loaded
    if args.object is not None and not args.object.is_file():
        raise FileNotFoundError(f'{args.object}: file not found')
    clipgs = load_inferencer(args.model, args.checkpoint, 'cpu', args.download)
    clouds = [_random_cloud(seed) for seed in range(2)]
    if args.object is not None:
        clouds[0] = prepared(args.object, args)[0]
    print(f'Exporting {clipgs.name} to {args.out}', file=sys.stderr)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    difference = export_model(clipgs.model, args.out, [clipgs.prepare(cloud) for cloud in clouds], format)
    compared = args.object or 'random Gaussians'
    print(f'{args.out}: embeddings of {compared} differ from those of the model by {difference:.1e} at most')
    return 0


def _random_cloud(seed: int, count: int = 3000):
    """Return Gaussians near a sphere with random attributes."""
    import torch

    from clipgs_plugin import GaussianCloud
    generator = torch.Generator().manual_seed(seed)
    means, quats, scales, opacities, sh = (torch.randn(count, width, generator=generator) for width in (3, 4, 3, 1, 3))
    return GaussianCloud(torch.nn.functional.normalize(means, dim=-1) + 0.05 * scales, quats, 0.4 * scales - 4,
                         1 + opacities[:, 0], 0.4 * sh[:, None])


def cli() -> None:
    """Run as the installed program ``clipgs-export``."""
    run(main)


if __name__ == '__main__':
    cli()
