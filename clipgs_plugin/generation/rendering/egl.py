"""Renderer of meshes by OpenGL through EGL: headless, on a GPU or by Mesa on the CPU.

It is written on moderngl because pyrender takes seven times as long for a view on a CPU (12.8 ms and 1.7 ms for 10,000
faces at 224 px).

An image is drawn at ``samples`` times its size, with one sample in the middle of each pixel, where the rays of the ray
caster pass. A second pass averages the samples. The two renderers still differ in three ways. Samples are rounded to 8
bits. Corners are rounded to the grid of the rasteriser (usually 1/256 of a sample), which moves single samples across
an edge, or all samples along an edge that is parallel to the grid. The choice between coincident surfaces differs.
Composited on a background, an image differs from the ray caster's by a mean of at most ``MAX_DIFFERENCE``, and its PSNR
is at least ``MIN_PSNR`` dB. Over 48 views each of 141 scanned objects the median is 70 dB; the minimum, a box seen
along its side, is 45.5 dB. Surfaces nearer to the camera than 1/1000 of the mesh's farthest point are not drawn.

A process has one context, created at first use in a thread of its own that does all the drawing: a context is bound to
a thread, and moderngl draws with the context that is current there.
"""
from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.objects import MeshPart
from clipgs_plugin.generation.rendering.lights import Light, Scene

# Agreement of the two renderers, for colours in [0, 1] composited on a background.
MIN_PSNR, MAX_DIFFERENCE = 45.0, 2.5e-3
# Sides in samples of the sheet that images share, which fits into a processor's cache, and of the largest piece of an
# image that is drawn at once, on a sheet of its own.
_SHEET, _PIECE = 1024, 4096
_NEAREST = 1e-3  # near plane relative to the farthest point, for the precision of a 24-bit depth buffer

_VERTEX = """
uniform mat4 to_clip;
in vec3 position;
#ifdef TEXTURED
in vec2 uv;
out vec2 texel_uv;
#endif
#ifdef COLORED
in vec4 color;
out vec4 corner_color;
#endif
#ifdef LIT
in vec4 normal;
out vec4 facing;
#endif
void main() {
    gl_Position = to_clip * vec4(position, 1.0);
#ifdef TEXTURED
    texel_uv = vec2(uv.x, 1.0 - uv.y);  // the first row of a texture is at v = 1
#endif
#ifdef COLORED
    corner_color = color;
#endif
#ifdef LIT
    facing = normal;
#endif
}
"""
_FRAGMENT = """
uniform vec3 base;
#ifdef TEXTURED
uniform sampler2D texels;
in vec2 texel_uv;
#endif
#ifdef COLORED
in vec4 corner_color;
#endif
#ifdef LIT
uniform vec3 to_light;
uniform float ambient;
in vec4 facing;
#endif
out vec4 sample_color;
void main() {
    vec3 shown = base;
#ifdef TEXTURED
    shown *= texture(texels, texel_uv).rgb;
#endif
#ifdef COLORED
    shown *= corner_color.rgb;
#endif
    shown = clamp(shown, 0.0, 1.0);
#ifdef LIT
    float lit = dot(facing.xyz, to_light) / max(length(facing.xyz), 1e-12);
    lit = (facing.w < 0.0) == gl_FrontFacing ? -lit : lit;
    shown *= ambient + (1.0 - ambient) * max(lit, 0.0);
#endif
    sample_color = vec4(shown, 1.0);
}
"""
_COVER = """
void main() {
    gl_Position = vec4(4.0 * float(gl_VertexID == 1) - 1.0, 4.0 * float(gl_VertexID == 2) - 1.0, 0.0, 1.0);
}
"""
_MEAN = """
uniform sampler2D sheet;
uniform int samples;
out vec4 pixel;
void main() {
    ivec2 first = ivec2(gl_FragCoord.xy) * samples;
    vec4 total = vec4(0.0);
    for (int y = 0; y < samples; y++)
        for (int x = 0; x < samples; x++)
            total += texelFetch(sheet, first + ivec2(x, y), 0);
    pixel = total.a > 0.0 ? vec4(total.rgb / total.a, total.a / float(samples * samples)) : vec4(0.0);
}
"""


class NoRenderer(RuntimeError):
    """This machine or process cannot render any mesh."""


def require() -> None:
    """Create the context of this process unless it exists.

    Raises:
        ImportError: moderngl is not installed.
        NoRenderer: No OpenGL 3.3 context can be created, or the process was forked from one with a context.
    """
    _in_thread(_get_renderer)


def draw(images: ndarray, scene: Scene, samples: int) -> None:
    """Render an opaque scene as :func:`~clipgs_plugin.generation.rendering.render_mesh` into ``images``; thread-safe.

    Raises:
        ImportError, NoRenderer: See :func:`require`.
        ValueError: A texture is too large for OpenGL.
    """
    _in_thread(lambda: _get_renderer().render(images, scene, samples))


# The thread and its context

_lock = threading.Lock()
_thread: ThreadPoolExecutor | None = None
_process: int | None = None  # id of the process that started the thread
_renderer: _Renderer | None = None


