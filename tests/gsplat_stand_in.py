"""Stand-in for gsplat without a GPU: its signature and shapes, rendered by the reference rasteriser."""
import types

import torch

from clipgs_plugin.ops.kernels import raster_reference
from clipgs_plugin.ops.spherical_harmonics import C0


def stand_in():
    """Return a module with gsplat's ``rasterization``, and the list of batch shapes of its calls."""
    calls = []

    # Common signature of gsplat 1.5 and 1.6. Both accept colours of a batch for each camera only.
    def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=0.01,
                      far_plane=1e10, radius_clip=0.0, eps2d=0.3, sh_degree=None, packed=True, tile_size=16,
                      backgrounds=None, render_mode='RGB', sparse_grad=False, absgrad=False,
                      rasterize_mode='classic', channel_chunk=32, distributed=False, camera_model='pinhole',
                      segmented=False, covars=None):
        batch, count, cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
        shapes = dict(means=(count, 3), quats=(count, 4), scales=(count, 3), opacities=(count,),
                      colors=(cameras, count, 3) if sh_degree is None else (count, (sh_degree + 1) ** 2, 3),
                      viewmats=(cameras, 4, 4), Ks=(cameras, 3, 3))
        given = dict(means=means, quats=quats, scales=scales, opacities=opacities, colors=colors, viewmats=viewmats,
                     Ks=Ks)
        for name, shape in shapes.items():
            assert given[name].shape == (*batch, *shape) and given[name].dtype == torch.float32, name
        assert sh_degree is None or not batch, 'gsplat 1.6 takes one set of SH coefficients for a whole batch'
        assert rasterize_mode == 'classic' and backgrounds is None and render_mode == 'RGB'
        calls.append(tuple(batch))
        drawn = []
        for index in torch.cartesian_prod(*(torch.arange(size) for size in (*batch, cameras))).reshape(
                -1, len(batch) + 1).tolist():
            *at, camera = index
            at = tuple(at)
            sh = colors if sh_degree is not None else ((colors[(*at, camera)] - 0.5) / C0)[:, None]
            drawn.append(raster_reference.rasterise(
                means[at], quats[at], scales[at].log(), opacities[at].logit(), sh, viewmats[(*at, camera)][None],
                Ks[(*at, camera)][None], width, height, near_plane, eps2d))
        image, alpha = (torch.cat(values).reshape(*batch, cameras, height, width, -1) for values in zip(*drawn))
        return image, alpha, {}

    return types.SimpleNamespace(rasterization=rasterization), calls
