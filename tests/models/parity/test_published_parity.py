"""Parity of the models that answer by a published name with the plain point-cloud models of their files."""
import math

import pytest
import torch
import torch.nn.functional as F
from family_files import FILES, openshape, recon_plus_plus, recon_zeroshot, ulip_2, uni3d

from clipgs_plugin import GaussianBatch, GaussianCloud, get_model, load_point_cloud_checkpoint
from clipgs_plugin.models import GSEncoder
from clipgs_plugin.models.checkpoints import Contract
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.structures.gaussian_cloud import SH_C0

B, N, G, K = 2, 80, 10, 6
TOLERANCE = 2e-5  # float32, for numbers of the order of 1
# Files in published form, with few blocks where the published model is large, and what differs in their architecture.
CASES = {
    'uni3d-ti': (FILES['uni3d-ti'], {}), 'uni3d-s': (uni3d('s', 1), {'depth': 1}),
    'uni3d-b': (uni3d('b', 1), {'depth': 1}), 'uni3d-l-no-lvis': (uni3d('l', 1), {'depth': 1}),
    'openshape-pointbert-vitg14': (openshape(4), {}), 'openshape-pointbert-shapenet': (openshape(1), {}),
    'openshape-pointbert-vitl14': (openshape(3, 'pc_encoder.ppat.', 'pc_encoder.proj', dict),
                                   {'depth': 4, 'scaling': 2}),
    'openshape-pointbert-vitb32': (openshape(3, 'pc_encoder.', '', dict), {'depth': 4, 'scaling': 2}),
    'ulip2-pointbert-10k-colored': (ulip_2(1), {'depth': 1}),
    'recon-zeroshot': (recon_zeroshot(2), {'depth': 2}),
    'recon++-b': (recon_plus_plus('b', 1), {'depth': 1}),
    'recon++-b-scanobjectnn': (recon_plus_plus('b', 1), {'depth': 1}),
}
HAS_TEMPERATURE = ('uni3d', 'ulip2', 'openshape-pointbert-vitg14', 'openshape-pointbert-shapenet')
RATIOS = {'recon-zeroshot': 0.25, 'recon++-b': 0.5, 'recon++-b-scanobjectnn': 0.3}


