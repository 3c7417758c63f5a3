import copy
import subprocess
import sys
import warnings
from importlib import resources

import mmengine.runner
import numpy as np
import open_clip
import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import nn

from clipgs_plugin.models.teachers import OpenCLIPTeacher
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

WEIGHTS = resources.files('clipgs_plugin').joinpath('weights', 'toy-clip', 'weights.safetensors')


@pytest.fixture(scope='module')
def teacher():
    return OpenCLIPTeacher('toy-clip')


def draw_image(height, width, seed=0) -> np.ndarray:
    """Draw an image of smooth colours and hard edges, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = np.stack([np.sin(rng.uniform(5, 40) * x + rng.uniform(5, 40) * y) for _ in range(3)], -1)
    waves[(x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05] = rng.uniform(-1, 1, 3)
    return ((waves + 1) * 127.5).astype(np.uint8)


def as_tensor(image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


class Student(BaseModule):
    """Model with a teacher, like CLIPGS."""

    def __init__(self, teacher=None, init_cfg=None):
        super().__init__(init_cfg)
        self.linear = nn.Linear(3, 2)
        self.teacher = teacher


def test_vectors_are_unit_and_float32(teacher):
    image = teacher.encode_image(torch.cat([as_tensor(draw_image(90, 70, seed)) for seed in range(5)]))
    text = teacher.encode_text(['a red chair', 'ein Stuhl, \u6905\u5b50 \U0001fa91!', '', 'word ' * 500])
    assert image.shape == (5, teacher.embed_dim) and text.shape == (4, teacher.embed_dim)
    for vectors in (image, text):
        assert vectors.dtype == torch.float32
        assert torch.allclose(vectors.double().norm(dim=-1), torch.ones(len(vectors)).double(), atol=1e-6)
    assert teacher.encode_text([]).shape == (0, teacher.embed_dim)
    assert teacher.encode_image(torch.zeros(0, 3, 8, 8, dtype=torch.uint8)).shape == (0, teacher.embed_dim)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_autocast_does_not_change_the_precision_of_a_teacher(precision):
    teacher = OpenCLIPTeacher('toy-clip', precision=precision)
    pixels, texts = as_tensor(draw_image(90, 70)), ['a red chair', 'a lamp']
    expected = teacher.encode_image(pixels), teacher.encode_text(texts)
    with torch.autocast('cpu', torch.bfloat16):
        found = teacher.encode_image(pixels), teacher.encode_text(texts)
    with torch.autocast('cpu', torch.float16):
        again = teacher.encode_image(pixels), teacher.encode_text(texts)
    for vectors in (*found, *again):
        assert vectors.dtype == torch.float32
    assert all(torch.equal(a, b) for pair in (found, again) for a, b in zip(pair, expected))


def test_vectors_equal_those_of_open_clip(teacher):
    image = Image.fromarray(draw_image(150, 100))
    network = teacher.network
    with torch.no_grad():
        by_hand = network.encode_image(teacher.preprocess(image)[None])[0].double()
        words = network.encode_text(teacher.tokenizer(['a red chair']))[0].double()
    for pixels in (as_tensor(image), teacher.preprocess(image)[None]):
        assert torch.cosine_similarity(teacher.encode_image(pixels)[0].double(), by_hand, dim=0) > 0.9999
    assert torch.allclose(teacher.encode_text(['a red chair'])[0].double(), words / words.norm(), atol=1e-6)


@pytest.mark.parametrize('mode, size, interpolation', [('shortest', 64, 'bicubic'), ('squash', 48, 'bicubic'),
                                                       ('longest', 56, 'bicubic'), ('shortest', (40, 64), 'bicubic'),
                                                       ('shortest', 64, 'bilinear')])
@pytest.mark.parametrize('shape', [(64, 64), (150, 100), (33, 47), (64, 200)])
def test_tensor_path_equals_the_pil_transform(teacher, monkeypatch, mode, size, interpolation, shape):
    config = PreprocessCfg(size=size, resize_mode=mode, interpolation=interpolation)
    monkeypatch.setattr(teacher, 'preprocess', image_transform_v2(config, is_train=False))
    image = Image.fromarray(draw_image(*shape))
    grey_level = 1 / 255 / torch.tensor(config.std)[:, None, None]
    off = ((teacher.prepare(as_tensor(image))[0] - teacher.preprocess(image)) / grey_level).abs()
    assert off.max() < 2.01 and off.mean() < 0.05


def test_batches_change_nothing(teacher):
    one_by_one = OpenCLIPTeacher('toy-clip', batch_size=2)
    texts = ['a red chair', 'a dog', 'a blue striped mug', 'a tree', 'a globe']
    pixels = torch.cat([as_tensor(draw_image(64, 64, seed)) for seed in range(5)])
    assert torch.allclose(one_by_one.encode_text(texts), teacher.encode_text(texts), atol=1e-5)
    assert torch.allclose(one_by_one.encode_image(pixels), teacher.encode_image(pixels), atol=1e-5)


def test_is_frozen_and_stays_in_eval_mode(teacher):
    pixels = as_tensor(draw_image(64, 64))
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    expected = teacher.encode_image(pixels)
    student = Student(teacher).train()
    student.requires_grad_(True)
    assert student.training
    assert not any(module.training for module in [*teacher.modules(), *teacher.network.modules()])
    assert not any(p.requires_grad for p in teacher.network.parameters())
    wrapper = build_optim_wrapper(student, dict(optimizer=dict(type='SGD', lr=1.0)))
    found = teacher.encode_image(pixels)
    wrapper.update_params(student.linear(torch.ones(1, 3)).sum() + found.sum())
    assert not found.requires_grad and torch.equal(found, expected)
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())
    assert sum(p.numel() for p in student.parameters()) == 8


def test_initialisation_of_a_parent_skips_the_teacher(teacher):
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    student = Student(teacher, init_cfg=dict(type='Constant', layer=['Linear', 'Conv2d'], val=7.0))
    student.init_weights()
    assert (student.linear.weight == 7).all()
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())


def test_checkpoints_of_a_parent_omit_the_teacher_and_load_strictly(teacher, tmp_path):
    student = Student(teacher)
    assert list(student.state_dict()) == ['linear.weight', 'linear.bias']
    mmengine.runner.save_checkpoint({'state_dict': student.state_dict()}, str(tmp_path / 'student.pth'))
    for other in (Student(teacher), Student()):
        assert other.load_state_dict(student.state_dict(), strict=True) == ([], [])
        nn.init.zeros_(other.linear.weight)
        mmengine.runner.load_checkpoint(other, str(tmp_path / 'student.pth'), strict=True)
        assert torch.equal(other.linear.weight, student.linear.weight)


def test_copies_share_the_network_and_casts_skip_it(teacher):
    student = Student(teacher)
    twin = copy.deepcopy(student)
    assert twin.teacher.network is teacher.network and twin.linear.weight is not student.linear.weight
    pixels = as_tensor(draw_image(64, 64))
    expected = teacher.encode_image(pixels)
    student.half()
    assert student.linear.weight.dtype == torch.float16
    assert torch.equal(teacher.encode_image(pixels), expected)


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_vectors_in_low_precision_are_close(teacher, precision):
    low = OpenCLIPTeacher('toy-clip', precision=precision)
    pixels = torch.cat([as_tensor(draw_image(64, 64, seed)) for seed in range(3)])
    for found, expected in ((low.encode_image(pixels), teacher.encode_image(pixels)),
                            (low.encode_text(['a red chair']), teacher.encode_text(['a red chair']))):
        assert found.dtype == torch.float32
        assert torch.cosine_similarity(found, expected).min() > 0.98


def test_weights_load_from_a_file(teacher, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        from_file = OpenCLIPTeacher('toy-clip', str(WEIGHTS))
    assert from_file.fingerprint == teacher.fingerprint
    changed = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    changed['visual.layer1.0.conv1.weight'][0, 0, 0, 0] += 1
    torch.save(changed, tmp_path / 'mine.pt')
    other = OpenCLIPTeacher('toy-clip', tmp_path / 'mine.pt')
    assert other.fingerprint != teacher.fingerprint and other.name == 'toy-clip-mine' != teacher.name == 'toy-clip'
    del changed['text_projection']
    torch.save(changed, tmp_path / 'half.pt')
    with pytest.raises(ValueError, match=r'(?s)half.pt: not the weights .*text_projection'):
        OpenCLIPTeacher('toy-clip', tmp_path / 'half.pt')


@pytest.fixture
def offline(monkeypatch):
    """Make downloads fail and record them."""
    calls = []

    def download(config, **kwargs):
        calls.append(config)
        raise OSError('no route to host')
    monkeypatch.setattr(open_clip, 'download_pretrained', download)
    return calls


def test_architecture_without_weights_is_random_and_warns(offline):
    with pytest.warns(UserWarning, match=r"'ViT-B-32'\) has random weights; .*laion2b_s34b_b79k"):
        teacher = MODELS.build(dict(type='OpenCLIPTeacher', model='ViT-B-32'))
    assert teacher.embed_dim == 512 and not offline
    assert teacher.encode_image(as_tensor(draw_image(60, 60))).shape == (1, 512)
    assert teacher.encode_text(['a', 'b']).shape == (2, 512)
    with pytest.raises(ValueError, match='ViT-B-32 is an architecture without weights'):
        teacher.require_weights()


@pytest.mark.parametrize('model, pretrained', [('ViT-B-32', 'openai'), ('vit-b-32-openai', None),
                                               ('ViT-B-32-openai', None)])
def test_error_of_a_failed_download_names_the_remedy(offline, model, pretrained):
    with pytest.raises(FileNotFoundError, match=r"'ViT-B-32' with tag 'openai' .*no route.*pretrained='/path/to"):
        OpenCLIPTeacher(model, pretrained)
    assert len(offline) == 1


@pytest.mark.parametrize('model, tag, quick', [('ViT-B-32', 'openai', True), ('ViT-B-32', 'laion2b_s34b_b79k', False)])
def test_activation_matches_the_training_of_the_tag(monkeypatch, model, tag, quick):
    options = {}

    def create_model(name, pretrained, **kwargs):
        options.update(kwargs)
        raise RuntimeError('enough')
    monkeypatch.setattr(open_clip, 'download_pretrained', lambda *args, **kwargs: '')
    monkeypatch.setattr(open_clip, 'create_model', create_model)
    with pytest.raises(RuntimeError, match='enough'):
        OpenCLIPTeacher(model, tag)
    assert options['force_quick_gelu'] is quick


def test_file_gets_the_preprocessing_shared_by_all_tags():
    from clipgs_plugin.models.teachers.sources import _common_preprocess
    assert _common_preprocess('ViT-B-16-SigLIP')['mean'] == (0.5, 0.5, 0.5)
    assert _common_preprocess('ViT-B-16-SigLIP')['resize_mode'] == 'squash'
    assert _common_preprocess('toy-clip') == {}


@pytest.mark.parametrize('arguments, message', [
    (('ViT-B-33',), "'ViT-B-33'; close matches: ViT-B-32"),
    (('toy-clpi',), 'close matches: toy-clip'),
    (('ViT-B-32', 'laion2b'), "'laion2b' is neither a file nor a tag of 'ViT-B-32'; tags: .*laion2b_s34b_b79k"),
    (('ViT-B-32', '/nowhere/weights.pt'), "'/nowhere/weights.pt' is neither a file"),
    (('hf-hub:some/model', 'openai'), 'would be ignored'),
    (('toy-clip', None, 'fp8'), "precision='fp8'"),
    (('toy-clip', None, 'fp32', 0), 'batch_size=0'),
])
def test_error_names_the_wrong_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        OpenCLIPTeacher(*arguments)


@pytest.mark.parametrize('pixels, message', [
    (torch.zeros(64, 64, 3), r'shape \(64, 64, 3\)'),
    (torch.zeros(2, 64, 64, 3, dtype=torch.uint8), 'permute'),
    (torch.zeros(1, 3, 8, 8), r'float pixels have size \(8, 8\), expected \(64, 64\)'),
    (torch.zeros(1, 3, 8, 8, dtype=torch.int64), 'int64, expected uint8'),
])
def test_wrong_pixels_are_refused(teacher, pixels, message):
    with pytest.raises(ValueError, match=message):
        teacher.encode_image(pixels)


def test_single_string_is_refused(teacher):
    with pytest.raises(TypeError, match='list of str'):
        teacher.encode_text('a red chair')


def test_catalogue_agrees_with_open_clip(teacher):
    for name, entry in load_catalogue('teachers').items():
        config = open_clip.get_model_config(entry['model'])
        assert entry['width'] == config['embed_dim'], name
        assert entry['resolution'] == config['vision_cfg']['image_size'], name
        assert 'weights' in entry or (entry['model'], entry['tag']) in open_clip.list_pretrained(), name


def test_open_clip_is_not_imported_before_a_teacher_is_built():
    code = ("import sys, clipgs_plugin.models.teachers; assert 'open_clip' not in sys.modules; import open_clip; "
            "assert 'toy-clip' not in open_clip.list_models()")
    subprocess.run([sys.executable, '-c', code], check=True)


def test_toy_clip_is_small_and_has_a_card():
    from safetensors import safe_open
    assert WEIGHTS.stat().st_size < 6e6
    with safe_open(WEIGHTS, 'pt') as content:
        dtypes = {content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118
    assert dtypes <= {'F16', 'I64'}
    card = WEIGHTS.with_name('README.md').read_text()
    assert 'tools/dev/train_toy_clip.py' in card and 'held-out' in card


def test_toy_clip_classifies_the_toy_world(teacher):
    from clipgs_plugin.toy_world import CATEGORIES, object_specs, render_views
    names = list(CATEGORIES)
    specs = object_specs(len(names), seed=77, split='test')  # appearances outside the training split
    views = torch.stack([torch.from_numpy(render_views(spec, 4)).permute(0, 3, 1, 2) for spec in specs])
    features = teacher.encode_image(views.flatten(0, 1))
    prompts = teacher.encode_text([f'a {name}' for name in names])
    guesses = (features @ prompts.T).argmax(-1).reshape(len(specs), 4)
    truth = torch.tensor([names.index(spec.category) for spec in specs])
    assert (guesses == truth[:, None]).double().mean() > 0.85
