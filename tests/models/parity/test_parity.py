"""Published files of every family, loaded, compute what the family computes."""
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest
import timm
import torch
from family_files import FILES, RECON_PLUS_PLUS_SIZES, UNI3D_SIZES, File, recon_plus_plus, uni3d
from family_formulas import Cloud, Output, group
from torch import Tensor, nn

from clipgs_plugin import load_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints import Contract, LoadReport

# Largest difference of numbers of the order of 1 from the formula in float64. In float64 a formula that is only nearly
# the same would be seen.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
B, N, G, K = 2, 96, 12, 8
# A word of why the tensors that begin so are not used.
REASONS = {
    'transformer_k.': 'momentum', 'dvae.': 'tokenizer', 'queue': 'negatives', 'transformer_q.lm_head': 'pre-training',
    'MAE_decoder.': 'decoder', 'cls_head_finetune.': 'classifier', 'visual.': 'CLIP', 'open_clip_model.': 'CLIP',
    'point_encoder.visual.': 'image model', 'img_encoder.': 'teacher', 'model.decoder': 'decoder',
    'model.norm.': 'never', 'MAE_encoder.encoder.n3_agg.nnn.': 'never', 'sh_head.': 'pre-training',
    'logit_scale': 'temperature',
}


class Loaded(NamedTuple):
    """A file and what came out of it."""

    file: File
    state: dict[str, Tensor]  # by the names of the file
    model: nn.Module
    report: LoadReport
    contract: Contract
    expected: Output          # of the family's own formula on ``some_patches``

    def formula(self, cloud: Cloud, center_idx: Tensor, neighbor_idx: Tensor, wrong: str = '') -> Output:
        return formula(self.file, self.state, wrong)(cloud, center_idx, neighbor_idx)

    def run(self, cloud: Cloud, *indices: Tensor, dtype: torch.dtype = torch.float32) -> Output:
        """The model on a cloud; with gradients in float64, which is the way without folded batch norms."""
        with torch.set_grad_enabled(dtype == torch.float64):
            output = self.model.to(dtype)(*(None if x is None else x.to(dtype) for x in cloud), *indices)
        self.model.float()
        return Output(*(x.detach().double() for x in output))


def formula(file, state, wrong=''):
    return file.formula(state, file.prefix, file.heads, wrong)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """On tensors as small as these, threads spend their time on waiting for each other."""
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
    return Loaded(file, state, *found, formula(file, state)(some_cloud(file.sees), *some_patches()))


@cache
def some_cloud(sees: str, gray: float | None = None) -> Cloud:
    """Two objects of six ends, and points about the origin, in the second the first of all."""
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
    return Cloud(points.double(), colors.double() if sees == 'rgb' else None,
                 gaussians.double() if sees == 'gaussians' else None)


