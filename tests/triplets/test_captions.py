import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.triplets.captions import (
    CaptionRules,
    TransformersCaptioner,
    captions_for,
    model_captions,
    name_phrase,
    phrase,
    rank_captions,
)
from clipgs_plugin.triplets.objects import Listed


@pytest.mark.parametrize('name, words', [
    ('Asus_Sabertooth_990FX_20_Motherboard_ATX_Socket_AM3', 'asus sabertooth 990fx 20 motherboard atx socket am3'),
    ('Asus_X99Deluxe_Motherboard_ATX_LGA2011v3_Socket', 'asus x99 deluxe motherboard atx lga2011v3 socket'),
    ('Chelsea_lo_fl_rdheel_nQ0LPNF1oMw', 'chelsea lo fl rdheel'),
    ('SHAPE_MATCHING_NxacpAY9jDt', 'shape matching'),
    ('LEGO_Creationary_Game_ZJa163wlWp2', 'lego creationary game'),
    ('Frozen_Olafs_In_Trouble_PopOMatic_Game', 'frozen olafs in trouble pop o matic game'),
    ('Pokémon_Omega', 'pokémon omega'),
    ('teddyBear', 'teddy bear'),
    ('bathtub_0001', 'bathtub'),
    ('night_stand', 'night stand'),
    ('chair 12', 'chair 12'),
    ('vase-3f2504e0-4f89-11d3-9a0c-0305e82c3301', 'vase'),
    ('cup.8476c4170df24cf5bbe6967222d1a42d', 'cup'),
    ('8476c4170df24cf5bbe6967222d1a42d', ''),
    ('000-023', ''),
    ('--', ''),
])
def test_names_become_phrases(name, words):
    assert phrase(name) == words


@pytest.mark.parametrize('path, words', [
    ('gso/Paint_Maker/model_0.obj', 'paint maker'), ('x/red_cup.glb', 'red cup'), ('vases/point_cloud.ply', 'vases'),
    ('scans/cup.compressed.ply', 'cup'), ('glbs/000-023/8476c4170df24cf5bbe6967222d1a42d.glb', ''),
    ('model/mesh.obj', ''), ('b/7.ply', '')])
def test_a_file_that_says_nothing_leaves_it_to_its_folder(path, words):
    assert name_phrase(Listed('u', Path(path))) == words


def test_the_name_of_a_row_comes_before_that_of_its_file():
    assert name_phrase(Listed('u', Path('train.npz'), attributes=dict(name='bathtub_0001'))) == 'bathtub'


def test_captions_come_in_order_with_their_source_and_once():
    listed = Listed('u', Path('x/Arm_Chair.glb'), category='arm_chair',
                    captions=(dict(text='A red  armchair.', source='manifest'), dict(text=' ', source='manifest'),
                              dict(text='a RED armchair.', source='manifest')),
                    attributes=dict(color='orange', year=1999, empty=''))
    assert captions_for(listed) == (
        dict(text='A red armchair.', source='manifest'), dict(text='arm chair', source='name'),
        dict(text='a 3D model of an arm chair', source='template'))
    templates = ['{a} {color} {category} of {year}', 'no {empty}', 'no {such}', '{a} {name}']
    rules = dict(sources=['template', 'category', 'name'], templates=templates)
    assert captions_for(listed, rules) == (
        dict(text='an orange arm chair of 1999', source='template'), dict(text='an arm chair', source='template'),
        dict(text='arm chair', source='category'))
    assert [c['text'] for c in captions_for(listed, CaptionRules(limit=1))] == ['A red armchair.']


@pytest.mark.parametrize('category, article', [
    ('apple', 'an'), ('UFO', 'an'), ('unicycle', 'a'), ('hourglass', 'an'), ('house', 'a'), ('one-piece', 'a'),
    ('umbrella', 'an'), ('ukulele', 'a'), ('8-ball', 'an'), ('bed', 'a')])
def test_articles(category, article):
    rules = CaptionRules(sources=('template',), templates=('{a} {category}',))
    assert captions_for(Listed('u', Path('x'), category), rules)[0]['text'].split()[0] == article


def test_an_object_of_which_nothing_is_known_still_has_a_caption():
    assert captions_for(Listed('u', Path('000/0001.glb'))) == (dict(text='a 3D object', source='template'),)


@pytest.mark.parametrize('options, error, reason', [
    (dict(sources=['names']), ValueError, 'sources names names, expected some of manifest, name'),
    (dict(sources='name'), TypeError, "sources='name': expected a list"),
    (dict(templates='{category}'), TypeError, 'templates='),
    (dict(limit=0), ValueError, 'limit=0'),
    (dict(templates=['{category']), ValueError, "template '{category'"),
    (dict(templates=['{}']), ValueError, 'has the fields'),
    (dict(templates=['{category.upper}']), ValueError, 'has the fields'),
])
def test_wrong_rules_are_refused(options, error, reason):
    with pytest.raises(error, match=reason):
        CaptionRules(**options)


class Teacher:
    """Vectors given by hand: the first pixel's red picks that of a picture, the text that of a text."""

    texts = {'x': [1.0, 0, 0], 'y': [0, 1.0, 0], 'xy': [0.6, 0.8, 0]}

    def encode_image(self, pixels):
        assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (3, 4, 5)
        return torch.eye(3)[pixels[:, 0, 0, 0].long()]

    def encode_text(self, texts):
        return torch.tensor([self.texts[text] for text in texts])


