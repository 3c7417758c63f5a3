"""Published models by name: what answers, what is refused, and what it costs."""
import os
import threading

import pytest
import torch

from clipgs_plugin import CLIPGSInferencer, GaussianCloud, get_model, list_models
from clipgs_plugin.apis.model_list import size_text
from clipgs_plugin.apis.published import list_published, published_config, why_no_answer
from clipgs_plugin.datasets.transforms import build_pipeline
from clipgs_plugin.models import OpenCLIPTeacher
from clipgs_plugin.models.checkpoints import convert_checkpoint
from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.empty import without_initialisation
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.tools import embed, search

CHECKPOINTS, TEACHERS = load_catalogue('checkpoints'), load_catalogue('teachers')
NAME = 'openshape-pointbert-shapenet'  # the smallest one
SCALE = 3.5


def test_the_aligned_models_answer_and_the_others_are_refused():
    assert {name for name in CHECKPOINTS if CHECKPOINTS[name]['contract'].get('teacher') in TEACHERS} == {
        *list_published()}
    refused = {'point-bert', 'point-mae', 'ulip-pointbert', 'ulip2-pointbert-xyz', 'recon', 'gaussian-mae',
               'gaussian-jepa'}
    assert CHECKPOINTS.keys() - {*list_published()} == refused
    for name in refused:
        with pytest.raises(ValueError, match=rf"{name} .*; train .*GSEncoder\(backbone='{name}'\)"):
            get_model(name, checkpoint='no file is opened')
    assert 'SLIP ViT-B/16, which open_clip does not have' in why_no_answer('ulip-pointbert')
    assert 'not aligned' in why_no_answer('point-mae')


