"""One tower of a teacher gives the vectors of open_clip's whole model, and costs the memory of one tower."""
import json
import logging
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import run_python
from safetensors.torch import load_file, save_file

from clipgs_plugin.models.teachers import OpenCLIPTeacher

TEXTS = ['a red chair', 'a potted plant on a table', 'word ' * 100]


def small_config(kind: str) -> dict:
    """An architecture of open_clip with fewer blocks and narrower towers."""
    config = open_clip.get_model_config(kind)
    config['text_cfg'].update(layers=2, width=32, heads=2, vocab_size=49408)
    config['text_cfg'].pop('hf_tokenizer_name', None)  # a download
    vision = config['vision_cfg']
    if 'timm_model_name' not in vision:
        vision.update(layers=2, width=64, head_width=32, image_size=32, patch_size=8)
    elif 'siglip' in vision['timm_model_name']:
        vision.update(timm_model_name='vit_tiny_patch16_224', image_size=224)
        config['embed_dim'] = 192
    return config


# Context length by kind: CLIP, CLIP with QuickGELU, SigLIP, SigLIP2, and PE-Core and MobileCLIP2 (CustomTextCLIP).
KINDS = {'ViT-B-32': 77, 'ViT-B-32-quickgelu': 77, 'ViT-B-16-SigLIP': 64, 'ViT-SO400M-14-SigLIP': 16,
         'ViT-B-16-SigLIP2': 64, 'PE-Core-T-16-384': 32, 'MobileCLIP2-S0': 77}


@pytest.fixture(scope='module', params=KINDS)
def saved(request, tmp_path_factory):
    """Name of a small model, its random weights as .safetensors and .pt, and open_clip's model of these weights."""
    folder, kind = tmp_path_factory.mktemp('kinds'), request.param
    name = 'small-' + kind.replace('SigLIP', 'sigmoid')  # open_clip downloads the tokenizer of names with SigLIP
    (folder / f'{name}.json').write_text(json.dumps(small_config(kind)))
    before = list(open_clip.factory._MODEL_CONFIG_PATHS)
    open_clip.add_model_config(folder / f'{name}.json')
    torch.manual_seed(0)
    network = open_clip.create_model(name, require_pretrained=False)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.randn_like(value) * 0.02)  # biases and scales differ from those of a new model
    save_file(network.state_dict(), folder / 'w.safetensors')
    torch.save({'state_dict': {f'module.{key}': value for key, value in network.state_dict().items()}}, folder / 'w.pt')
    # Frozen, since torch takes another path through attention, with other rounding, if a weight requires a gradient.
    frozen = open_clip.create_model(name, str(folder / 'w.safetensors')).eval().requires_grad_(False)
    yield name, folder, frozen, KINDS[kind]
    open_clip.factory._MODEL_CONFIG_PATHS[:] = before
    del open_clip.factory._MODEL_CONFIGS[name]


@pytest.mark.parametrize('file', ['w.safetensors', 'w.pt'])
def test_a_tower_alone_has_the_vectors_of_open_clip_bit_for_bit(saved, file, monkeypatch):
    name, folder, network, length = saved
    monkeypatch.setattr(open_clip.factory, 'load_checkpoint', None)  # the whole model is never loaded
    text = OpenCLIPTeacher(name, folder / file, towers='text')
    image = OpenCLIPTeacher(name, folder / file, towers='image')
    pixels = torch.rand(2, 3, *image.preprocess(_picture()).shape[1:])
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    assert tokens.shape[1] == length
    with torch.no_grad():
        words, looks = (torch.nn.functional.normalize(x, dim=-1) for x in (
            network.encode_text(tokens, normalize=True), network.encode_image(pixels, normalize=True)))
    assert torch.equal(text.encode_text(TEXTS), words)
    assert torch.equal(image.encode_image(pixels), looks)
    assert text.embed_dim == image.embed_dim == words.shape[1] == looks.shape[1]
    assert text.logit_scale == image.logit_scale == network.logit_scale.exp().item()
    assert str(text.preprocess) == str(image.preprocess)


def test_a_tower_holds_the_weights_of_one(saved):
    name, folder, network, _ = saved
    whole = load_file(folder / 'w.safetensors')
    seen = set()
    for tower in ('text', 'image'):
        state = OpenCLIPTeacher(name, folder / 'w.safetensors', towers=tower).network.state_dict()
        assert all(torch.equal(value, whole[key]) for key, value in state.items())
        assert all(key.startswith(('visual.', 'logit_')) == (tower == 'image') or key.startswith('logit_')
                   for key in state)
        seen |= state.keys()
    assert seen == whole.keys() == network.state_dict().keys()


