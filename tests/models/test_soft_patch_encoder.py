"""Patch encoder of Gaussian-MAE, compared with its formula in float64, and its input channels."""
import pytest
import torch

from clipgs_plugin import GaussianBatch
from clipgs_plugin.models import GSTokenizer
from clipgs_plugin.models.tokenizers.soft_patch_encoder import SoftNeighbors, SoftPatchEncoder

ATTRIBUTES = ('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc')  # in the order of Gaussian-MAE


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (value[0].numel() ** -0.5 if value.ndim == 3
                                                                         else 0.3))
            if name.startswith('n3_agg'):
                value.add_(1)  # temperatures of about e + 1, none near 0
        for name, value in module.named_buffers():
            if 'running' in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module.eval()


def small(**options):
    return randomised(SoftPatchEncoder(5, 12, widths=(8, 6, 10), num_neighbors=7, **options))


def patches(p=3, k=9, channels=5, seed=1):
    return torch.randn(p, k, channels, generator=torch.Generator().manual_seed(seed))


def formula(module, patches):
    """Compute the encoder in float64, Gaussian by Gaussian; batch norms use batch statistics in training."""
    w = {key: value.double() for key, value in module.state_dict().items()}

    def conv(rows, name):
        return rows @ w[f'{name}.weight'][..., 0].T + w[f'{name}.bias']

    def norm(rows, name):
        mean, var = w[f'{name}.running_mean'], w[f'{name}.running_var']
        if module.training:
            mean, var = rows.mean(0), rows.var(0, unbiased=False)
        return ((rows - mean) / (var + 1e-5).sqrt() * w[f'{name}.weight'] + w[f'{name}.bias']).clamp(min=0)

    def stage(rows, name):
        return conv(norm(conv(rows, f'{name}.0'), f'{name}.1'), f'{name}.3')

    p, k, _ = patches.shape
    local = stage(patches.double().flatten(0, 1), 'first_conv').unflatten(0, (p, k))
    rows = []
    for features in local:
        query = torch.stack([max(channel) for channel in features.T])
        soft = []
        for a, b in zip(w['n3_agg.learnable_temp'], w['n3_agg.log_temp_bias']):
            weights = torch.stack([(-((x - query) ** 2).sum() / (a.exp() + b)).exp() for x in features])
            soft.append(sum(weight * x for weight, x in zip(weights, features)) / weights.sum())
        pooled = torch.stack([max(channel) for channel in zip(*soft)])
        rows += [torch.cat([pooled, neighbor]) for neighbor in soft]
    return stage(torch.stack(rows), 'second_conv').unflatten(0, (p, -1)).max(1).values


