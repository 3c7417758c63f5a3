import ctypes
import ctypes.util
import hashlib
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import run_python

from clipgs_plugin import ops
from clipgs_plugin.generation.objects import Listed, Mesh, MeshPart, composite
from clipgs_plugin.generation.rendering import NoRenderer, ViewRule, choose_renderer, egl, render_mesh
from clipgs_plugin.generation.rendering.surfaces import normalised, turned
from clipgs_plugin.generation.sources.mesh import MeshSource

WHITE = (1.0, 1.0, 1.0, 1.0)


@pytest.fixture
def drawn():
    """Skip the test unless both renderers are available."""
    for name in ('egl', 'raycast'):
        try:
            choose_renderer(name)
        except (ImportError, RuntimeError) as error:
            pytest.skip(str(error))


@pytest.fixture
def fresh(monkeypatch):
    """State of a process without a context."""
    for name in ('_thread', '_process', '_renderer'):
        monkeypatch.setattr(egl, name, None)


def ball(rings: int = 12, center=(0.0, 0.0, 0.0), radius: float = 0.8, base=WHITE, **look) -> MeshPart:
    """A dented ball with smooth normals; values of ``look`` may be functions of its uv (F, 3, 2)."""
    across, down = np.meshgrid(np.linspace(0, 1, 2 * rings + 1), np.linspace(0, 1, rings + 1))
    uv = np.stack([across, 1 - down], -1)
    azimuth, polar = 2 * math.pi * across, math.pi * down
    unit = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1)
    points = unit * radius * (1 + 0.2 * np.sin(3 * azimuth)[..., None] * np.sin(polar)[..., None]) + center

    def triangles(grid):
        a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
        return np.concatenate([np.stack([a, b, c], 2), np.stack([a, c, d], 2)]).reshape(-1, 3, grid.shape[-1])

    corners, normals, uv = (triangles(grid).astype(np.float32) for grid in (points, unit, uv))
    kept = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) > 1e-7
    look = {name: value(uv[kept]) if callable(value) else value for name, value in look.items()}
    return MeshPart(corners[kept], normals[kept], np.asarray(base, np.float32), **look)


def colors(uv):
    return np.concatenate([uv, 0.5 + 0.5 * np.cos(9 * uv[..., :1]), np.ones_like(uv[..., :1])], -1).astype(np.float32)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    texels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    texels[..., 3] = 255
    return texels


MESHES = {
    'texture': lambda: Mesh((ball(uv=lambda uv: uv, texture=texture(37, 60)),)),
    'repeated texture': lambda: Mesh((ball(uv=lambda uv: 3 * uv - 1.3, texture=texture(16, 9)),)),
    'fine texture': lambda: Mesh((ball(uv=lambda uv: uv, texture=texture(512, 1024)),)),
    'vertex colours': lambda: Mesh((ball(colors=colors),)),
    'base colour': lambda: Mesh((ball(base=(0.9, 0.5, 0.1, 1.0)),)),
    'several parts': lambda: Mesh((
        ball(center=(-0.4, 0.1, 0.2), radius=0.45, uv=lambda uv: uv, texture=texture(8, 8, 1)),
        ball(center=(0.3, -0.2, 0.0), radius=0.6, colors=colors, base=(0.7, 1.0, 0.8, 1.0)),
        ball(center=(0.2, 0.5, 0.3), radius=0.3, uv=lambda uv: uv, texture=texture(8, 8, 2), colors=colors),
        ball(center=(0.0, 0.0, -0.6), radius=0.3))),
    'columns first in memory': lambda: Mesh((MeshPart(*map(np.asfortranarray, ball()[:3])),)),
    # Normals that point inward, some of them only at single corners.
    'odd normals': lambda: Mesh((_odd(ball()),)),
}


def _odd(part: MeshPart) -> MeshPart:
    signs = np.random.default_rng(4).choice([-1.0, 1.0], part.normals.shape[:2] + (1,)).astype(np.float32)
    return part._replace(normals=part.normals * signs, triangles=part.triangles[:, ::-1])


def cameras() -> np.ndarray:
    return ops.sphere_cameras(6, 2.7).numpy()


# Off the centre, different focal lengths, wide images that cut the mesh.
INTRINSICS = np.array([[88.0, 0.0, 33.3], [0.0, 95.0, 27.1], [0.0, 0.0, 1.0]])


def both(mesh: Mesh, viewmats, intrinsics, width: int, height: int, samples: int = 3, light: str = 'none'):
    return [render_mesh(mesh, viewmats, intrinsics, width, height, samples, light, renderer=name)
            for name in ('egl', 'raycast')]


def check_same(first: np.ndarray, second: np.ndarray) -> None:
    """Check the stated tolerance on white and on black."""
    for background in ((1, 1, 1), (0, 0, 0)):
        difference = (composite(first, background) - composite(second, background)).astype(np.float64)
        assert np.abs(difference).mean((1, 2, 3)).max() <= egl.MAX_DIFFERENCE
        assert (-10 * np.log10((difference ** 2).mean((1, 2, 3)) + 1e-30)).min() >= egl.MIN_PSNR
    assert np.abs(first[..., 3] - second[..., 3]).mean() < 2e-4


