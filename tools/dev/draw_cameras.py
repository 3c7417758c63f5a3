"""Draw the axes of cameras and images of several libraries, the picture of docs/pytorch3d.md."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipgs_plugin.tools._program import parser, run

# A camera seen from behind: its right, up and forward on the page.
RIGHT, UP, FORWARD = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.72, 0.42])
AXES = [('OpenCV, COLMAP, and here', (RIGHT, -UP, FORWARD)), ('OpenGL, NeRF', (RIGHT, UP, -FORWARD)),
        ('pytorch3d', (-RIGHT, UP, FORWARD))]
COLORS = ('#d62728', '#2ca02c', '#1f77b4')
WIDTH, HEIGHT = 8, 6


def draw_camera(plot, title: str, axes: Sequence[np.ndarray]) -> None:
    """Draw a camera, its image plane and its axes."""
    middle = 2.1 * FORWARD
    corners = [middle + x * RIGHT + y * UP for x, y in ((-1, -0.75), (1, -0.75), (1, 0.75), (-1, 0.75))]
    for corner in corners:
        plot.plot(*np.transpose([(0, 0), corner]), color='0.75', lw=1)
    plot.fill(*np.transpose(corners), facecolor='0.93', edgecolor='0.55')
    for name, color, axis in zip('xyz', COLORS, axes):
        axis = 1.15 * axis
        plot.annotate('', axis, (0, 0), arrowprops=dict(arrowstyle='-|>', color=color, lw=2.2, shrinkA=0, shrinkB=0))
        plot.text(*(axis * (1 + 0.16 / np.linalg.norm(axis))), name, color=color, ha='center', va='center', size=13)
    plot.plot(0, 0, 'o', color='0.2', ms=5)
    plot.set(title=title, xlim=(-1.5, 2.8), ylim=(-1.5, 1.9))


def draw_image(plot, title: str, points: dict[tuple[float, float], str], origin: tuple[float, float],
               directions: tuple[int, int]) -> None:
    """Draw the pixels of an image, the coordinates of some points, and the axes at their origin."""
    for x in range(WIDTH + 1):
        plot.plot((x, x), (0, HEIGHT), color='0.85', lw=0.8)
    for y in range(HEIGHT + 1):
        plot.plot((0, WIDTH), (y, y), color='0.85', lw=0.8)
    for (x, y), text in points.items():
        plot.plot(x, y, 'o', color='0.2', ms=4)
        plot.annotate(text, (x, y), (0, 7 if y < HEIGHT / 2 else -16), textcoords='offset points', size=9.5,
                      ha='center', bbox=dict(boxstyle='round,pad=0.1', fc='white', ec='none', alpha=0.85))
    for name, color, step in zip('xy', COLORS, ((directions[0], 0), (0, directions[1]))):
        end = np.add(origin, 2.4 * np.array(step))
        plot.annotate('', end, origin, arrowprops=dict(arrowstyle='-|>', color=color, lw=2.2, shrinkA=0, shrinkB=0))
        plot.text(*(end + 0.45 * np.array(step)), name, color=color, ha='center', va='center', size=13)
    plot.set(title=title, xlim=(-1.6, WIDTH + 1.6), ylim=(HEIGHT + 1.3, -1.3))  # rows count downwards


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/draw_cameras.py -o work_dirs/cameras.png')
    args.add_argument('-o', '--out', required=True, help='picture to write, .png or .svg')
    options = args.parse_args(argv)

    from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 6.4), layout='constrained')
    plots = figure.subplots(2, 3)
    for plot, (title, axes) in zip(plots[0], AXES):
        draw_camera(plot, title, axes)
    far = (WIDTH, HEIGHT)
    draw_image(plots[1, 0], 'pixels: here, COLMAP, pytorch3d (screen)', {(0, 0): '(0, 0)', far: '(W, H)'}, (0, 0),
               (1, 1))
    draw_image(plots[1, 1], 'pixels: OpenCV', {(0.5, 0.5): '(0, 0)', far: '(W - 0.5, H - 0.5)'}, (0.5, 0.5), (1, 1))
    draw_image(plots[1, 2], 'pytorch3d (NDC), s = min(W, H) / 2',
               {(0, 0): '(W / 2s, H / 2s)', (4, 3): '(0, 0)', far: '(-W / 2s, -H / 2s)'}, (4, 3), (-1, -1))
    for plot in plots.flat:
        plot.set_aspect('equal')
        plot.axis('off')
    figure.savefig(options.out, dpi=90)
    return 0


def cli() -> None:
    run(main)


if __name__ == '__main__':
    cli()
