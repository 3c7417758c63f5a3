"""Parity of loaded files with the formula of their family."""
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest
import timm
import torch
from family_files import FILES, RECON_PLUS_PLUS_SIZES, UNI3D_SIZES, File, recon_plus_plus, uni3d
from family_formulas import Cloud, Output, group
from torch import Tensor, nn

from clipgs_plugin import GaussianBatch, GaussianCloud, load_point_cloud_checkpoint
from clipgs_plugin.models import GSEncoder
from clipgs_plugin.models.checkpoints import Contract, LoadReport, open_point_cloud_checkpoint
from clipgs_plugin.structures.gaussian_cloud import SH_C0

# Maximum difference from the formula in float64, for numbers of the order of 1. The float64 tolerance detects even a
# nearly identical formula.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
B, N, G, K = 2, 96, 12, 8
# A word of the reason for unused tensors, by the beginning of their names.
REASONS = {
    'transformer_k.': 'momentum', 'dvae.': 'tokenizer', 'queue': 'negatives', 'transformer_q.lm_head': 'pre-training',
    'MAE_decoder.': 'decoder', 'cls_head_finetune.': 'classifier', 'visual.': 'CLIP', 'open_clip_model.': 'CLIP',
    'point_encoder.visual.': 'image model', 'img_encoder.': 'teacher', 'model.decoder': 'decoder',
    'model.norm.': 'never', 'MAE_encoder.encoder.n3_agg.nnn.': 'never', 'sh_head.': 'pre-training',
    'logit_scale': 'temperature',
}


class Loaded(NamedTuple):
    """A file with its loaded model, report and expected output."""

    file: File
    state: dict[str, Tensor]  # by names in the file
    model: nn.Module
    report: LoadReport
    contract: Contract
    expected: Output          # of the family's formula on ``some_patches``

    def formula(self, cloud: Cloud, center_idx: Tensor, neighbor_idx: Tensor, wrong: str = '') -> Output:
        return formula(self.file, self.state, wrong)(cloud, center_idx, neighbor_idx)

    def run(self, cloud: Cloud, *indices: Tensor, dtype: torch.dtype = torch.float32) -> Output:
        """Run the model on a cloud. Float64 runs with gradients, and therefore without folded batch norms."""
        with torch.set_grad_enabled(dtype == torch.float64):
            output = self.model.to(dtype)(*(None if x is None else x.to(dtype) for x in cloud), *indices)
        self.model.float()
        return Output(*(x.detach().double() for x in output))


def formula(file, state, wrong=''):
    return file.formula(state, file.prefix, file.heads, wrong)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Use one thread, because threads mostly wait for each other on such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module', params=FILES)
def loaded(request, tmp_path_factory) -> Loaded:
    file = FILES[request.param]
    state = file.state()
    path = tmp_path_factory.mktemp('files') / f'{request.param}.pt'
    torch.save(file.wrap(state), path)
    found = load_point_cloud_checkpoint(path, finetuned=file.finetuned)
    path.unlink()
    return Loaded(file, state, *found, formula(file, state)(some_cloud(file.inputs), *some_patches()))


@cache
def some_cloud(inputs: str, gray: float | None = None) -> Cloud:
    """Make two objects with points at six ends and near the origin. The second one starts near the origin."""
    generator = torch.Generator().manual_seed(1)
    ends = torch.cat([torch.eye(3), -torch.eye(3)])[torch.arange(N) % 6]
    points = 0.8 * ends + 0.1 * torch.randn(B, N, 3, generator=generator)
    points[:, 40:46] = 0.008 * torch.randn(B, 6, 3, generator=generator)
    points[1, 0] = torch.tensor([0.01, 0.02, -0.01])
    colors = torch.rand(B, N, 3, generator=generator) if gray is None else torch.full((B, N, 3), gray)
    gaussians = torch.cat([
        torch.rand(B, N, 1, generator=generator), torch.rand(B, N, 3, generator=generator) * 0.1,
        nn.functional.normalize(torch.randn(B, N, 4, generator=generator), dim=-1),
        torch.randn(B, N, 3, generator=generator)], dim=-1)
    return Cloud(points.double(), colors.double() if inputs == 'rgb' else None,
                 gaussians.double() if inputs == 'gaussians' else None)


