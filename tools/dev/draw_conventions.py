"""Draw the pictures of docs/conventions.md."""
from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipgs_plugin import ops
from clipgs_plugin.structures import SH_C0
from clipgs_plugin.tools._program import parser, run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Rows: the axes x, y, z of a frame as (right, up, back), seen by someone in front of the object.
FRAMES = {
    'model\nSPZ\nOpenGL camera': ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    'INRIA .ply\nCOLMAP, gsplat\nOpenCV camera': ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    'glTF\nPyTorch3D camera\n': ((-1, 0, 0), (0, 1, 0), (0, 0, -1))}
SHEAR = np.array([[1, 0], [0, 1], [-0.55, -0.42]])  # right, up, back on paper
AXIS_COLORS = ('#d9483b', '#3a9a4b', '#3f7fd0')
INK, FAINT, BODY = '#808890', '#b4bac0', '#e0962f'  # legible on white and on the dark page
STYLE = {'svg.hashsalt': 'clipgs', 'font.size': 11, 'text.color': INK, 'axes.edgecolor': FAINT, 'axes.labelcolor': INK,
         'xtick.color': INK, 'ytick.color': INK, 'axes.spines.top': False, 'axes.spines.right': False}


def figure(columns: int, width: float, height: float, **kwargs) -> tuple[Figure, np.ndarray]:
    """Make a transparent figure with a row of axes; sizes are in inches."""
    from matplotlib import pyplot
    drawn, axes = pyplot.subplots(1, columns, figsize=(width, height), layout='constrained', **kwargs)
    return drawn, np.atleast_1d(axes)


def bare(axes: Axes, extent: float, title: str = '') -> None:
    """Remove frame and ticks, and show a square of +-``extent``."""
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect='equal', title=title)
    axes.set_axis_off()


def arrow(axes: Axes, start: np.ndarray, end: np.ndarray, color: str, label: str = '') -> None:
    """Draw an arrow between points on paper, (2,), with a label beyond its tip."""
    axes.annotate('', xy=end, xytext=start, arrowprops={'arrowstyle': '-|>', 'color': color, 'lw': 2.2, 'shrinkA': 0,
                                                        'shrinkB': 0, 'mutation_scale': 15})
    beyond = np.asarray(end) + 0.17 * (np.asarray(end) - start) / np.linalg.norm(np.asarray(end) - start)
    axes.text(*beyond, label, color=color, ha='center', va='center', fontweight='bold', fontsize=13)


def chair(axes: Axes) -> None:
    """Draw a chair that faces the viewer, as lines in (right, up, back)."""
    seat = [(-.3, -.1, .3), (.3, -.1, .3), (.3, -.1, -.3), (-.3, -.1, -.3), (-.3, -.1, .3)]
    back = [(-.3, -.1, -.3), (-.3, .55, -.3), (.3, .55, -.3), (.3, -.1, -.3)]
    legs = [[corner, (corner[0], -.6, corner[2])] for corner in seat[:4]]
    for line in (seat, back, *legs):
        axes.plot(*(np.array(line) @ SHEAR).T, color=BODY, lw=2.5, solid_capstyle='round', alpha=.75)


def draw_frames() -> Figure:
    """The axes of each frame at the same chair."""
    drawn, panels = figure(len(FRAMES), 8.4, 3.3)
    for axes, (name, frame) in zip(panels, FRAMES.items()):
        bare(axes, 1.3, name)
        chair(axes)
        for label, direction, color in zip('xyz', frame, AXIS_COLORS):
            arrow(axes, np.zeros(2), np.array(direction) @ SHEAR, color, label)
    return drawn