# Agreement with the ray caster

@pytest.mark.parametrize('light', ['none', 'soft'])
@pytest.mark.parametrize('kind', MESHES)
def test_every_kind_of_mesh_agrees_with_the_ray_caster(drawn, kind, light):
    found, expected = both(MESHES[kind](), cameras(), INTRINSICS, 80, 56, light=light)
    assert 0.2 < (expected[..., 3] > 0).mean() < 0.95 and found.dtype == np.float32
    check_same(found, expected)
    assert (found[found[..., 3] == 0] == 0).all()


def test_scanned_objects_agree_with_the_ray_caster(data):
    if choose_renderer('auto') != 'egl':
        return  # other tests skip without EGL; tests on real data must not
    rule = ViewRule(num_views=4, size=64)
    for name in ('Lactoferrin', 'TABLEWARE_SET'):
        mesh = MeshSource(up='z').load(Listed('x', data / 'gso' / name / 'model_0.obj'))
        mesh, _, _ = normalised(turned(mesh, 'z'))
        check_same(*both(mesh, rule.train_cameras(), rule.intrinsics(), 64, 64, light='soft'))


def test_mirrored_images_and_individual_intrinsics_are_lit_from_the_same_side(drawn):
    intrinsics = np.stack([INTRINSICS] * 6) * np.linspace(0.6, 1, 6)[:, None, None]
    intrinsics[:, 2] = 0, 0, 1
    intrinsics[::2, 1, 1] *= -1  # y up
    intrinsics[1, 0, 1] = 12     # skewed
    check_same(*both(MESHES['texture'](), cameras(), intrinsics, 80, 56, light='soft'))


def test_a_camera_inside_sees_the_mesh_and_a_camera_that_looks_away_sees_nothing(drawn):
    mesh = Mesh((ball(colors=colors, radius=3.0),))
    check_same(*both(mesh, cameras()[:2], INTRINSICS, 80, 56, light='soft'))
    away = np.diag([-1.0, 1, -1, 1]) @ ops.look_at([[0.0, 0.0, 9.0]]).numpy()[0]
    assert not render_mesh(mesh, away[None], INTRINSICS, 80, 56, renderer='egl').any()


@pytest.mark.parametrize('width, height, samples', [(6000, 4, 3), (4, 6000, 3), (37, 23, 1), (9, 7, 8)])
def test_images_of_odd_sizes_and_larger_than_the_limit_of_opengl(drawn, width, height, samples):
    intrinsics = np.array([[0.6 * width, 0, 0.5 * width], [0, 0.6 * height, 0.45 * height], [0, 0, 1]])
    check_same(*both(MESHES['several parts'](), cameras()[:2], intrinsics, width, height, samples))


def test_sheets_and_pieces_of_any_size_give_the_same_image(drawn, monkeypatch):
    mesh, expected = MESHES['several parts'](), None
    for sheet, piece in [(4096, 4096), (100, 4096), (300, 90), (1, 50)]:
        monkeypatch.setattr(egl, '_SHEET', sheet)
        monkeypatch.setattr(egl, '_PIECE', piece)
        found = render_mesh(mesh, cameras(), INTRINSICS, 80, 56, renderer='egl')
        expected = found if expected is None else expected
        check_same(found, expected)


@pytest.mark.parametrize('where', ['base', 'colors', 'texture'])
def test_a_transparent_mesh_is_rendered_by_the_ray_caster(drawn, where, monkeypatch):
    part = MESHES['several parts']().parts[2]
    if where == 'base':
        part = part._replace(base_color=np.array([1, 1, 1, 0.5], np.float32))
    else:
        values = getattr(part, where).copy()
        values[0, 0, 3] //= 2
        part = part._replace(**{where: values})
    found, expected = both(Mesh((ball(radius=0.3), part)), cameras(), INTRINSICS, 80, 56)
    assert found.tobytes() == expected.tobytes()
    monkeypatch.setitem(sys.modules, 'embreex.mesh_construction', None)
    with pytest.raises(ImportError, match='embreex, of the extra triplets; pip install embreex'):
        render_mesh(Mesh((part,)), cameras(), INTRINSICS, 80, 56, renderer='egl')


# Determinism, threads, processes and memory

def digest(mesh: Mesh) -> str:
    return hashlib.sha256(render_mesh(mesh, cameras(), INTRINSICS, 80, 56, light='soft', renderer='egl')).hexdigest()


def test_the_same_mesh_gives_the_same_bytes_after_any_other(drawn):
    meshes = [make() for make in MESHES.values()]
    first = [digest(mesh) for mesh in meshes]
    render_mesh(meshes[0], cameras(), INTRINSICS, 200, 100, samples=1, renderer='egl')
    assert [digest(mesh) for mesh in reversed(meshes)] == first[::-1]


def test_several_threads_may_render(drawn):
    meshes = [make() for make in MESHES.values()] * 3
    expected = [digest(mesh) for mesh in meshes]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(digest, meshes)) == expected