@pytest.fixture(scope='module', params=CASES)
def named(request, tmp_path_factory):
    """Return a name, the model that answers by it, and the plain model of its file."""
    file, changes = CASES[request.param]
    folder = tmp_path_factory.mktemp('files')
    path = folder / f'{request.param}.pt'
    torch.save(file.wrap(file.state()), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CLIPGS_CHECKPOINTS', str(folder))
        for key, value in changes.items():
            patch.setitem(load_catalogue('checkpoints')[request.param]['architecture']['backbone'], key, value)
        models = get_model(request.param), load_point_cloud_checkpoint(path).model
    path.unlink()
    for model in models:
        tokenizer = model.encoder.tokenizer if hasattr(model, 'encoder') else model.tokenizer
        tokenizer.num_groups, tokenizer.group_size, tokenizer.start = G, K, 0
    return request.param, *models


def some_gaussians() -> GaussianBatch:
    draw = torch.Generator().manual_seed(5)
    return GaussianBatch.from_clouds([
        GaussianCloud(torch.rand(N, 3, generator=draw) - 0.5, torch.randn(N, 4, generator=draw),
                      torch.randn(N, 3, generator=draw) - 3, torch.randn(N, generator=draw),
                      ((torch.rand(N, 1, 3, generator=draw) - 0.5) / SH_C0)) for _ in range(B)])


def plain_embedding(name, plain):
    contract = Contract.from_dict(load_catalogue('checkpoints')[name]['contract'])
    batch = some_gaussians()
    with torch.no_grad():
        return plain(batch.means[..., contract.point_axes], batch.rgb).embedding


def mixed_by_hand(name, vectors):
    """Mix the vectors of queries as the zero-shot evaluations of ReCon and ReCon++ do."""
    if name == 'recon-zeroshot':
        return vectors[:, 0] + 0.25 * vectors[:, 1]
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit[:, :13].sum(1) / 13 + RATIOS[name] * unit[:, 13:].sum(1) / 3


def test_a_name_gives_the_embedding_of_the_published_model(named):
    name, model, plain = named
    expected = plain_embedding(name, plain)
    if name in RATIOS:
        expected = mixed_by_hand(name, expected)
    with torch.no_grad():
        found = model(some_gaussians(), mode='tensor')
    assert found.shape == expected.shape and 0.01 < expected.std() < 10
    assert (found - expected).abs().max() <= TOLERANCE
    assert (expected[0] - expected[1]).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize('named', ['uni3d-s', 'recon-zeroshot', 'openshape-pointbert-shapenet'], indirect=True)
def test_the_tokenizer_of_the_paper_with_a_closed_gate_changes_nothing(named):
    name, model, _ = named
    encoder, options = model.encoder, dict(model.cfg.model.encoder)
    del options['type'], options['init_cfg']
    options['backbone'] = dict(type=name, depth=depth_of(encoder.backbone))
    paper = GSEncoder(**{**options, 'tokenizer': {}}).eval()
    assert paper.tokenizer.refinement.gate.weight.count_nonzero() == 0
    state = paper.state_dict() | encoder.state_dict()
    assert state.keys() - encoder.state_dict().keys() == {key for key in state if 'refinement' in key}
    paper.load_state_dict(state)
    paper.tokenizer.num_groups, paper.tokenizer.group_size, paper.tokenizer.start = G, K, 0
    with torch.no_grad():
        assert (paper(some_gaussians()) - encoder(some_gaussians())).abs().max() <= TOLERANCE


def depth_of(backbone):
    """Count the blocks of a backbone."""
    return max(len(module) for module in backbone.modules() if isinstance(module, torch.nn.ModuleList))


@pytest.mark.parametrize('named', RATIOS, indirect=True)
def test_the_cosine_with_a_text_is_the_published_score_up_to_scale(named):
    name, model, plain = named
    vectors = plain_embedding(name, plain)
    texts = F.normalize(torch.randn(7, vectors.shape[-1], generator=torch.Generator().manual_seed(1)), dim=-1)
    with torch.no_grad():
        embedding = model(some_gaussians(), mode='tensor')
    cosines = F.normalize(embedding, dim=-1) @ texts.T
    if name == 'recon-zeroshot':  # the cosine of the mix is the published score itself
        published = F.cosine_similarity(mixed_by_hand(name, vectors)[:, None], texts, dim=-1)
        assert (cosines - published).abs().max() <= TOLERANCE
        return
    each = F.cosine_similarity(vectors[:, :, None], texts, dim=-1)  # (B, 16, 7)
    published = each[:, :13].mean(1) + RATIOS[name] * each[:, 13:].mean(1)
    assert (cosines * embedding.norm(dim=-1, keepdim=True) - published).abs().max() <= TOLERANCE
    assert torch.equal(cosines.argsort(1), published.argsort(1))


@pytest.mark.parametrize('named', RATIOS, indirect=True)
def test_the_ratio_of_the_mix_is_a_setting(named):
    name, model, plain = named
    projection = model.encoder.projection
    assert projection.ratio == RATIOS[name] == model.cfg.model.encoder.projection.ratio
    vectors = plain_embedding(name, plain)[:, :-projection.num_text]
    expected = (F.normalize(vectors, dim=-1) if projection.unit else vectors).mean(1)
    projection.ratio = 0
    with torch.no_grad():
        assert (model(some_gaussians(), mode='tensor') - expected).abs().max() <= TOLERANCE
    projection.ratio = RATIOS[name]


def test_the_temperature_is_that_of_the_file(named):
    name, model, _ = named
    expected = 4.25 if name.startswith(HAS_TEMPERATURE) else math.log(100)  # float16 in a file of Uni3D
    assert model.logit_scale.item() == pytest.approx(expected, abs=4e-3)
    assert model.cfg.model.init_logit_scale == pytest.approx(model.logit_scale.item())