def draw_cameras() -> Figure:
    """A camera that looks at an object, with the axes of OpenCV and of OpenGL, and the pixels of its image."""
    drawn, panels = figure(3, 8.4, 3.0)
    frames = {'OpenCV, this library': ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
              'OpenGL, NeRF, cameras of glTF': ((1, 0, 0), (0, 1, 0), (0, 0, 1))}
    image = np.array([(x * .42, y * .3, -1.5) for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1), (-1, 1))]) @ SHEAR
    for axes, (name, frame) in zip(panels, frames.items()):
        bare(axes, 1.25, name)
        axes.plot(*image.T, color=INK, lw=1.5)
        for corner in image[:4]:
            axes.plot(*np.stack([np.zeros(2), corner]).T, color=FAINT, lw=1)
        for label, direction, color in zip('xyz', frame, AXIS_COLORS):
            arrow(axes, np.zeros(2), .8 * np.array(direction) @ SHEAR, color, label)
    axes = panels[2]
    axes.set(xlim=(-.6, 4.4), ylim=(3.5, -.8), aspect='equal', title='Pixels')
    axes.set_axis_off()
    for line in range(5):
        axes.plot([line, line], [0, 3], color=FAINT, lw=1)
        axes.plot([0, 4], [min(line, 3)] * 2, color=FAINT, lw=1)
    axes.plot(.5, .5, 'o', color=BODY)
    axes.annotate('(0.5, 0.5)', (.5, .5), (.75, .62), color=BODY)
    arrow(axes, np.array([0, -.25]), np.array([1.4, -.25]), AXIS_COLORS[0], 'u')
    arrow(axes, np.array([-.25, 0]), np.array([-.25, 1.4]), AXIS_COLORS[1], 'v')
    axes.plot(2, 1.5, '+', color=INK, ms=12)
    axes.annotate('(W/2, H/2)', (2, 1.5), (2.12, 2.0), color=INK)
    return drawn


def ellipse(deviations: tuple[float, float], rotation: np.ndarray) -> np.ndarray:
    """Points at one standard deviation, (2, 100)."""
    angle = np.linspace(0, 2 * np.pi, 100)
    return rotation @ (np.array(deviations)[:, None] * np.stack([np.cos(angle), np.sin(angle)]))


def draw_quaternion(degrees: float = 40) -> Figure:
    """A turn about z, seen from its tip, and its quaternion."""
    half = math.radians(degrees) / 2
    quat = (math.cos(half), 0.0, 0.0, math.sin(half))
    rotation = ops.quaternion_to_matrix(torch.tensor(quat))[:2, :2].numpy()
    drawn, (axes,) = figure(1, 4.6, 3.2)
    bare(axes, 1.25, f'{degrees:.0f}° about z, which points at you\n'
                     f'wxyz = ({quat[0]:.3f}, 0, 0, {quat[3]:.3f}), or all signs changed')
    axes.plot(*ellipse((.9, .4), np.eye(2)), color=FAINT, lw=1.5, ls='--')
    axes.fill(*ellipse((.9, .4), rotation), color=BODY, alpha=.35)
    arrow(axes, np.zeros(2), np.array([1.05, 0]), FAINT, 'x')
    arrow(axes, np.zeros(2), np.array([0, 1.0]), FAINT, 'y')
    arrow(axes, np.zeros(2), .9 * rotation[:, 0], AXIS_COLORS[0], 'R x')
    arrow(axes, np.zeros(2), .55 * rotation[:, 1], AXIS_COLORS[1], 'R y')
    axes.plot(0, 0, 'o', color=AXIS_COLORS[2], ms=9)
    turn = np.linspace(0, math.radians(degrees) * .93, 30)
    axes.plot(.66 * np.cos(turn), .66 * np.sin(turn), color=INK, lw=1.5)
    arrow(axes, .66 * np.array([math.cos(turn[-2]), math.sin(turn[-2])]),
          .66 * np.array([math.cos(2 * half), math.sin(2 * half)]), INK)
    return drawn


