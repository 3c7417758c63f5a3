"""Settings are checked before a run begins."""
import pytest

from clipgs_plugin.generation import Execution, GenerationSettings
from clipgs_plugin.generation.sources import MeshSource, PointSource, SplatSource


@pytest.mark.parametrize('wrong', [
    dict(light='sfot'), dict(renderer='cycles'), dict(dtype='float8'), dict(device='mps'), dict(samples=0),
    dict(objects_per_shard=0), dict(max_gaussians=0), dict(webp_quality=101), dict(webp_quality=-1)])
def test_values_out_of_range_are_named(wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f'{name}={value!r}: expected '):
        GenerationSettings(**wrong)


@pytest.mark.parametrize('wrong', [
    dict(workers=-1), dict(executor='spark'), dict(batch_size=0), dict(time_limit=-1), dict(num_shards=0),
    dict(shard_index=2, num_shards=2), dict(shard_index=-1)])
def test_execution_out_of_range_is_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f'{name}={value!r}: expected '):
        Execution(**wrong)


def test_none_lifts_limits_and_stores_losslessly():
    assert Execution(batch_size=None, time_limit=None) == Execution(time_limit=None)
    settings = GenerationSettings(max_gaussians=None, webp_quality=None, device='cuda:1')
    assert settings.device_type == 'cuda'


def test_settings_come_from_a_config():
    settings = GenerationSettings.from_config(dict(
        source=dict(type='MeshSource'), views=dict(size=32, background=[0, 0, 0]),
        fit=dict(preset='draft', sh_degree=1), captions=dict(limit=2, ranker=dict(type='CaptionRanker', teacher='a')),
        mesh=dict(light='soft', renderer='egl'), storage=dict(dtype='float32'), seed=3, device='cuda'))
    assert (settings.views.size, settings.views.background, settings.light) == (32, (0.0, 0.0, 0.0), 'soft')
    assert (settings.fit.num_gaussians, settings.fit.sh_degree) == (2000, 1)
    assert (settings.renderer, settings.device, settings.captions.limit) == ('egl', 'cuda', 2)
    assert settings.ranker == dict(type='CaptionRanker', teacher='a') and settings.captioner is None
    assert (settings.dtype, settings.webp_quality, settings.seed) == ('float32', 90, 3)


@pytest.mark.parametrize('part', ['views', 'fit', 'mesh', 'splats', 'storage'])
def test_an_unknown_setting_is_named(part):
    with pytest.raises(ValueError, match=f"{part} has no setting 'sise'; it takes"):
        GenerationSettings.from_config({part: dict(sise=3)})
    with pytest.raises(ValueError, match="generation has no setting 'veiws'"):
        GenerationSettings.from_config(dict(veiws=dict()))


@pytest.mark.parametrize('source', [MeshSource, PointSource, SplatSource])
def test_an_unknown_axis_is_refused(source):
    with pytest.raises(ValueError, match="up='q': expected one of"):
        source(up='q')


@pytest.mark.parametrize('config, message', [
    (dict(views=3), 'views=3: expected a dict of settings'), (dict(fit=[1]), r'fit=\[1\]: expected a dict'),
    (dict(fit=dict(preset=[])), r'fit\.preset=\[\]: expected one of'), ([], r'generation=\[\]: expected a dict'),
    (dict(views=dict(size='64')), "size='64': expected an integer"), (dict(seed=1.5), 'seed=1.5: expected an integer'),
    (dict(views=dict(background=1)), 'background=1: expected three numbers'),
    (dict(views=dict(background=['white'] * 3)), 'background=.*: expected three numbers'),
    (dict(fit=dict(iterations=None)), 'iterations=None: expected an integer'),
    (dict(fit=dict(decay='fast')), "decay='fast': expected a number"), (dict(device=0), 'device=0: expected a string'),
    (dict(fit=dict(num_gaussians=True)), 'num_gaussians=True: expected an integer'),
    (dict(storage=dict(webp_quality='best')), "webp_quality='best': expected an integer or None"),
    (dict(captions=dict(sources='name')), "captions: sources='name': expected a list of strings"),
    (dict(captions=dict(templates=[3])), r'captions: templates=\[3\]: expected a list of strings'),
    (dict(captions=dict(limit='2')), "limit='2': expected an integer or None"),
    (dict(mesh=dict(samples=[2])), r'samples=\[2\]: expected an integer'), ({3: 4}, "generation has no setting '3'")])
def test_settings_of_wrong_types_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        GenerationSettings.from_config(config)
    with pytest.raises(ValueError, match="workers='2': expected an integer"):
        Execution(workers='2')
