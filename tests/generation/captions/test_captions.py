import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clipgs_plugin.generation.captions import (
    CaptionRanker,
    CaptionRules,
    TransformersCaptioner,
    captions_for,
    model_captions,
    name_phrase,
    phrase,
)
from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.registry import TASK_UTILS


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
def test_the_folder_names_an_object_if_its_file_has_a_generic_name(path, words):
    assert name_phrase(Listed('u', Path(path))) == words


def test_the_attribute_name_precedes_the_file_name():
    assert name_phrase(Listed('u', Path('train.npz'), attributes=dict(name='bathtub_0001'))) == 'bathtub'


def test_captions_are_ordered_and_unique_and_have_their_source():
    listed = Listed('u', Path('x/Arm_Chair.glb'), category='arm_chair',
                    captions=(dict(text='A red  armchair.', source='manifest'), dict(text=' ', source='manifest'),
                              dict(text='a RED armchair.', source='manifest')),
                    attributes=dict(color='orange', year=1999, empty=''))
    assert captions_for(listed, CaptionRules()) == (
        dict(text='A red armchair.', source='manifest'), dict(text='arm chair', source='name'),
        dict(text='a 3D model of an arm chair', source='template'))
    templates = ['{a} {color} {category} of {year}', 'no {empty}', 'no {such}', '{a} {name}']
    rules = CaptionRules(['template', 'category', 'name'], templates)
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


def test_an_object_without_any_name_gets_the_fallback_caption():
    nameless = Listed('u', Path('000/0001.glb'))
    assert captions_for(nameless, CaptionRules()) == (dict(text='a 3D object', source='template'),)


