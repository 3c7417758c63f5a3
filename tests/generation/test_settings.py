"""What a run is told is checked before it begins."""
import pytest

from clipgs_plugin.generation import GenerationSettings
from clipgs_plugin.generation.sources import MeshSource, PointSource, SplatSource


@pytest.mark.parametrize('wrong', [
    dict(light='sfot'), dict(renderer='cycles'), dict(dtype='float8'), dict(device='mps'), dict(samples=0),
    dict(objects_per_shard=0), dict(max_gaussians=0), dict(webp_quality=101), dict(webp_quality=-1)])
def test_values_out_of_range_are_named(wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f'{name}={value!r}: expected '):
        GenerationSettings(**wrong)


def test_no_limit_and_no_loss_are_none():
    settings = GenerationSettings(max_gaussians=None, webp_quality=None, device='cuda:1')
    assert settings.device_type == 'cuda'


@pytest.mark.parametrize('source', [MeshSource, PointSource, SplatSource])
def test_an_axis_that_is_none_is_refused(source):
    with pytest.raises(ValueError, match="up='q': expected one of"):
        source(up='q')
