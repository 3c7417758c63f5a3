import json

import numpy as np
import pytest
import torch

from clipgs_plugin.datasets.prompts import fill
from clipgs_plugin.evaluation import TEMPLATES, class_embeddings, load_templates


class Recorder:
    """A teacher whose text vectors are arbitrary and not unit."""

    def __init__(self):
        self.vectors = {}

    def encode_text(self, texts):
        for text in texts:
            seed = np.frombuffer(text.encode(), np.uint8).tolist()
            self.vectors[text] = np.random.default_rng(seed).standard_normal(6) * (1 + len(text))
        return torch.tensor(np.stack([self.vectors[text] for text in texts]))


def test_class_embeddings_normalise_average_normalise():
    teacher = Recorder()
    found = class_embeddings(teacher, ['owl', 'CD_player'], ['{a} {}', 'a toy {}'])
    assert set(teacher.vectors) == {'an owl', 'a toy owl', 'a CD_player', 'a toy CD_player'}
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    for row, name in zip(found, (('an owl', 'a toy owl'), ('a CD_player', 'a toy CD_player'))):
        expected = unit(sum(unit(teacher.vectors[prompt]) for prompt in name))
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert found.dtype == torch.float32


def test_class_embeddings_load_templates_by_name():
    teacher = Recorder()
    class_embeddings(teacher, ['owl'], 'toy')
    assert set(teacher.vectors) == {'an owl', 'a photo of an owl', 'a 3D model of an owl', 'a toy owl'}


def test_no_classes_are_no_classifier():
    with pytest.raises(ValueError, match='no class names'):
        class_embeddings(Recorder(), [])


@pytest.mark.parametrize('name', TEMPLATES)
def test_every_set_names_the_class(name):
    assert all('lamp' in fill(template, 'lamp') and '{' not in fill(template, 'lamp')
               for template in load_templates(name))


def test_templates_are_a_list_whatever_they_come_from():
    for templates in ('plain', ('a {}',), iter(['a {}'])):
        assert load_templates(templates) == ['a {}']


def test_templates_from_files(tmp_path):
    (tmp_path / 'list.json').write_text(json.dumps(['one {}', 'two {}']))
    (tmp_path / 'sets.json').write_text(json.dumps({'modelnet40_64': ['a point cloud model of {}.']}))
    assert load_templates(tmp_path / 'list.json') == ['one {}', 'two {}']
    assert load_templates(f'{tmp_path}/sets.json:modelnet40_64') == ['a point cloud model of {}.']
    with pytest.raises(ValueError, match='keys: modelnet40_64'):
        load_templates(f'{tmp_path}/sets.json:imagenet')
    with pytest.raises(ValueError, match='keys: modelnet40_64'):
        load_templates(tmp_path / 'sets.json')


@pytest.mark.parametrize('templates, message', [('nice', 'expected one of plain'), (['a thing'], 'has no'),
                                                ([], 'at least one')])
def test_bad_templates_are_named(templates, message):
    with pytest.raises(ValueError, match=message):
        load_templates(templates)