@cache
def some_patches() -> tuple[Tensor, Tensor]:
    """Centres and neighbours that no rule would choose."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(N, (B, G), generator=generator), torch.randint(N, (B, G, K), generator=generator)


own_patches = cache(lambda radius, skips_origin: group(some_cloud('xyz').points.float(), G, K, radius, skips_origin))


def difference(found: Output, expected: Output) -> float:
    assert [x.shape for x in found] == [x.shape for x in expected]
    return max((a - b).abs().max().item() for a, b in zip(found, expected))


# What it computes


def test_the_objects_tell_the_rules_of_grouping_apart():
    (skipping, _), (exact, near) = own_patches(None, True), own_patches(None, False)
    middle = some_cloud('xyz').points.square().sum(-1) <= 1e-3
    assert middle.gather(1, skipping).nonzero().tolist() == [[1, 0]] and middle.gather(1, exact)[0].any()
    _, within = own_patches(0.2, False)
    counts = torch.tensor([[len(set(patch)) for patch in patches] for patches in within.tolist()])
    assert counts.min() < K and counts.max() == K and not torch.equal(within.sort().values, near.sort().values)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_outputs_are_those_of_the_family(loaded, dtype):
    assert all(0.1 < x.std() < 10 for x in loaded.expected)
    found = loaded.run(some_cloud(loaded.file.sees), *some_patches(), dtype=dtype)
    assert difference(found, loaded.expected) <= TOLERANCE[dtype]


def test_outputs_with_patches_of_its_own_are_those_of_the_family(loaded):
    tokenizer, is_openshape = loaded.model.tokenizer, loaded.file.family == 'openshape'
    if loaded.file.patches is not None:
        assert (tokenizer.num_groups, tokenizer.group_size, tokenizer.radius) == loaded.file.patches
    assert tokenizer.rule == ('exact' if is_openshape else 'pointnet2')
    tokenizer.num_groups, tokenizer.group_size = G, K
    if is_openshape:  # its centres start anywhere
        tokenizer.start = 0
    cloud, patches = some_cloud(loaded.file.sees), own_patches(tokenizer.radius, not is_openshape)
    assert difference(loaded.run(cloud), loaded.formula(cloud, *patches)) <= TOLERANCE[torch.float32]


def test_another_way_to_give_the_input(loaded):
    cloud = some_cloud(loaded.file.sees)
    if loaded.file.sees == 'rgb':  # no colours are grey
        cloud, expected = some_cloud('xyz'), loaded.formula(some_cloud('rgb', 0.4), *some_patches())
    elif loaded.file.sees == 'gaussians':  # positions may stand before the attributes
        cloud = cloud._replace(attributes=torch.cat([cloud.points, cloud.attributes], dim=-1))
        expected = loaded.expected
    else:  # colours are not seen
        cloud, expected = some_cloud('rgb'), loaded.expected
    assert difference(loaded.run(cloud, *some_patches()), expected) <= TOLERANCE[torch.float32]


def test_other_readings_of_the_same_tensors_would_be_seen(loaded):
    cloud = some_cloud(loaded.file.sees)
    found = loaded.run(cloud, *some_patches())
    apart = {wrong: difference(found, loaded.formula(cloud, *some_patches(), wrong)) for wrong in loaded.file.mistakes}
    assert min(apart.values()) > TOLERANCE[torch.float32], apart


# What was loaded


def test_every_tensor_of_the_file_is_loaded_or_named_with_a_reason(loaded):
    file, report = loaded.file, loaded.report
    assert report.family == file.family and report.complete
    assert set(report.unused) == set(file.dead)
    assert len(report.loaded) == len(set(report.loaded)) == len(file.used)
    assert all(reason and reason in str(report) for reason in report.unused.values())
    for name, reason in report.unused.items():
        assert all(word in reason for start, word in REASONS.items() if name.startswith(start)), (name, reason)


def test_every_value_is_that_of_the_file(loaded):
    used = {name: value.T if name == 'pc_projection' else value for name, value in loaded.state.items()
            if name in loaded.file.used}
    assert Counter(map(content, loaded.model.state_dict().values())) == Counter(map(content, used.values()))


def content(value: Tensor) -> tuple:
    """All of a tensor but where it is and its shape."""
    value = value.float() if value.is_floating_point() else value
    return value.dtype, value.numel(), hash(value.contiguous().numpy().tobytes())


def test_model_is_ready_and_its_space_known(loaded):
    assert not loaded.model.training
    assert loaded.contract.embed_dim == loaded.file.embed_dim
    assert (loaded.contract.missing_color is not None) == (loaded.file.sees == 'rgb')


# The shapes above are those of timm's models, from which the families took their blocks


def image_model(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device('meta'):
        return {key: tuple(value.shape) for key, value in timm.create_model(name).state_dict().items()}


@pytest.mark.parametrize(('size', 'name'), [*zip(UNI3D_SIZES, [
    'eva02_tiny_patch14_224', 'eva02_small_patch14_224', 'eva02_base_patch14_448', 'eva02_large_patch14_448',
    'eva_giant_patch14_560'])])
def test_uni3d_holds_an_image_model(size, name):
    file, image = uni3d(size, 1), image_model(name)
    held = {key.removeprefix('point_encoder.visual.'): shape for key, shape in (file.used | file.dead).items()
            if key.startswith('point_encoder.visual.')}
    assert held == {key: shape for key, shape in image.items() if not key.startswith('blocks.') or '.0.' in key[:9]}


@pytest.mark.parametrize(('size', 'name'), [*zip(RECON_PLUS_PLUS_SIZES, [
    'vit_small_patch14_dinov2', 'vit_base_patch32_clip_384', 'eva_large_patch14_336', 'vit_giant_patch14_clip_224'])])
def test_local_blocks_of_recon_plus_plus_are_those_of_an_image_model(size, name):
    start = 'model.encoder.blocks.local_blocks.0.'
    held = {key.removeprefix(start): shape for key, shape in recon_plus_plus(size, 1).used.items()
            if key.startswith(start)}
    assert held == {key.removeprefix('blocks.0.'): shape for key, shape in image_model(name).items()
                    if key.startswith('blocks.0.')}