@pytest.mark.parametrize('training', [False, True])
def test_reference_and_forward_match_the_formula(training):
    module = small().train(training)
    expected = formula(module, patches()).float()
    torch.testing.assert_close(module.reference(patches()), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(module(patches()), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(module(patches()), expected, atol=1e-5, rtol=0)


def test_inference_in_chunks_changes_nothing():
    module, many = small(), patches(p=1000)  # more than one chunk of 4,096 Gaussians
    with torch.no_grad():
        found = module(many)
    torch.testing.assert_close(found[[0, 499, 999]], formula(module, many[[0, 499, 999]]).float(), atol=1e-5, rtol=0)


def test_names_and_shapes_match_the_checkpoint():
    norm = {'weight': (), 'bias': (), 'running_mean': (), 'running_var': ()}
    assert {key: tuple(value.shape) for key, value in SoftPatchEncoder().state_dict().items()} == {
        'first_conv.0.weight': (128, 14, 1), 'first_conv.0.bias': (128,),
        **{f'first_conv.1.{key}': (128,) for key in norm}, 'first_conv.1.num_batches_tracked': (),
        'first_conv.3.weight': (128, 128, 1), 'first_conv.3.bias': (128,),
        'second_conv.0.weight': (256, 256, 1), 'second_conv.0.bias': (256,),
        **{f'second_conv.1.{key}': (256,) for key in norm}, 'second_conv.1.num_batches_tracked': (),
        'second_conv.3.weight': (384, 256, 1), 'second_conv.3.bias': (384,),
        'n3_agg.learnable_temp': (32,), 'n3_agg.log_temp_bias': (32,)}


def test_low_temperature_is_the_nearest_and_high_the_mean():
    module = small()
    features = patches()
    query = features[:, :1] + 0.1
    with torch.no_grad():
        module.n3_agg.log_temp_bias.zero_()
        module.n3_agg.learnable_temp.copy_(torch.tensor([-9.0, 0, 0, 0, 0, 0, 20]))
        found = module.n3_agg(features, query)
    torch.testing.assert_close(found[:, 0], features[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, -1], features.mean(1), atol=1e-6, rtol=0)


def test_the_order_of_gaussians_changes_nothing():
    module, order = small(), torch.randperm(9)
    torch.testing.assert_close(module(patches()[:, order]), module(patches()), atol=1e-6, rtol=0)


def test_reference_and_forward_have_the_same_finite_gradients():
    gradients = []
    for method in ('forward', 'reference'):
        module, x = small().double().train(), patches().double().requires_grad_()
        (getattr(module, method)(x) * torch.arange(12)).sum().backward()
        gradients.append({'x': x.grad, **{name: value.grad for name, value in module.named_parameters()}})
    for name, value in gradients[0].items():
        assert value.isfinite().all(), name
        torch.testing.assert_close(value, gradients[1][name], atol=1e-9, rtol=0)
    assert all(gradients[0][f'n3_agg.{name}'].abs().min() > 0 for name in ('learnable_temp', 'log_temp_bias'))


@pytest.mark.parametrize('method', ['forward', 'reference'])
def test_equal_soft_neighbours_get_different_gradients(method):
    module = SoftPatchEncoder(5, 12, widths=(8, 6, 10), num_neighbors=7)
    assert len(set((module.n3_agg.learnable_temp.exp() + module.n3_agg.log_temp_bias).tolist())) == 1
    (getattr(module, method)(patches()) * torch.arange(12)).sum().backward()
    gradient = module.n3_agg.learnable_temp.grad
    assert gradient.max() - gradient.min() > 1e-3 * gradient.abs().max()


def test_zero_soft_neighbours_are_refused():
    with pytest.raises(ValueError, match='num_neighbors=0'):
        SoftPatchEncoder(num_neighbors=0)


# Inside a tokenizer


def tokenizer(**options):
    return GSTokenizer(num_groups=2, group_size=40, channels=24, point_attributes=ATTRIBUTES, refine=False, start=0,
                       patch_encoder=dict(type='SoftPatchEncoder', widths=(16, 16, 32)), **options).eval()


def test_input_channels_match_gaussian_mae(random_cloud):
    cloud = random_cloud(40)
    module, seen = tokenizer(), []
    module.patch_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    tokens = module(GaussianBatch.from_clouds([cloud]))
    assert tokens.features.shape == (1, 2, 24) and tokens.features.isfinite().all()

    quats = cloud.quats.double()
    quats = quats / quats.square().sum(-1, keepdim=True).sqrt()
    quats = torch.stack([-q if q[0] < 0 else q for q in quats])
    means, colours = cloud.means.double(), cloud.sh[:, 0].double()
    # Colours are clamped to 0.5 + 0.282 SH in [0, 1].
    limit = 0.5 / 0.28209479177387814
    assert colours.abs().max() < limit
    rest = torch.cat([1 / (1 + (-cloud.opacity_logits.double()).exp())[:, None], cloud.log_scales.double().exp(),
                      quats, colours], dim=1)
    # Every patch is the whole cloud. The first centre is the first Gaussian, the second the one farthest from it.
    distances = (means - means[0]).square().sum(-1)
    for patch, center in zip(seen[0], (0, int(distances.argmax())), strict=True):
        offsets = means - means[center]
        nearest_first = sorted(range(40), key=lambda i, at=offsets: at[i].square().sum().item())
        expected = torch.cat([offsets, rest], dim=1)[nearest_first]
        assert patch.shape == (40, 14)
        torch.testing.assert_close(patch, expected.float(), atol=1e-5, rtol=0)


def test_shorter_object_in_the_batch_changes_nothing(random_cloud):
    module, cloud = tokenizer(), random_cloud(60)
    alone = module(GaussianBatch.from_clouds([cloud])).features[0]
    both = module(GaussianBatch.from_clouds([cloud, random_cloud(1, seed=2)]))
    torch.testing.assert_close(both.features[0], alone, atol=1e-6, rtol=0)
    assert both.features[1, 0].isfinite().all() and (both.features[1, 1] == 0).all()


def test_soft_neighbours_begin_at_temperature_one():
    features, query = torch.randn(2, 5, 3), torch.randn(2, 1, 3)
    distances = (features - query).square().sum(-1)
    expected = (-distances).softmax(-1)[:, None] @ features
    torch.testing.assert_close(SoftNeighbors(4)(features, query), expected.expand(2, 4, 3))
