"""Teachers with a tokenizer of their own (SigLIP, SigLIP2), from a local folder or the hub's cache."""
import json

import open_clip
import pytest
import torch

from clipgs_plugin.models import OpenCLIPTeacher

transformers = pytest.importorskip('transformers')
tokenizers = pytest.importorskip('tokenizers')
pytestmark = pytest.mark.filterwarnings('ignore')
WORDS = ['<pad>', '<eos>', '<unk>', 'a', 'red', 'chair', 'mug']
CONTEXT = 8


def save_tokenizer(folder):
    """A tokenizer of words as SigLIP's: lower case is left to open_clip, a text ends in <eos>, and <pad> follows."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, '<unk>'))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing('$A <eos>', special_tokens=[('<eos>', 1)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token='<pad>', eos_token='<eos>',
                                         unk_token='<unk>').save_pretrained(folder)


def add_model(folder, name, tokenizer):
    """Tell open_clip a small model with the text settings of ViT-B-16-SigLIP."""
    text = open_clip.get_model_config('ViT-B-16-SigLIP')['text_cfg'] | dict(
        context_length=CONTEXT, vocab_size=len(WORDS), hf_tokenizer_name=str(tokenizer), width=16, heads=2, layers=1)
    config = dict(embed_dim=16, init_logit_bias=-10, custom_text=True, text_cfg=text,
                  vision_cfg=dict(image_size=16, patch_size=8, layers=1, width=16, head_width=8))
    (folder / f'{name}.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder / f'{name}.json')
    return name


@pytest.mark.parametrize('towers', ['both', 'text'])
def test_texts_are_cleaned_and_cut_as_the_model_was_trained(tmp_path, towers):
    save_tokenizer(tmp_path / 'tokenizer')
    teacher = OpenCLIPTeacher(add_model(tmp_path, 'tiny-own-siglip', tmp_path / 'tokenizer'), towers=towers)
    tokens = teacher.tokenizer(['A  Red, CHAIR!', 'a_mug', 'a ' * 20])
    assert tokens.tolist() == [[3, 4, 5, 1, 0, 0, 0, 0], [3, 6, 1, 0, 0, 0, 0, 0], [3] * 7 + [1]]
    found = teacher.encode_text(['A  Red, CHAIR!', 'a red chair', 'a red mug'])
    with torch.no_grad():
        by_hand = teacher.network.encode_text(torch.tensor([[3, 4, 5, 1, 0, 0, 0, 0]]), normalize=True)
    assert torch.equal(found[0], found[1]) and not torch.allclose(found[1], found[2], atol=1e-4)
    assert torch.allclose(found[0], by_hand[0], atol=1e-6)


def test_a_missing_tokenizer_is_named_and_images_need_none(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    name = add_model(tmp_path, 'tiny-lost-siglip', tmp_path / 'absent')
    with pytest.raises(FileNotFoundError, match=rf"tokenizer '{tmp_path}/absent' of '{name}' .*; copy the hub's cache"):
        OpenCLIPTeacher(name)
    teacher = OpenCLIPTeacher(name, towers='image')
    assert teacher.encode_image(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape == (1, 16)