def _picture():
    from PIL import Image
    return Image.new('RGB', (40, 50), (200, 30, 60))


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_towers_agree_with_both_in_every_precision(precision):
    both, text, image = (OpenCLIPTeacher('toy-clip', precision=precision, towers=towers)
                         for towers in ('both', 'text', 'image'))
    pixels = torch.randint(0, 255, (2, 3, 80, 60), dtype=torch.uint8)
    assert torch.equal(text.encode_text(TEXTS), both.encode_text(TEXTS))
    assert torch.equal(image.encode_image(pixels), both.encode_image(pixels))


def test_the_absent_tower_is_named():
    text, image = (OpenCLIPTeacher('toy-clip', towers=towers) for towers in ('text', 'image'))
    with pytest.raises(ValueError, match="encode_image needs the image tower, but toy-clip was built with "
                                         "towers='text'; build it with towers='image' or 'both'"):
        text.encode_image(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match='encode_text needs the text tower'):
        image.encode_text(['a chair'])
    for teacher in (text, image):
        with pytest.raises(ValueError, match='a fingerprint covers both'):
            teacher.fingerprint  # noqa: B018
    with pytest.raises(ValueError, match="towers='words', expected"):
        OpenCLIPTeacher('toy-clip', towers='words')


def test_coca_is_refused_and_random_towers_warn(caplog):
    with pytest.warns(UserWarning, match='random weights'), pytest.raises(ValueError, match='coca_ViT-B-32 is a CoCa'):
        OpenCLIPTeacher('coca_ViT-B-32', towers='text')
    before = list(logging.getLogger().filters)
    OpenCLIPTeacher('toy-clip', towers='text')
    assert 'No pretrained weights' not in caplog.text and logging.getLogger().filters == before


def test_files_that_open_clip_converts_are_loaded_whole(tmp_path):
    """Positions of another length are resized; a file without a tensor of the tower is refused as ever."""
    both = OpenCLIPTeacher('toy-clip')
    state = {key: value.clone() for key, value in both.network.state_dict().items()}
    torch.save(state, tmp_path / 'old.pt', _use_new_zipfile_serialization=False)  # cannot be mapped
    text = OpenCLIPTeacher('toy-clip', tmp_path / 'old.pt', towers='text')
    assert torch.equal(text.encode_text(TEXTS), both.encode_text(TEXTS)) and text.network.visual is None
    longer = torch.cat([state['positional_embedding'], state['positional_embedding'][-3:]])
    save_file({**state, 'positional_embedding': longer}, tmp_path / 'long.safetensors')
    found, expected = (OpenCLIPTeacher('toy-clip', tmp_path / 'long.safetensors', towers=towers).encode_text(TEXTS)
                       for towers in ('text', 'both'))
    assert torch.equal(found, expected) and not torch.equal(found, both.encode_text(TEXTS))
    del state['ln_final.weight']
    save_file(state, tmp_path / 'half.safetensors')
    with pytest.raises(ValueError, match=r'(?s)half.safetensors: not the weights .*ln_final.weight'):
        OpenCLIPTeacher('toy-clip', tmp_path / 'half.safetensors', towers='text')
    image = OpenCLIPTeacher('toy-clip', tmp_path / 'half.safetensors', towers='image')  # its tower is whole
    assert image.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 128)


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the peak of a process is read from /proc')
def test_the_text_tower_costs_the_memory_of_one_tower(tmp_path):
    """Growth of the peak memory of a process that builds the text tower, then both; the image tower has 351 MB."""
    config = open_clip.get_model_config('ViT-B-32')
    config['text_cfg'].update(layers=2, width=64, heads=2)
    (tmp_path / 'wide-image.json').write_text(json.dumps(config))
    code = f"""
import warnings
from pathlib import Path
import open_clip
from clipgs_plugin.models.teachers import OpenCLIPTeacher
open_clip.add_model_config({str(tmp_path / 'wide-image.json')!r})

def peak():
    return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])

OpenCLIPTeacher('toy-clip').encode_text(['a chair'])
before = peak()
for towers in ('text', 'both'):
    with warnings.catch_warnings(action='ignore'):
        OpenCLIPTeacher('wide-image', towers=towers).encode_text(['a chair'])
    print(peak() - before)
"""
    text, both = map(int, run_python(code).split())  # KiB
    assert both > 340_000 and text < both / 5
