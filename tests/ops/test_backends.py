"""Choice of a backend by name and device, and errors for missing packages."""
from importlib.util import find_spec

import pytest
import torch

from clipgs_plugin import ops
from clipgs_plugin.ops import backends

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


def without(monkeypatch, *packages: str) -> None:
    """Pretend that packages are not installed, and all others are."""
    monkeypatch.setattr(backends, '_installed', lambda package: package not in packages)


@pytest.mark.parametrize('op', ['fps', 'knn', 'ball_query', 'render'])
def test_every_backend_has_a_module(op):
    for backend in backends._BACKENDS[op].values():
        assert find_spec(f'clipgs_plugin.ops.kernels.{backend.module}')


def test_a_package_is_installed_if_it_can_be_imported():
    assert backends._installed('torch') and not backends._installed('no_such_package')


def test_available_backends_are_the_installed_ones(monkeypatch):
    without(monkeypatch, 'numba', 'gsplat')
    assert ops.available_backends('knn') == ['reference', 'pytorch3d']
    assert ops.available_backends('ball_query') == ['reference', 'pytorch3d']
    assert ops.available_backends('render') == ['reference']
    with pytest.raises(ValueError, match="op='raster'"):
        ops.available_backends('raster')


@pytest.mark.parametrize(('op', 'device', 'module'), [
    ('fps', CPU, 'points_numba'), ('fps', CUDA, 'points_reference'), ('knn', CPU, 'points_numba'),
    ('ball_query', CPU, 'points_reference'),
    ('render', CPU, 'raster_numba'), ('render', CUDA, 'raster_gsplat'),
    ('render', torch.device('meta'), 'raster_reference')])
def test_auto_depends_on_the_device(monkeypatch, op, device, module):
    without(monkeypatch)
    assert backends.load_backend(op, 'auto', device).__name__.endswith(module)


def test_without_numba_points_fall_back_and_rendering_raises(monkeypatch):
    without(monkeypatch, 'numba')
    assert backends.load_backend('fps', 'auto', CPU).__name__.endswith('points_reference')
    with pytest.raises(ModuleNotFoundError, match='needs the package numba: pip install numba'):
        backends.load_backend('render', 'auto', CPU)


@pytest.mark.parametrize(('op', 'name', 'device', 'message'), [
    ('render', 'auto', CUDA, 'needs the package gsplat: pip install gsplat'),
    ('render', 'gsplat', CUDA, 'needs the package gsplat'),
    ('knn', 'pytorch3d', CPU, 'needs the package pytorch3d: pip install "git')])
def test_missing_packages_are_named_with_their_install_commands(monkeypatch, op, name, device, message):
    without(monkeypatch, 'gsplat', 'pytorch3d')
    with pytest.raises(ModuleNotFoundError, match=message):
        backends.load_backend(op, name, device)


@pytest.mark.parametrize(('op', 'name', 'device', 'message'), [
    ('fps', 'gsplat', CPU, "backend='gsplat': expected 'auto' or one of .* for fps"),
    ('fps', 'cpu', CUDA, "backend='cpu' of fps works on cpu, got tensors on cuda"),
    ('render', 'gsplat', CPU, r"works on cuda, got tensors on cpu; move them with .to\('cuda'\)")])
def test_backends_that_do_not_fit_raise(op, name, device, message):
    with pytest.raises(ValueError, match=message):
        backends.load_backend(op, name, device)
