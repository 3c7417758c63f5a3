import pytest

from clipgs_plugin.apis import get_config, list_configs, list_models
from clipgs_plugin.apis.configs import find_config


def test_every_shipped_config_loads_and_follows_the_naming_convention():
    names = list_configs()
    assert len(names) == len(set(names)) > 0
    for name in names:
        cfg = get_config(name)
        assert cfg.model.type == 'CLIPGS', name
        assert name == name.lower() and len(name.split('_')) >= 4, f'{name}: method_backbone[_init]_schedule_data'


def test_models_with_weights_come_first():
    assert list_models()[0] == 'clipgs_toy'


def test_a_config_is_found_by_path_too(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("model = dict(type='CLIPGS')")
    assert get_config(path).model.type == 'CLIPGS'


def test_an_unknown_name_lists_similar_ones():
    name = list_configs()[0]
    with pytest.raises(FileNotFoundError, match=name):
        find_config(name[:-2])
    with pytest.raises(FileNotFoundError, match=r'absent\.py does not exist'):
        find_config('absent.py')