@pytest.mark.parametrize('name', list_published())
def test_the_config_follows_the_contract(name):
    contract, cfg = Contract.from_dict(CHECKPOINTS[name]['contract']), published_config(name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    options = {**contract.tokenizer_options()}
    assert {key: getattr(model.encoder.tokenizer, key) for key in options} == options
    assert cfg.teacher.model == contract.teacher == model.encoder.teacher
    assert model.encoder.embed_dim == contract.embed_dim == TEACHERS[contract.teacher]['width']
    assert sum(x.numel() for x in model.encoder.parameters()) == CHECKPOINTS[name]['architecture']['parameters']
    # The library's own frame, colours and missing colour, which the pipeline relies on.
    assert contract.normalisation == 'unit_sphere'
    assert (contract.color_range, contract.missing_color) in [((0.0, 1.0), 0.4), (None, None)]
    pipeline = cfg.test_dataloader.dataset.pipeline
    assert next(step.num_points for step in pipeline if step.type.endswith('SplatsToPoints')) == contract.num_points
    cloud = GaussianCloud(torch.randn(20, 3) + 5, torch.randn(20, 4), torch.zeros(20, 3) - 4, torch.ones(20),
                          torch.zeros(20, 1, 3))
    means = build_pipeline(pipeline)({'gaussians': cloud, 'rng': None, 'index': 0, 'epoch': 0})['inputs'].means
    assert means.mean(0).abs().max() < 1e-5 and means.norm(dim=1).max() == pytest.approx(1, abs=1e-5)


def small_file(path, scale=SCALE, **changes):
    """Write random weights in the form of OpenShape's training code, and return their model."""
    draw = torch.Generator().manual_seed(0)
    with torch.device('meta'):
        encoder = MODELS.build(published_config(NAME).model.encoder)
    state = {'ppat.' + key.removeprefix('backbone.').replace('tokenizer.patch_encoder.', 'sa.')
             if not key.startswith('projection.') else key.replace('projection.', 'proj.'): value
             for key, value in encoder.state_dict().items()}
    state = {f'module.{key}': torch.tensor(3) if key.endswith('tracked') else 0.05 + 0.1 * torch.rand(
        (value.numel(),) if key.endswith('cls_token') else value.shape, generator=draw) for key, value in state.items()}
    torch.save({'state_dict': {**state, **changes}, 'logit_scale': {'module.logit_scale': torch.tensor(scale)}}, path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('checkpoints')
    small_file(folder / f'{NAME}.pt')
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(folder))
    return folder


@pytest.fixture(scope='module')
def splats(tmp_path_factory):
    from clipgs_plugin.toy_world.writing import export_files
    folder = tmp_path_factory.mktemp('splats')
    export_files(folder, 2)
    return folder


class Words:
    """Stand-in for the teacher, which has gigabytes of weights."""

    def encode_text(self, texts):
        return torch.nn.functional.one_hot(torch.tensor([len(text) for text in texts]), 1280).float()

    def to(self, device):
        return self


@pytest.fixture
def no_teacher(monkeypatch):
    monkeypatch.setattr(OpenCLIPTeacher, '__init__', lambda self, **options: pytest.fail('the teacher was built'))


def test_a_name_embeds_files_without_the_teacher(here, splats, no_teacher):
    clipgs = CLIPGSInferencer(NAME)
    found = clipgs.embed_gaussians(sorted(splats.iterdir()))
    assert found.shape == (2, 1280) and torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    assert clipgs.name == NAME and clipgs.model.logit_scale.tolist() == [pytest.approx(SCALE)]
    assert clipgs.model.cfg.model.encoder.init_cfg.checkpoint == str(here / f'{NAME}.pt')
    assert not clipgs.model.training and clipgs.model.encoder.load_reports[0].complete


def test_a_name_classifies_with_its_teacher_and_the_temperature_of_the_file(here, splats):
    clipgs = CLIPGSInferencer(NAME)
    clipgs._teachers['both'] = Words()
    path = sorted(splats.iterdir())[0]
    ranked = clipgs.classify(path, ['a', 'four', 'sixteen letters.'], templates=['{}'])[0]
    cosines = clipgs.embed_gaussians(path) @ clipgs.embed_text(['a', 'four', 'sixteen letters.']).T
    expected = (torch.tensor(SCALE).exp() * cosines).softmax(-1)[0].sort(descending=True).values
    assert [p for _, p in ranked] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_programs_embed_and_search_by_name_and_remember_the_model(here, splats, tmp_path, monkeypatch, capsys):
    index = tmp_path / 'e.npz'
    assert embed.main([str(splats), '-o', str(index), '--model', NAME]) == 0
    splat = str(sorted(splats.iterdir())[1])
    assert search.main([str(index), '--gaussians', splat, '-k', '1', '--json']) == 0
    assert splat in capsys.readouterr().out
    monkeypatch.delenv('CLIPGS_CHECKPOINTS')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f'{NAME}: .*download model.pt from https://.*save it'):
        search.main([str(index), '--gaussians', splat])
    file = here / f'{NAME}.pt'  # a named file needs no folder
    assert embed.main([splat, '-o', str(index), '--model', NAME, '--checkpoint', str(file)]) == 0
    assert search.main([str(index), '--gaussians', splat]) == 0


def test_a_converted_file_gives_the_same_model_and_temperature(here, tmp_path):
    convert_checkpoint(here / f'{NAME}.pt', tmp_path / 'a.safetensors', name=NAME)
    first, second = get_model(NAME), get_model(NAME, tmp_path / 'a.safetensors')
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize('name, match', [
    ('uni3d-b', r"is not of family 'uni3d' but of 'openshape'"),
    ('openshape-pointbert-vitg14', r'is not openshape-pointbert-vitg14; scaling of the backbone: 1 in the file, 4 '
                                   r'published.*Download the right file from https'),
    ('openshape-pointbert-vitb32', 'is not openshape-pointbert-vitb32; width of the embedding'),
])
def test_a_wrong_file_is_named_with_both_sides(here, name, match):
    with pytest.raises(ValueError, match=match) as error:
        get_model(name, here / f'{NAME}.pt')
    assert str(here) in str(error.value)


@pytest.mark.parametrize('name', ['uni3d-b', NAME, 'recon-zeroshot'])
def test_a_checkpoint_of_this_library_is_recognised(here, tmp_path, name):
    torch.save({'state_dict': get_model(NAME).state_dict()}, tmp_path / 'mine.pth')
    with pytest.raises(ValueError, match=r'mine\.pth: was trained by this library .* give its config in place of'):
        get_model(name, tmp_path / 'mine.pth')