def test_the_opengl_objects_of_a_mesh_are_released(drawn):
    library = ctypes.CDLL(ctypes.util.find_library('GL'))

    def alive() -> list[int]:
        kinds = library.glIsTexture, library.glIsBuffer, library.glIsFramebuffer, library.glIsVertexArray
        return [sum(exists(name) & 255 for name in range(1, 3000)) for exists in kinds]  # GLboolean is one byte

    mesh = MESHES['several parts']()
    digest(mesh)
    before = egl._in_thread(alive)
    for _ in range(30):
        digest(mesh)
    broken = Mesh((mesh.parts[0]._replace(texture=np.zeros((1, 10 ** 6, 4), np.uint8) + 255),))
    with pytest.raises(ValueError, match=r'1000000 x 1 texels.*raycast'):
        digest(broken)
    digest(mesh)
    assert egl._in_thread(alive) == before and not egl._renderer.context.objects


_ELSEWHERE = """
import os, signal, sys
sys.path.insert(0, {here!r})
import test_egl
from clipgs_plugin.generation.rendering import choose_renderer
print(test_egl.digest(test_egl.MESHES['several parts']()), flush=True)
child = os.fork()
if child == 0:
    signal.alarm(20)
    try:
        choose_renderer('egl')
    except test_egl.NoRenderer as error:
        print('spawn' in str(error), choose_renderer('auto'), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(test_egl.digest(test_egl.MESHES['several parts']()))
"""


def test_another_process_renders_the_same_and_a_forked_one_raises(drawn, root):
    # With Mesa threads, for which a forked process would wait forever.
    environment = {**os.environ, 'LP_NUM_THREADS': '2', 'PYTHONPATH': os.pathsep.join(map(str, [root, root / 'tests']))}
    code = _ELSEWHERE.format(here=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, timeout=120)
    expected = digest(MESHES['several parts']())
    assert done.stdout.split('\n') == [expected, 'True raycast', expected, ''], done.stderr
    assert not done.stderr


def test_a_teacher_can_be_loaded_after_rendering(drawn, root):
    # open_clip imports torchvision, which imports triton, whose LLVM conflicts with Mesa's in the wrong order.
    code = ("from clipgs_plugin.generation.rendering import choose_renderer; print(choose_renderer('auto')); "
            "import open_clip; print('alive')")
    assert run_python(code, PYTHONPATH=str(root)).split() == ['egl', 'alive']


def test_mesa_gets_the_threads_of_torch_unless_the_user_sets_its_own(monkeypatch):
    monkeypatch.delenv('LP_NUM_THREADS', raising=False)
    for threads, expected in [(1, '0'), (3, '3')]:
        monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)  # noqa: B023
        with egl._environment():
            assert os.environ['LP_NUM_THREADS'] == expected
        assert 'LP_NUM_THREADS' not in os.environ
    monkeypatch.setenv('LP_NUM_THREADS', '7')
    with egl._environment():
        assert os.environ['LP_NUM_THREADS'] == '7'
    assert os.environ['LP_NUM_THREADS'] == '7'


# Choice of the renderer

def test_auto_is_egl_if_available(drawn):
    assert choose_renderer() == choose_renderer('auto') == choose_renderer('egl') == 'egl'
    assert choose_renderer('raycast') == 'raycast'


def test_without_moderngl_the_extra_is_named_and_auto_is_raycast(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, 'moderngl', None)
    with pytest.raises(ImportError, match='moderngl, of the extra triplets; pip install moderngl'):
        choose_renderer('egl')
    pytest.importorskip('embreex')
    assert choose_renderer('auto') == 'raycast'


@pytest.mark.parametrize('error', [Exception('libEGL not loaded'),
                                   ValueError('Requested OpenGL version 330, got version 210')])
def test_without_a_context_the_reason_and_the_packages_are_named_and_auto_is_raycast(fresh, monkeypatch, error):
    def fail(**_):
        raise error

    monkeypatch.setattr(pytest.importorskip('moderngl'), 'create_context', fail)
    with pytest.raises(NoRenderer, match=rf'{error}.*apt install libegl1 libegl-mesa0 .*raycast'):
        choose_renderer('egl')
    pytest.importorskip('embreex')
    assert choose_renderer('auto') == 'raycast'
    assert render_mesh(Mesh((ball(),)), cameras(), INTRINSICS, 80, 56, samples=1, renderer='auto').any()


def test_with_neither_package_both_requests_fail(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, 'moderngl', None)
    monkeypatch.setitem(sys.modules, 'embreex.mesh_construction', None)
    for name in ('raycast', 'auto'):
        with pytest.raises(ImportError, match='embreex, of the extra triplets; pip install embreex'):
            choose_renderer(name)


def test_unknown_renderers_are_refused():
    with pytest.raises(ValueError, match=r"renderer='vulkan'.*'auto', 'egl', 'raycast'"):
        choose_renderer('vulkan')
    with pytest.raises(ValueError, match="renderer='vulkan'"):
        render_mesh(Mesh((ball(),)), cameras(), INTRINSICS, 8, 6, renderer='vulkan')