def _in_thread(work: Callable) -> object:
    """Run in the thread that owns the context."""
    global _thread, _process
    with _lock:
        if _thread is None:
            _thread, _process = ThreadPoolExecutor(1, 'egl'), os.getpid()
        elif _process != os.getpid():
            # A fork does not copy Mesa's threads, and waiting for them would never end.
            raise NoRenderer('this process was forked from one that had already used EGL, and cannot use its context; '
                             "start it with multiprocessing's 'spawn', or use renderer='raycast'")
        thread = _thread
    return thread.submit(work).result()


def _get_renderer() -> _Renderer:
    """Return the renderer of this process; call it only in its thread."""
    global _renderer
    if _renderer is None:
        _renderer = _Renderer()
    return _renderer


@contextmanager
def _environment() -> Iterator[None]:
    """Set the variables that Mesa reads once, when the first context is created; the user's own values stay."""
    # By default llvmpipe uses every core, in each worker process, so it gets the threads of torch instead. 0 makes it
    # work in the calling thread; 1 would add a thread. The images are the same.
    threads = torch.get_num_threads()
    wanted = dict(LP_NUM_THREADS='0' if threads == 1 else str(threads), EGL_LOG_LEVEL='fatal')
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _load_triton() -> None:
    """Import triton, if installed, before Mesa loads its LLVM, to whose symbols triton would otherwise bind.

    A later import, which torchvision and so every teacher makes, would crash the process.
    """
    with suppress(ImportError):
        import triton  # noqa: F401