def test_ranking_is_the_mean_cosine_with_the_views():
    views = np.zeros((4, 4, 5, 3), np.uint8)
    views[:, 0, 0, 0] = [0, 0, 1, 2]
    captions = [dict(text=text, source=f's{text}') for text in ('y', 'x', 'xy')]
    # y: 1/4, x: 2/4, xy: (0.6 + 0.6 + 0.8) / 4; x and xy tie and stay in their order.
    assert rank_captions(captions, views, Teacher()) == (
        dict(text='x', source='sx', similarity=0.5), dict(text='xy', source='sxy', similarity=0.5),
        dict(text='y', source='sy', similarity=0.25))
    assert rank_captions([], views, Teacher()) == ()
    with pytest.raises(ValueError, match='at least one'):
        rank_captions(captions, views[:0], Teacher())


def test_toy_clip_ranks_the_caption_of_an_object_before_those_of_others():
    from clipgs_plugin.datasets.toy_world import make_object, object_specs, render_views
    from clipgs_plugin.models import OpenCLIPTeacher
    teacher = OpenCLIPTeacher('toy-clip')
    specs = object_specs(200, seed=1, split='test')[:60:3]
    captions = [make_object(spec).captions[0] for spec in specs]
    first = 0
    for i in range(12):
        wrong = [captions[(i + k) % len(specs)] for k in range(1, 8)]
        candidates = [dict(text=text, source='name') for text in (*wrong, captions[i])]
        first += rank_captions(candidates, render_views(specs[i])[:4], teacher)[0]['text'] == captions[i]
    assert first >= 9, f'first for {first} of 12 objects; chance is 1.5'


class Network:
    """Stands for a model of transformers: its tokens are the number of the picture's colour."""

    def to(self, device):
        self.device = device
        return self

    def eval(self):
        return self

    def generate(self, pixel_values, input_ids=None, *, max_new_tokens, do_sample):
        assert max_new_tokens == 40 and not do_sample and not torch.is_grad_enabled()
        offset = 0 if input_ids is None else int(input_ids[0])
        return pixel_values[:, None] // 10 + offset


class Batch(dict):
    def to(self, device):
        return self


class Processor:
    image_processor = None

    def __call__(self, images, return_tensors, text=None):
        assert return_tensors == 'pt' and all(image.mode == 'RGB' for image in images)
        batch = Batch(pixel_values=torch.tensor([image.getpixel((0, 0))[0] for image in images]))
        if text is not None:
            assert len(text) == len(images)
            batch['input_ids'] = torch.tensor([len(t) for t in text])
        return batch

    def batch_decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return [f' caption {int(row[0])} ' for row in tokens]


@pytest.fixture
def transformers(monkeypatch):
    """A stub of transformers that records what is asked of it."""
    asked = []

    def part(value):
        def from_pretrained(name, **options):
            asked.append((name, options))
            if 'missing' in name:
                raise OSError(f'{name} is not in the cache\nmore')
            return value
        return SimpleNamespace(from_pretrained=from_pretrained)
    stub = SimpleNamespace(AutoProcessor=part(Processor()), AutoModelForImageTextToText=part(Network()))
    monkeypatch.setitem(sys.modules, 'transformers', stub)
    return asked


def test_a_captioner_captions_views_spread_over_the_object(transformers):
    captioner = TASK_UTILS.build(dict(type='TransformersCaptioner', model='folder/blip', num_views=3))
    assert isinstance(captioner, TransformersCaptioner)
    views = np.zeros((7, 4, 4, 3), np.uint8) + np.array([0, 10, 20, 30, 40, 50, 60], np.uint8)[:, None, None, None]
    assert captioner.caption(views) == ['caption 0', 'caption 2', 'caption 4']
    assert captioner.caption(views * 0) == ['caption 0']
    assert captioner.caption(views[:2]) == ['caption 0', 'caption 1']
    assert model_captions(captioner, views[2:3]) == (dict(text='caption 2', source='captioner:blip'),)
    prompted = TransformersCaptioner('folder/blip', num_views=1, prompt='abc')
    assert prompted.caption(views) == ['caption 3']


def test_nothing_is_downloaded(transformers):
    TransformersCaptioner('folder/blip')
    assert transformers == [('folder/blip', dict(local_files_only=True))] * 2
    with pytest.raises(FileNotFoundError, match=r'missing/model: no image-captioning model .*not in the cache\)'):
        TransformersCaptioner('missing/model')


def test_a_model_of_another_kind_is_refused(transformers, monkeypatch):
    monkeypatch.delattr(Processor, 'image_processor')
    with pytest.raises(ValueError, match='folder/bert: its Processor takes no pictures'):
        TransformersCaptioner('folder/bert')


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r'pip install "clipgs_plugin\[caption\]"'):
        TransformersCaptioner('folder/blip')


def test_wrong_options_and_views_are_refused(transformers):
    with pytest.raises(ValueError, match='num_views=0'):
        TransformersCaptioner('folder/blip', num_views=0)
    with pytest.raises(ValueError, match=r'float64, expected \(V, H, W, 3\) uint8'):
        TransformersCaptioner('folder/blip').caption(np.zeros((1, 4, 4, 3)))