@pytest.mark.parametrize('options, error, reason', [
    (dict(sources=['names']), ValueError, 'sources contains names; expected some of manifest, name'),
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
    """Fixed embeddings: the red of the first pixel selects an image's, the text selects a text's."""

    texts = {'x': [1.0, 0, 0], 'y': [0, 1.0, 0], 'xy': [0.6, 0.8, 0]}

    def encode_image(self, pixels):
        assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (3, 4, 5)
        return torch.eye(3)[pixels[:, 0, 0, 0].long()]

    def encode_text(self, texts):
        return torch.tensor([self.texts[text] for text in texts])


@pytest.fixture
def ranker(monkeypatch):
    ranker = CaptionRanker('toy-clip')
    monkeypatch.setattr(ranker, 'teacher', Teacher())
    return ranker


def test_captions_are_ranked_by_the_mean_cosine_with_the_views(ranker):
    views = np.zeros((4, 4, 5, 3), np.uint8)
    views[:, 0, 0, 0] = [0, 0, 1, 2]
    captions = [dict(text=text, source=f's{text}') for text in ('y', 'x', 'xy')]
    # y: 1/4, x: 2/4, xy: (0.6 + 0.6 + 0.8) / 4; x and xy are equal and keep their order.
    ranked = (dict(text='x', source='sx', similarity=0.5), dict(text='xy', source='sxy', similarity=0.5),
              dict(text='y', source='sy', similarity=0.25))
    assert ranker(captions, views) == ranked
    ranker.keep = 2
    assert ranker(captions, views) == ranked[:2] and ranker(captions[:1], views) == ranked[2:]
    assert ranker([], views) == ()
    with pytest.raises(ValueError, match='at least one'):
        ranker(captions, views[:0])


def test_toy_clip_ranks_the_caption_of_an_object_first():
    from clipgs_plugin.toy_world import make_object, object_specs, render_views
    ranker = TASK_UTILS.build(dict(type='CaptionRanker', teacher='toy-clip', keep=2))
    specs = object_specs(200, seed=1, split='test')[:60:3]
    captions = [make_object(spec).captions[0] for spec in specs]
    first = 0
    for i in range(8):
        wrong = [captions[(i + k) % len(specs)] for k in range(1, 8)]
        candidates = [dict(text=text, source='name') for text in (*wrong, captions[i])]
        ranked = ranker(candidates, render_views(specs[i])[:2])
        assert len(ranked) == 2 and set(ranked[0]) == {'text', 'source', 'similarity'}
        assert ranked[0]['similarity'] >= ranked[1]['similarity']
        first += ranked[0]['text'] == captions[i]
    assert first >= 6, f'first for {first} of 8 objects; chance is 1'


@pytest.mark.filterwarnings('ignore:OpenCLIPTeacher')
def test_invalid_rankers_are_refused():
    with pytest.raises(ValueError, match='RN50 is an architecture without weights'):
        CaptionRanker('RN50')
    with pytest.raises(ValueError, match="unknown teacher model 'toy-clop'; close matches: toy-clip"):
        CaptionRanker('toy-clop')
    with pytest.raises(ValueError, match='keep=0: expected at least 1'):
        CaptionRanker('toy-clip', keep=0)


WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '[DEC]', 'a', 'photo', 'of', 'red', 'blue', 'chair', 'table',
         'lamp', 'vase']


@pytest.fixture(scope='module')
def blip(tmp_path_factory):
    """Folder of a BLIP with random weights, its own vocabulary and images of 32 pixels."""
    transformers = pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('models') / 'tiny-blip'
    folder.mkdir()
    (folder / 'vocab.txt').write_text('\n'.join(WORDS))
    size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    config = transformers.BlipConfig(
        text_config=dict(size, vocab_size=len(WORDS), encoder_hidden_size=16, max_position_embeddings=32,
                         bos_token_id=5, sep_token_id=3, eos_token_id=3, pad_token_id=0, initializer_range=0.8),
        vision_config=dict(size, image_size=32, patch_size=16, initializer_range=0.8))
    torch.manual_seed(3)
    network = transformers.BlipForConditionalGeneration(config)
    with torch.no_grad():
        network.text_decoder.cls.predictions.bias[:6] = -1000  # no special word
    network.save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(str(folder / 'vocab.txt'), bos_token='[DEC]')
    images = transformers.BlipImageProcessor(size=dict(height=32, width=32))
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def views():
    """Seven images of one colour each."""
    colours = np.random.default_rng(0).integers(0, 256, (7, 1, 1, 3), dtype=np.uint8)
    return np.tile(colours, (1, 32, 32, 1))


@torch.no_grad()
def captions_by_hand(folder, views, begin=()):
    """Greedy captions of each view by itself, token by token."""
    import transformers
    network = transformers.BlipForConditionalGeneration.from_pretrained(folder).eval()
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    texts = []
    for view in views:
        pixels = torch.from_numpy((view / 255 - mean) / std).float().permute(2, 0, 1)[None]
        states = network.vision_model(pixel_values=pixels)[0]
        tokens = [WORDS.index(word) for word in ('[DEC]', *begin)]
        for _ in range(6):
            logits = network.text_decoder(input_ids=torch.tensor([tokens]), encoder_hidden_states=states)[0]
            tokens.append(int(logits[0, -1].argmax()))
        texts.append(' '.join(WORDS[token] for token in tokens[1:]))
    return texts


def test_a_captioner_captions_evenly_spaced_views(blip, views):
    captioner = TASK_UTILS.build(dict(type='TransformersCaptioner', model=str(blip), num_views=3, max_new_tokens=6))
    assert isinstance(captioner, TransformersCaptioner)
    expected = list(dict.fromkeys(captions_by_hand(blip, views[[0, 2, 4]])))
    assert captioner.caption(views) == expected and len(expected) > 1
    assert captioner.caption(views[[1, 1, 1]]) == captions_by_hand(blip, views[1:2])
    assert model_captions(captioner, views[5:6]) == (
        dict(text=captions_by_hand(blip, views[5:6])[0], source='captioner:tiny-blip'),)
    prompted = TransformersCaptioner(blip, num_views=1, prompt='a photo of', max_new_tokens=6)
    assert prompted.caption(views) == captions_by_hand(blip, views[:1], ('a', 'photo', 'of'))
    with pytest.raises(ValueError, match=r'float64, expected \(V, H, W, 3\) uint8'):
        captioner.caption(views / 255)


def test_nothing_is_downloaded(monkeypatch, tmp_path):
    pytest.importorskip('transformers')
    asked = []

    def find(host, *args, **options):
        asked.append(host)
        raise OSError('no network here')
    monkeypatch.setattr(socket, 'getaddrinfo', find)
    with pytest.raises(FileNotFoundError, match=r'someone/blip: no image-captioning model on .*hf download'):
        TransformersCaptioner('someone/blip')
    with pytest.raises(ValueError, match=r'absent: neither a folder nor the name of a model'):
        TransformersCaptioner(tmp_path / 'absent')
    assert asked == []


def test_damaged_models_and_models_of_another_kind_are_refused(blip, tmp_path):
    import transformers
    from safetensors.torch import load_file, save_file
    for name in ('cut', 'lacking', 'none'):
        shutil.copytree(blip, tmp_path / name)
    weights = load_file(blip / 'model.safetensors')
    save_file({key: weights[key] for key in sorted(weights)[:-2]}, tmp_path / 'lacking' / 'model.safetensors',
              metadata=dict(format='pt'))
    (tmp_path / 'cut' / 'model.safetensors').write_bytes((blip / 'model.safetensors').read_bytes()[:3000])
    (tmp_path / 'none' / 'model.safetensors').unlink()
    transformers.BertTokenizer(str(blip / 'vocab.txt')).save_pretrained(tmp_path / 'text')
    transformers.BertConfig().save_pretrained(tmp_path / 'text')
    for name, error, reason in (('cut', ValueError, 'the weights are damaged'),
                                ('lacking', ValueError, '2 weights are missing'),
                                ('none', FileNotFoundError, 'no file named model.safetensors'),
                                ('text', ValueError, 'has only a BertTokenizer')):
        with pytest.raises(error, match=reason):
            TransformersCaptioner(tmp_path / name)


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match='pip install transformers'):
        TransformersCaptioner('folder/blip')
    with pytest.raises(ValueError, match='num_views=0'):
        TransformersCaptioner('folder/blip', num_views=0)