@cache
def some_patches() -> tuple[Tensor, Tensor]:
    """Draw random centres and neighbours, which no sampling rule would choose."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(N, (B, G), generator=generator), torch.randint(N, (B, G, K), generator=generator)


own_patches = cache(lambda radius, skips_origin: group(some_cloud('xyz').points.float(), G, K, radius, skips_origin))


def difference(found: Output, expected: Output) -> float:
    assert [x.shape for x in found] == [x.shape for x in expected]
    return max((a - b).abs().max().item() for a, b in zip(found, expected))


# Outputs


def test_the_test_objects_distinguish_the_rules_of_grouping():
    (skipping, _), (exact, near) = own_patches(None, True), own_patches(None, False)
    middle = some_cloud('xyz').points.square().sum(-1) <= 1e-3
    assert middle.gather(1, skipping).nonzero().tolist() == [[1, 0]] and middle.gather(1, exact)[0].any()
    _, within = own_patches(0.2, False)
    counts = torch.tensor([[len(set(patch)) for patch in patches] for patches in within.tolist()])
    assert counts.min() < K and counts.max() == K and not torch.equal(within.sort().values, near.sort().values)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_outputs_equal_the_formula_of_the_family(loaded, dtype):
    assert all(0.1 < x.std() < 10 for x in loaded.expected)
    found = loaded.run(some_cloud(loaded.file.inputs), *some_patches(), dtype=dtype)
    assert difference(found, loaded.expected) <= TOLERANCE[dtype]


def test_outputs_with_the_models_own_patches_equal_the_formula(loaded):
    tokenizer, is_openshape = loaded.model.tokenizer, loaded.file.family == 'openshape'
    if loaded.file.patches is not None:
        assert (tokenizer.num_groups, tokenizer.group_size, tokenizer.radius) == loaded.file.patches
    assert tokenizer.rule == ('exact' if is_openshape else 'pointnet2')
    tokenizer.num_groups, tokenizer.group_size = G, K
    if is_openshape:  # it starts at a random point
        tokenizer.start = 0
    cloud, patches = some_cloud(loaded.file.inputs), own_patches(tokenizer.radius, not is_openshape)
    assert difference(loaded.run(cloud), loaded.formula(cloud, *patches)) <= TOLERANCE[torch.float32]


def test_alternative_inputs_give_the_expected_output(loaded):
    cloud = some_cloud(loaded.file.inputs)
    if loaded.file.inputs == 'rgb':  # missing colours are grey
        cloud, expected = some_cloud('xyz'), loaded.formula(some_cloud('rgb', 0.4), *some_patches())
    elif loaded.file.inputs == 'gaussians':  # positions may precede the attributes
        cloud = cloud._replace(attributes=torch.cat([cloud.points, cloud.attributes], dim=-1))
        expected = loaded.expected
    else:  # colours are ignored
        cloud, expected = some_cloud('rgb'), loaded.expected
    assert difference(loaded.run(cloud, *some_patches()), expected) <= TOLERANCE[torch.float32]


def test_wrong_formulas_on_the_same_tensors_are_detected(loaded):
    cloud = some_cloud(loaded.file.inputs)
    found = loaded.run(cloud, *some_patches())
    differences = {wrong: difference(found, loaded.formula(cloud, *some_patches(), wrong))
                   for wrong in loaded.file.mistakes}
    assert min(differences.values()) > TOLERANCE[torch.float32], differences


# Encoders that start from an aligned model

ALIGNED = ('ulip-1', 'ulip-2', 'uni3d-ti', 'openshape-4', 'openshape-vitl14')


def some_gaussians() -> GaussianBatch:
    """Make Gaussians with the positions and colours of the test objects."""
    cloud, generator = some_cloud('rgb'), torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.randn(N, *shape, generator=generator)  # noqa: E731
    return GaussianBatch.from_clouds([
        GaussianCloud(points.float(), draw(4), draw(3) * 0.4 - 3, draw(), ((colors.float() - 0.5) / SH_C0)[:, None])
        for points, colors in zip(cloud.points, cloud.colors)])


def embedding_of_the_model(path, contract) -> Tensor:
    """Embed the test objects with the published model, which takes them in its own frame."""
    model = load_point_cloud_checkpoint(path).model
    model.tokenizer.num_groups, model.tokenizer.group_size = G, K
    batch = some_gaussians()
    with torch.no_grad():
        return model(batch.means[..., contract.point_axes], batch.rgb).embedding


def embedding_of_the_encoder(encoder) -> Tensor:
    assert encoder.tokenizer.refinement.gate.weight.count_nonzero() == 0
    encoder.tokenizer.num_groups, encoder.tokenizer.group_size = G, K
    with torch.no_grad():
        return encoder.eval()(some_gaussians())


@pytest.mark.parametrize('name', ALIGNED)
@pytest.mark.parametrize('way', ['init_cfg', 'load_point_cloud_checkpoint'])
def test_an_encoder_starts_in_the_space_of_an_aligned_model(tmp_path, name, way):
    path = tmp_path / f'{name}.pt'
    torch.save(FILES[name].wrap(FILES[name].state()), path)
    found = open_point_cloud_checkpoint(path)
    init_cfg = dict(type='PointCloudPretrained', checkpoint=str(path))
    encoder = GSEncoder(dict(type='GSTokenizer', **found.contract.tokenizer_options(), **found.architecture.tokenizer),
                        found.architecture.backbone, found.architecture.embed_dim, init_cfg)
    if way == 'init_cfg':
        encoder.init_weights()
        report, = encoder.load_reports
    else:
        report = load_point_cloud_checkpoint(path, encoder).report
    assert not report.disagreements
    expected = embedding_of_the_model(path, found.contract)
    assert 0.1 < expected.std() < 10
    assert (embedding_of_the_encoder(encoder) - expected).abs().max() <= TOLERANCE[torch.float32]


def test_one_line_builds_an_encoder_in_the_space_of_its_model(tmp_path, monkeypatch):
    torch.save(FILES['uni3d-ti'].wrap(FILES['uni3d-ti'].state()), tmp_path / 'uni3d-ti.pt')
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    encoder = GSEncoder(backbone='uni3d-ti', embed_dim=1024)
    encoder.init_weights()
    expected = embedding_of_the_model('uni3d-ti', open_point_cloud_checkpoint('uni3d-ti').contract)
    assert (embedding_of_the_encoder(encoder) - expected).abs().max() <= TOLERANCE[torch.float32]


# Loaded tensors


def test_every_tensor_is_loaded_or_reported_with_a_reason(loaded):
    file, report = loaded.file, loaded.report
    assert report.family == file.family and report.complete
    assert set(report.unused) == set(file.dead)
    assert len(report.loaded) == len(set(report.loaded)) == len(file.used)
    assert all(reason and reason in str(report) for reason in report.unused.values())
    for name, reason in report.unused.items():
        assert all(word in reason for start, word in REASONS.items() if name.startswith(start)), (name, reason)


def test_every_loaded_value_equals_the_file(loaded):
    used = {name: value.T if name == 'pc_projection' else value for name, value in loaded.state.items()
            if name in loaded.file.used}
    assert Counter(map(content, loaded.model.state_dict().values())) == Counter(map(content, used.values()))


def content(value: Tensor) -> tuple:
    """Return the type, size and value hash of a tensor, without its shape."""
    value = value.float() if value.is_floating_point() else value
    return value.dtype, value.numel(), hash(value.contiguous().numpy().tobytes())


def test_the_model_is_in_eval_mode_with_a_complete_contract(loaded):
    assert not loaded.model.training
    assert loaded.contract.embed_dim == loaded.file.embed_dim
    assert (loaded.contract.missing_color is not None) == (loaded.file.inputs == 'rgb')


# Shapes of family_files against the timm models from which the families took their blocks


def image_model(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device('meta'):
        return {key: tuple(value.shape) for key, value in timm.create_model(name).state_dict().items()}


@pytest.mark.parametrize(('size', 'name'), [*zip(UNI3D_SIZES, [
    'eva02_tiny_patch14_224', 'eva02_small_patch14_224', 'eva02_base_patch14_448', 'eva02_large_patch14_448',
    'eva_giant_patch14_560'])])
def test_uni3d_files_contain_an_image_model(size, name):
    file, image = uni3d(size, 1), image_model(name)
    stored = {key.removeprefix('point_encoder.visual.'): shape for key, shape in (file.used | file.dead).items()
            if key.startswith('point_encoder.visual.')}
    assert stored == {key: shape for key, shape in image.items() if not key.startswith('blocks.') or '.0.' in key[:9]}


@pytest.mark.parametrize(('size', 'name'), [*zip(RECON_PLUS_PLUS_SIZES, [
    'vit_small_patch14_dinov2', 'vit_base_patch32_clip_384', 'eva_large_patch14_336', 'vit_giant_patch14_clip_224'])])
def test_local_blocks_of_recon_plus_plus_match_an_image_model(size, name):
    start = 'model.encoder.blocks.local_blocks.0.'
    stored = {key.removeprefix(start): shape for key, shape in recon_plus_plus(size, 1).used.items()
            if key.startswith(start)}
    assert stored == {key.removeprefix('blocks.0.'): shape for key, shape in image_model(name).items()
                    if key.startswith('blocks.0.')}
