"""Shared fixtures: real data, small clouds and processes.

A test of real data may not skip while the data is present, and every test starts from the same random seed.
"""
import ctypes
import functools
import multiprocessing
import os
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import mmengine.config.config as mmengine_config
import pytest
import torch
import yapf.yapflib.yapf_api as yapf_api
from mmengine.registry import DefaultScope

from clipgs_plugin import GaussianCloud, ops

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get('CLIPGS_TEST_DATA', ROOT.parent / 'shared' / 'data'))


def pytest_configure():
    if 'CLIPGS_TEST_DATA' in os.environ and not DATA.is_dir():
        raise pytest.UsageError(f'CLIPGS_TEST_DATA names {DATA}, which is not a folder; correct it or unset it')


@pytest.fixture(scope='session')
def root() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope='session')
def data(request) -> Path:
    """Folder of real files; tests that use it skip if it is absent."""
    if not DATA.is_dir():
        pytest.skip(f'real data not found at {DATA}; set CLIPGS_TEST_DATA')
    return DATA


@pytest.fixture(scope='session')
def splats(data) -> Path:
    """Folder of real splat files."""
    return data / 'splats'


@pytest.fixture(scope='session', autouse=True)
def configs_are_formatted_once():
    """Format each text of a config once; mmengine formats it for every checkpoint, which outlasts a toy's training."""
    # onedl-mmengine imports yapf only when it formats.
    owner = mmengine_config if hasattr(mmengine_config, 'FormatCode') else yapf_api
    format_code, formatted = owner.FormatCode, {}

    @functools.wraps(format_code)
    def format_once(text, *args, **kwargs):
        if text not in formatted:
            formatted[text] = format_code(text, *args, **kwargs)
        return formatted[text]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, 'FormatCode', format_once)
        yield


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def default_scope():
    """Forget the scopes that runners of a test leave, in which later tests would look up their types."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test of real data that skips although the data is present."""
    report = yield
    if report.skipped and DATA.is_dir() and 'data' in getattr(item, 'fixturenames', ()):
        report.outcome = 'failed'
        report.longrepr = f'{item.nodeid} skipped although {DATA} has the real data: {report.longrepr}'
    return report


def random_cloud(n: int, seed: int = 0, sh_degree: int = 0, dtype: torch.dtype = torch.float32) -> GaussianCloud:
    """Return Gaussians near a sphere's surface with random attributes."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype)  # noqa: E731
    means = torch.nn.functional.normalize(draw(n, 3), dim=-1) + 0.05 * draw(n, 3)
    return GaussianCloud(means=means, quats=draw(n, 4), log_scales=draw(n, 3) * 0.4 - 3, opacity_logits=draw(n) * 2,
                         sh=draw(n, (sh_degree + 1) ** 2, 3) * 0.4)


@pytest.fixture(name='random_cloud')
def random_cloud_fixture():
    return random_cloud


def grid(side: int = 6) -> GaussianCloud:
    """Return equal Gaussians of different colours on a grid, where distances tie everywhere."""
    axis = torch.linspace(-1, 1, side)
    means = torch.cartesian_prod(axis, axis, axis)
    n = len(means)
    colours = torch.randn(n, 1, 3, generator=torch.Generator().manual_seed(3))
    return GaussianCloud(means, torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1), torch.full((n, 3), -3.0), torch.zeros(n),
                         colours)


def duplicated(cloud: GaussianCloud) -> GaussianCloud:
    """Return a cloud with every position three times and different attributes."""
    return cloud.replace(means=cloud.means[torch.arange(len(cloud)) // 3])


def relabelled(cloud: GaussianCloud) -> list[GaussianCloud]:
    """Return the same Gaussians under the 24 proper labellings of their axes, the original first."""
    clouds = []
    for permutation, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = torch.eye(3)[list(permutation)].T * torch.tensor(signs)  # column i is plus or minus axis p_i
        if torch.linalg.det(matrix) > 0:
            clouds.append(cloud.replace(quats=ops.matrix_to_quaternion(cloud.rotations @ matrix),
                                        log_scales=cloud.log_scales[:, list(permutation)]))
    return clouds


# Start methods of data loader workers that this system supports.
START_METHODS = [method for method in ('fork', 'spawn') if method in multiprocessing.get_all_start_methods()]


@pytest.fixture
def set_threads():
    """``torch.set_num_threads``, reset after the test."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


def run_python(code: str, cwd: Path | None = None, **env: str) -> str:
    """Run code in a new process, which must succeed, and return its output."""
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, env={**os.environ, **env}, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def permissions_hold():
    """Take the right to ignore the permissions of files from this thread, which root has on Linux."""
    if os.geteuid():
        yield
        return
    capabilities = ctypes.CDLL(None)
    header, held = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if capabilities.capget(header, held):
        pytest.skip('root cannot give up its rights here')
    before = held[0]
    held[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert capabilities.capset(header, held) == 0
    yield
    held[0] = before
    assert capabilities.capset(header, held) == 0
