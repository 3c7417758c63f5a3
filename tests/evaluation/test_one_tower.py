import torch

from clipgs_plugin.evaluation.one_tower import build_tower
from clipgs_plugin.models import OpenCLIPTeacher
from clipgs_plugin.registry import MODELS

CONFIG = dict(type='clipgs_plugin.OpenCLIPTeacher', model='toy-clip')


@MODELS.register_module()
class TowerOfAnotherType(torch.nn.Module):
    """A teacher without the argument ``towers``."""


def test_one_tower_is_built_unless_the_config_says_otherwise():
    text = build_tower(CONFIG, 'text', 'cpu')
    assert text.towers == 'text' and torch.equal(text.encode_text(['a cup']),
                                                 OpenCLIPTeacher('toy-clip').encode_text(['a cup']))
    assert build_tower({**CONFIG, 'towers': 'both'}, 'image', 'cpu').towers == 'both'
    assert build_tower(text, 'image', 'cpu') is text
    assert CONFIG.keys() == {'type', 'model'}


def test_other_teachers_are_built_as_they_stand():
    assert isinstance(build_tower(dict(type='TowerOfAnotherType'), 'text', 'cpu'), TowerOfAnotherType)
