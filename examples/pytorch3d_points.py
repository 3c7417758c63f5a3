"""Render the centres of Gaussians with pytorch3d, beside the Gaussians themselves from the same cameras.

    python examples/pytorch3d_points.py FILE --out PNG
"""
import argparse

import torch
from PIL import Image
from pytorch3d.renderer import (
    AlphaCompositor,
    PerspectiveCameras,
    PointsRasterizationSettings,
    PointsRasterizer,
    PointsRenderer,
)
from pytorch3d.structures import Pointclouds

from clipgs_plugin import ops, read_gaussians


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', help='splat file of an object')
    parser.add_argument('--out', default='points.png', help='picture: Gaussians above, points below')
    parser.add_argument('--size', type=int, default=192, help='pixels of a view')
    parser.add_argument('--up', default='y', help='up axis of the file')
    args = parser.parse_args(argv)

    cloud = read_gaussians(args.file).normalise()
    cloud = cloud[cloud.opacities > 0.3]
    viewmats = ops.sphere_cameras(4, distance=3.2, elevation=15, up=args.up)
    intrinsics = ops.intrinsics(40, args.size, args.size)
    gaussians, _ = ops.render(cloud, viewmats, intrinsics.expand(4, 3, 3), args.size, args.size, background=(1, 1, 1))

    cameras = PerspectiveCameras(**ops.cameras_to_pytorch3d(viewmats, intrinsics, args.size, args.size))
    settings = PointsRasterizationSettings(image_size=args.size, radius=3 / args.size, points_per_pixel=8, bin_size=0)
    renderer = PointsRenderer(PointsRasterizer(cameras, settings), AlphaCompositor(background_color=(1, 1, 1)))
    points = renderer(Pointclouds([cloud.means], features=[cloud.rgb]).extend(4))

    rows = [torch.cat(list(views.clamp(0, 1)), dim=1) for views in (gaussians, points)]
    Image.fromarray((torch.cat(rows) * 255).round().byte().numpy()).save(args.out)
    return gaussians, points


if __name__ == '__main__':
    main()