def test_a_file_without_its_projection_is_refused(tmp_path):
    small_file(tmp_path / 'a.pt')
    content = torch.load(tmp_path / 'a.pt')
    content['state_dict'] = {key: x for key, x in content['state_dict'].items() if '.proj.' not in key}
    torch.save(content, tmp_path / 'a.pt')
    with pytest.raises(ValueError, match=r'a\.pt: is not the file of .*lacks its projection proj\..*download'):
        get_model(NAME, tmp_path / 'a.pt')


@pytest.mark.parametrize('scale', [14.3, -2.0, 100.0])
def test_an_implausible_temperature_is_replaced_with_a_warning(tmp_path, scale):
    small_file(tmp_path / 'a.pt', scale)
    with pytest.warns(UserWarning, match=f'logit_scale={scale:g}, expected a logarithm'):
        model = get_model(NAME, tmp_path / 'a.pt')
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_parameters_are_not_initialised_and_buffers_are():
    outside = {}

    def build_elsewhere():
        outside['layer'] = torch.nn.Linear(3, 4)
    with without_initialisation():
        norm = torch.nn.BatchNorm1d(5)
        thread = threading.Thread(target=build_elsewhere)
        thread.start()
        thread.join()
    assert norm.weight.is_meta and norm.weight.requires_grad and torch.equal(norm.running_var, torch.ones(5))
    assert not outside['layer'].weight.is_meta and not torch.nn.Linear(3, 4).weight.is_meta


def test_models_are_listed_with_facts_and_the_presence_of_their_files(here, tmp_path, monkeypatch):
    models = {name: name for name in list_models()}
    model = models[NAME]
    assert (model, model.family, model.parameters) == (NAME, 'openshape', 5100768)
    assert (model.teacher, model.licence, model.file) == ('vit-bigg-14-laion2b', 'MIT', here / f'{NAME}.pt')
    assert model.is_ready and not models['uni3d-g'].is_ready
    assert models['clipgs_toy'].is_ready and models['clipgs_toy'].parameters == 1956673
    assert set(list_published()) < models.keys() and models['clipgs_uni3d-b_uni3d-init_20e_objaverse'].family is None
    lines = repr(list_models()).splitlines()
    assert sum(line.split()[0] == NAME and line.endswith('here') for line in lines if line) == 1
    assert next(line for line in lines if line.startswith('uni3d-g ')).split() == [
        'uni3d-g', '1012.9', 'M', 'eva02-e-14-plus-laion2b', 'MIT', '(code)', 'missing']
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))  # looked for at the call
    assert not next(name for name in list_models() if name == NAME).is_ready


def test_the_toy_model_has_the_listed_size():
    with pytest.warns(UserWarning, match='toy world'):
        model = get_model('clipgs_toy')
    assert sum(x.numel() for x in model.parameters()) == load_catalogue('models')['clipgs_toy']['parameters']


def test_the_config_written_to_a_file_builds_the_same_model(here, tmp_path):
    model = get_model(NAME)
    model.cfg.dump(tmp_path / 'mine.py')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'mine.pth')
    again = get_model(os.fspath(tmp_path / 'mine.py'), tmp_path / 'mine.pth')
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert again.cfg.teacher == model.cfg.teacher


def test_the_page_of_models_has_the_facts_of_the_catalogue(root):
    text = (root / 'docs/models.md').read_text(encoding='utf-8')
    rows = [tuple(cell.strip(' `') for cell in line.strip('|').split('|'))
            for line in text.splitlines() if line.startswith('| `')]
    assert rows == [(name, name.family, size_text(name.parameters), name.teacher, name.licence)
                    for name in list_models() if name.family]
    refused = text.partition('Models that are not aligned')[2].partition('##')[0]
    assert all(f'`{name}`' in refused for name in CHECKPOINTS.keys() - {*list_published()} if CHECKPOINTS[name]['file'])
    ratios = {name: CHECKPOINTS[name]['architecture']['projection']['ratio'] for name in list_published()
              if 'ratio' in CHECKPOINTS[name]['architecture'].get('projection', {})}
    assert {ratio: {name for name in ratios if ratios[name] == ratio} for ratio in ratios.values()} == {
        0.25: {'recon-zeroshot'}, 0.3: {'recon++-b-scanobjectnn', 'recon++-l-scanobjectnn'},
        0.5: {'recon++-b', 'recon++-b-modelnet40', 'recon++-l', 'recon++-l-modelnet40'}}