class _Sheet(NamedTuple):
    """Layout of the samples of many images on one texture, in tiles from the left and the top."""

    tile: tuple[int, int]                    # width and height in pixels
    columns: int
    rows: int
    places: list[tuple[int, int, int]]       # image, first row and first column of each tile

    @classmethod
    def of(cls, shape: tuple[int, int, int], samples: int, piece: int) -> _Sheet:
        """Lay out images of a shape (V, H, W), cut into pieces of at most ``piece`` samples."""
        views, height, width = shape
        largest = max(1, piece // samples)
        tile = min(width, largest), min(height, largest)
        places = [(view, top, left) for view in range(views)
                  for top in range(0, height, tile[1]) for left in range(0, width, tile[0])]
        columns = min(len(places), max(1, _SHEET // (samples * tile[0])))
        rows = min(-(-len(places) // columns), max(1, _SHEET // (samples * tile[1])))
        return cls(tile, columns, rows, places)

    def size(self, scale: int) -> tuple[int, int]:
        """Width and height at ``scale`` samples along a side of a pixel."""
        return self.columns * self.tile[0] * scale, self.rows * self.tile[1] * scale


class _Drawable(NamedTuple):
    """A part of a mesh in OpenGL's memory."""

    corners: Any                             # moderngl.VertexArray
    program: Any                             # moderngl.Program
    texture: Any                             # moderngl.Texture or None
    base: tuple[float, ...]                  # (3,)


class _Renderer:
    """A context with its programs."""

    def __init__(self) -> None:
        try:
            import moderngl
        except ImportError as error:
            raise ImportError('rendering by EGL needs moderngl, of the extra triplets; pip install moderngl') from error
        _load_triton()
        try:
            with _environment():
                self.context = moderngl.create_context(require=330, standalone=True, backend='egl')
        except Exception as error:  # glcontext raises no narrower class
            raise NoRenderer(
                f'no OpenGL 3.3 context could be created through EGL ({error}); it needs libEGL and libGL with a '
                'driver, on Debian and Ubuntu apt install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri; '
                "GLCONTEXT_DEVICE_INDEX chooses between several devices; or use renderer='raycast'") from error
        self.gl = moderngl
        self.context.gc_mode = 'context_gc'  # objects are released by gc(), in this thread
        info = self.context.info
        self.largest = min(info['GL_MAX_TEXTURE_SIZE'], *info['GL_MAX_VIEWPORT_DIMS'])
        self.programs = {}
        self.mean = self.context.program('#version 330' + _COVER, '#version 330' + _MEAN)
        self.cover = self.context.vertex_array(self.mean, [])

    def render(self, images: ndarray, scene: Scene, samples: int) -> None:
        """Render into ``images`` and release all OpenGL objects of the scene."""
        try:
            self._render(images, scene, samples)
        finally:
            self.context.gc()

    def _render(self, images: ndarray, scene: Scene, samples: int) -> None:
        mesh, light = scene.mesh, scene.light
        parts = [self._upload(part, light) for part in mesh.parts if len(part.triangles)]
        corners = np.concatenate([part.triangles.reshape(-1, 3) for part in mesh.parts])
        bounds = np.stack([corners.min(0), corners.max(0)]).astype(np.float64)
        layout = _Sheet.of(images.shape[:3], samples, min(_PIECE, self.largest))
        width, height = layout.tile
        sheet, means = (self.context.texture(layout.size(scale), 4, dtype=dtype)
                        for scale, dtype in ((samples, 'f1'), (1, 'f4')))
        drawn = self.context.framebuffer([sheet], self.context.depth_renderbuffer(sheet.size))
        reduced = self.context.framebuffer([means])
        each = layout.columns * layout.rows
        for start in range(0, len(layout.places), each):
            places = layout.places[start:start + each]
            drawn.use()
            drawn.clear()
            self.context.enable_only(self.gl.DEPTH_TEST)
            for index, (view, top, left) in enumerate(places):
                row, column = divmod(index, layout.columns)
                drawn.viewport = tuple(samples * n for n in (column * width, row * height, width, height))
                # Move the principal point relative to the tile's corner.
                intrinsic = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]) @ scene.intrinsics[view]
                self._draw(parts, scene.viewmats[view], intrinsic, layout.tile, bounds, light)
            reduced.use()
            self.context.enable_only(self.gl.NOTHING)
            sheet.use(0)
            self.mean['samples'] = samples
            self.cover.render(vertices=3)
            pixels = np.frombuffer(reduced.read(components=4, dtype='f4'), np.float32)
            pixels = pixels.reshape(layout.rows, height, layout.columns, width, 4)
            for index, (view, top, left) in enumerate(places):
                row, column = divmod(index, layout.columns)
                image = images[view, top:top + height, left:left + width]
                image[:] = pixels[row, :image.shape[0], column, :image.shape[1]]

    def _upload(self, part: MeshPart, light: Light | None) -> _Drawable:
        channels = {'position': part.triangles}
        if part.texture is not None:
            channels['uv'] = part.uv
        if part.colors is not None:
            channels['color'] = part.colors
        if light is not None:
            edges = part.triangles[:, 1:].astype(np.float64) - part.triangles[:, :1]
            # The sign is the side of the triangle to which the interpolated normal points.
            side = np.einsum('fkc,fc->fk', part.normals, unit_vectors(np.cross(edges[:, 0], edges[:, 1])))
            channels['normal'] = np.concatenate([part.normals, side[..., None]], axis=2)
        names = tuple(channels)
        if names not in self.programs:
            defined = {'uv': 'TEXTURED', 'color': 'COLORED', 'normal': 'LIT'}
            head = '#version 330\n' + ''.join(f'#define {defined[name]}\n' for name in names[1:])
            self.programs[names] = self.context.program(head + _VERTEX, head + _FRAGMENT)
        # concatenate may return an array in another memory order than C.
        data = np.ascontiguousarray(np.concatenate(list(channels.values()), axis=2, dtype=np.float32,
                                                   casting='same_kind'))
        layout = ' '.join(f'{values.shape[2]}f' for values in channels.values())
        corners = self.context.vertex_array(self.programs[names], [(self.context.buffer(data), layout, *names)])
        texture = None if part.texture is None else self._texture(part.texture)
        return _Drawable(corners, self.programs[names], texture, tuple(part.base_color[:3].tolist()))

    def _texture(self, texture: ndarray):
        height, width = texture.shape[:2]
        if max(width, height) > self.largest:
            raise ValueError(f'a texture of {width} x {height} texels exceeds the {self.largest} of this OpenGL; '
                             "reduce it, or use renderer='raycast'")
        texels = self.context.texture((width, height), 4, np.ascontiguousarray(texture))
        texels.filter = self.gl.LINEAR, self.gl.LINEAR
        texels.repeat_x = texels.repeat_y = True
        return texels

    def _draw(self, parts: list[_Drawable], viewmat: ndarray, intrinsic: ndarray, size: tuple[int, int],
              bounds: ndarray, light: Light | None) -> None:
        """Draw a mesh into the viewport, which shows ``size`` pixels."""
        to_clip = _to_clip(intrinsic @ viewmat[:3], size, bounds)
        if to_clip is None:
            return
        # Rows of images go down and those of OpenGL up, which reverses the orientation of triangles.
        self.context.front_face = 'cw' if np.linalg.det(intrinsic @ viewmat[:3, :3]) > 0 else 'ccw'
        for part in parts:
            part.program['to_clip'].write(to_clip.T.astype(np.float32).tobytes())
            part.program['base'] = part.base
            if light is not None:
                part.program['ambient'] = light.ambient
                part.program['to_light'] = tuple(viewmat[:3, :3].T @ light.towards)
            if part.texture is not None:
                part.texture.use(0)
            part.corners.render()


def _to_clip(to_pixels: ndarray, size: tuple[int, int], bounds: ndarray) -> ndarray | None:
    """Return the matrix (4, 4) from the world to OpenGL's clip space; None if the mesh is behind the camera.

    ``to_pixels`` (3, 4) maps the world to homogeneous pixels, ``bounds`` (2, 3) are the limits of the mesh. The first
    row of the image is at y = -1, which OpenGL reads first.
    """
    corners = np.array(list(itertools.product(*bounds.T)))
    depth = corners @ to_pixels[2, :3] + to_pixels[2, 3]
    far = 1.01 * depth.max()
    if far <= 0:
        return None
    near = max(0.99 * depth.min(), _NEAREST * far)
    width, height = size
    x, y, z = to_pixels
    depth_row = (far + near) / (far - near) * z - np.array([0, 0, 0, 2 * far * near / (far - near)])
    return np.stack([2 / width * x - z, 2 / height * y - z, depth_row, z])