def draw_covariance() -> Figure:
    """From the unit sphere to a Gaussian, in two dimensions."""
    deviations, quat = (.95, .35), torch.tensor([math.cos(math.radians(17.5)), 0.0, 0.0, math.sin(math.radians(17.5))])
    rotation = ops.quaternion_to_matrix(quat)[:2, :2].numpy()
    drawn, panels = figure(3, 8.4, 3.1)
    stages = {'unit sphere': ((.5, .5), np.eye(2)), 'scaled: S = diag(exp(log_scales))': (deviations, np.eye(2)),
              'turned: Σ = R S² Rᵀ': (deviations, rotation)}
    for axes, (title, (lengths, turned)) in zip(panels, stages.items()):
        bare(axes, 1.2, title)
        axes.fill(*ellipse(lengths, turned), color=BODY, alpha=.35)
        for index, color in enumerate(AXIS_COLORS[:2]):
            tip = lengths[index] * turned[:, index]
            label = '1' if lengths[0] == lengths[1] else f's{"₁₂"[index]}'
            arrow(axes, np.zeros(2), tip, color, label)
    return drawn


def draw_harmonics(size: int = 80) -> Figure:
    """Signs and strengths of the bands 0 to 2 on the half of the sphere of directions with z > 0."""
    y, x = np.meshgrid(np.linspace(1, -1, size), np.linspace(-1, 1, size), indexing='ij')
    inside = x ** 2 + y ** 2 <= 1
    directions = np.stack([x, y, np.sqrt((1 - x ** 2 - y ** 2).clip(0))], -1)
    basis = ops.eval_sh_basis(torch.from_numpy(directions), 2).numpy()
    names = ['+1', '−y', '+z', '−x', '+xy', '−yz', '+2zz−xx−yy', '−xz', '+xx−yy']
    drawn, panels = figure(9, 8.4, 1.75)
    for index, axes in enumerate(panels):
        bare(axes, 1.1)
        axes.imshow(np.where(inside, basis[..., index], np.nan), cmap='RdBu_r', vmin=-1.1, vmax=1.1,
                    extent=(-1, 1, -1, 1))
        axes.plot(*ellipse((1, 1), np.eye(2)), color=FAINT, lw=1)
        axes.set_title(f'sh[{index}]', fontsize=10)
        axes.text(0, -1.35, names[index], ha='center', va='top', fontsize=8 if index == 6 else 10, clip_on=False)
    return drawn


def draw_colors() -> Figure:
    """The grey of the constant coefficient in sRGB."""
    drawn, (axes,) = figure(1, 5.6, 2.6)
    coefficient = np.linspace(-2.4, 2.4, 241)
    value = (0.5 + SH_C0 * coefficient).clip(0, 1)
    axes.imshow(np.repeat(value[None, :, None], 3, -1), extent=(-2.4, 2.4, -.2, -.08), aspect='auto')
    axes.plot(coefficient, value, color=BODY, lw=2.5)
    for at in (0, 1):
        axes.axhline(at, color=FAINT, lw=.8, ls='--')
    for at, label in ((0, '0.5 at 0'), (0.5 / SH_C0, f'1 at {0.5 / SH_C0:.3f}')):
        axes.plot(at, .5 + SH_C0 * at, 'o', color=INK)
        axes.annotate(label, (at, .5 + SH_C0 * at), (at + .1, .35 + SH_C0 * at))
    axes.set(xlim=(-2.4, 2.4), ylim=(-.22, 1.1), xlabel='sh[0], one channel', ylabel='sRGB')
    return drawn


PICTURES = {'frames': draw_frames, 'cameras': draw_cameras, 'quaternion': draw_quaternion,
            'covariance': draw_covariance, 'harmonics': draw_harmonics, 'colors': draw_colors}


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, 'python tools/dev/draw_conventions.py -o work_dirs/images')
    args.add_argument('-o', '--out', type=Path, required=True, help='folder of the pictures, conventions_*.svg')
    folder = args.parse_args(argv).out
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, draw in PICTURES.items():
            path = folder / f'conventions_{name}.svg'
            draw().savefig(path, transparent=True, metadata={'Date': None})
            pyplot.close('all')
            print(path)
    return 0


if __name__ == '__main__':
    run(main)
