"""The splat itself on a page that needs no other file, drawn by the client of viser."""
from __future__ import annotations

import contextlib
import io
import math
import threading

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.visualization.turntable import robust_extent

MOST = 400_000   # Gaussians that are drawn; a browser sorts them for every picture
_RADIUS = 1.6    # of the object in viser's units, as its first camera sees it well
_ONE = threading.Lock()  # viser prints to the standard output, which is redirected meanwhile


def has_viewer() -> bool:
    """Check whether viser is installed."""
    from importlib.util import find_spec
    return find_spec('viser') is not None


def viewer_page(cloud: GaussianCloud, dark: bool = False) -> str:
    """Return a page in which an object is turned by the mouse.

    The client draws the colour of degree 0, and of clouds of more than ``MOST`` Gaussians those that cover most.

    Args:
        cloud: Object with y up.
        dark: Use a dark background.

    Raises:
        ImportError: viser is not installed.
    """
    if not has_viewer():
        raise ImportError('the viewer needs viser, of the extra app; pip install viser')
    import viser

    cloud = _largest(cloud)
    center, radius = robust_extent(cloud)
    scale = _RADIUS / radius
    arrays = ((cloud.means - center) * scale, cloud.covariances * scale ** 2, cloud.rgb.clamp(0, 1),
              cloud.opacities[:, None])
    with _ONE, contextlib.redirect_stdout(io.StringIO()):
        # Its public interface records a scene only in a server, which listens on this machine until it is stopped.
        server = viser.ViserServer(host='127.0.0.1', port=0, verbose=False)
        try:
            server.scene.set_up_direction('+y')
            server.initial_camera.position = (0.0, 0.9, 4.6)
            server.initial_camera.look_at = (0.0, 0.0, 0.0)
            server.initial_camera.fov = math.radians(45)
            server.scene.add_gaussian_splats('/object', *(each.detach().cpu().numpy() for each in arrays))
            return server.scene.as_html(dark_mode=dark)
        finally:
            server.stop()


def _largest(cloud: GaussianCloud) -> GaussianCloud:
    """Keep the Gaussians of the largest opacity times area."""
    if len(cloud) <= MOST:
        return cloud
    widths = cloud.log_scales.sort(dim=-1).values[:, 1:].sum(-1)  # log of the largest cross-section
    kept = (cloud.opacities.log() + widths).topk(MOST).indices.sort().values
    return cloud[kept]


