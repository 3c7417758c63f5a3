"""Fixtures: real data where it lies, small clouds, and the rule that real data cannot drop out unseen."""
import os
from pathlib import Path

import pytest
import torch

from clipgs_plugin import GaussianCloud

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get('CLIPGS_TEST_DATA', ROOT.parent / 'shared' / 'data'))


def pytest_configure():
    if 'CLIPGS_TEST_DATA' in os.environ and not DATA.is_dir():
        raise pytest.UsageError(f'CLIPGS_TEST_DATA names {DATA}, which is no folder; correct it or unset it')


@pytest.fixture(scope='session')
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope='session')
def data(request) -> Path:
    """The folder of real files; tests that take it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f'real data not found at {DATA}; set CLIPGS_TEST_DATA')
    return DATA


@pytest.fixture(scope='session')
def splats(data) -> Path:
    """The folder of real splat files."""
    return data / 'splats'


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test of real data that skips although the data lies there fails."""
    report = yield
    if report.skipped and DATA.is_dir() and 'data' in getattr(item, 'fixturenames', ()):
        report.outcome = 'failed'
        report.longrepr = f'{item.nodeid} skipped although real data lies at {DATA}: {report.longrepr}'
    return report


def random_cloud(n: int, seed: int = 0, sh_degree: int = 0, dtype: torch.dtype = torch.float32) -> GaussianCloud:
    """Gaussians around a sphere's surface with random attributes."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype)  # noqa: E731
    means = torch.nn.functional.normalize(draw(n, 3), dim=-1) + 0.05 * draw(n, 3)
    return GaussianCloud(means=means, quats=draw(n, 4), log_scales=draw(n, 3) * 0.4 - 3, opacity_logits=draw(n) * 2,
                         sh=draw(n, (sh_degree + 1) ** 2, 3) * 0.4)


@pytest.fixture(name='random_cloud')
def random_cloud_fixture():
    return random_cloud
