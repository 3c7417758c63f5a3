"""OpenShape's PointBERT and its patch encoder, compared with their formulas in float64."""
import numpy as np
import pytest
import torch
from formulas import Formula, gelu, randomise, tokens

from clipgs_plugin import GaussianBatch
from clipgs_plugin.models.backbones.openshape import OpenShapePPAT
from clipgs_plugin.models.tokenizers import GSTokenizer
from clipgs_plugin.models.tokenizers.set_abstraction import SetAbstraction
from clipgs_plugin.models.tokenizers.tokens import Tokens

# Patch encoder


def set_abstraction_float64(state, patches):
    """Compute three layers for each point and the maximum of each channel, in float64 numpy."""
    w = {key: value.double().numpy() for key, value in state.items()}
    encoded = []
    for patch in np.asarray(patches, dtype=np.float64):
        values = []
        for point in patch:
            for i in range(3):
                conv, norm = f'mlp_convs.{i}', f'mlp_bns.{i}'
                point = w[f'{conv}.weight'][:, :, 0, 0] @ point + w[f'{conv}.bias']
                point = (point - w[f'{norm}.running_mean']) / np.sqrt(w[f'{norm}.running_var'] + 1e-5)
                point = np.maximum(point * w[f'{norm}.weight'] + w[f'{norm}.bias'], 0)
            values.append(point)
        encoded.append(np.max(values, axis=0))
    return torch.from_numpy(np.stack(encoded)).float()


def test_reference_and_fast_set_abstraction_match_the_published_formula():
    encoder = randomise(SetAbstraction(9, 40, (16, 24)))
    patches = torch.randn(700, 7, 9)  # more than one chunk
    expected = set_abstraction_float64(encoder.state_dict(), patches)
    with torch.no_grad():
        torch.testing.assert_close(encoder.reference(patches), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder(patches), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(patches), expected, atol=1e-5, rtol=0)  # with gradients: not folded


def test_set_abstraction_trains_like_its_reference():
    reference, fast = (randomise(SetAbstraction(9, 20, (8, 12))).train().double() for _ in range(2))
    patches = torch.randn(30, 7, 9, dtype=torch.float64)
    patches[::2, 4:] = patches[::2, :1]  # a patch filled with repeats
    outputs = reference.reference(patches), fast(patches)
    torch.testing.assert_close(*outputs, atol=1e-10, rtol=0)
    for output in outputs:
        output.square().sum().backward()
    for (name, a), b in zip(reference.named_parameters(), fast.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-9, rtol=0, msg=lambda m, n=name: f'{n}: {m}')
    for (name, a), b in zip(reference.named_buffers(), fast.buffers()):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0, msg=lambda m, n=name: f'{n}: {m}')


def test_set_abstraction_in_half_precision_is_close():
    encoder = randomise(SetAbstraction())
    patches = torch.randn(50, 16, 9)
    with torch.no_grad():
        expected = encoder.reference(patches)
        with torch.autocast('cpu', torch.bfloat16):
            autocast = encoder(patches)
        cast = encoder.bfloat16()(patches.bfloat16())
    for found in (autocast, cast):
        assert torch.cosine_similarity(found.float(), expected, dim=-1).min() >= 0.9999


def test_set_abstraction_has_the_names_and_shapes_of_published_checkpoints():
    shapes = {key: tuple(value.shape) for key, value in SetAbstraction().state_dict().items()
              if not key.endswith('num_batches_tracked')}
    assert shapes == {
        'mlp_convs.0.weight': (64, 9, 1, 1), 'mlp_convs.0.bias': (64,),
        'mlp_convs.1.weight': (64, 64, 1, 1), 'mlp_convs.1.bias': (64,),
        'mlp_convs.2.weight': (256, 64, 1, 1), 'mlp_convs.2.bias': (256,),
        **{f'mlp_bns.{i}.{name}': (width,) for i, width in enumerate((64, 64, 256))
           for name in ('weight', 'bias', 'running_mean', 'running_var')}}
    assert f'{SetAbstraction.first_layer}.weight' in shapes


# From a cloud to tokens


def published_tokens(state, cloud, num_groups, group_size, radius):
    """Compute OpenShape's tokens and centres of a cloud with y and z swapped, by loops in float64."""
    points = cloud.means.double().numpy()[:, [0, 2, 1]]
    colours = np.clip(0.5 + 0.28209479177387814 * cloud.sh[:, 0].double().numpy(), 0, 1)
    centers, nearest = [0], np.full(len(points), np.inf)
    while len(centers) < num_groups:
        nearest = np.minimum(nearest, np.square(points - points[centers[-1]]).sum(1))
        centers.append(int(nearest.argmax()))
    patches = []
    for center in points[centers]:
        inside = [i for i, point in enumerate(points) if np.square(point - center).sum() <= radius ** 2]
        inside = (inside + inside[:1] * group_size)[:group_size]
        patches.append([np.concatenate([points[i] - center, points[i], colours[i]]) for i in inside])
    return set_abstraction_float64(state, np.array(patches)), torch.from_numpy(points[centers]).float()


def test_tokenizer_matches_that_of_openshape(random_cloud):
    clouds = [random_cloud(1500), random_cloud(60, seed=1)]  # full patches, and patches of one or two points
    module = randomise(GSTokenizer(num_groups=24, group_size=12, channels=32, start=0, radius=0.2, refine=False,
                                   point_attributes=('xyz', 'position', 'rgb'), point_axes=(0, 2, 1),
                                   patch_encoder=dict(type='SetAbstraction')))
    with torch.no_grad():
        found = module(GaussianBatch.from_clouds(clouds))
    assert found.mask is None
    for cloud, features, centers in zip(clouds, found.features, found.centers):
        expected = published_tokens(module.patch_encoder.state_dict(), cloud, 24, 12, 0.2)
        torch.testing.assert_close(features, expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(centers, expected[1], atol=1e-5, rtol=0)


# Transformer


def ppat(module, tokens, depth, heads):
    """Compute the class token by the published formula, with prompts as further tokens."""
    f = Formula(module)
    x = torch.cat([tokens.centers, tokens.features], -1).double()
    x = f.norm(x @ f.w['lift.0.weight'][:, :, 0].T + f.w['lift.0.bias'], 'lift.2')
    x = torch.cat([f.w['cls_token'].expand(len(x), -1, -1), x], 1)
    if 'prompt_tokens' in f.w:
        x = torch.cat([x, f.w['prompt_tokens'].expand(len(x), -1, -1)], 1)
    for i in range(depth):
        name = f'transformer.layers.{i}'
        q, k, v = f.linear(f.norm(x, f'{name}.0.norm'), f'{name}.0.fn.to_qkv').chunk(3, dim=-1)
        x = x + f.linear(f.attend(q, k, v, heads), f'{name}.0.fn.to_out.0')
        hidden = gelu(f.linear(f.norm(x, f'{name}.1.norm'), f'{name}.1.fn.net.0'))
        x = x + f.linear(hidden, f'{name}.1.fn.net.3')
    return x[:, 0].float()


@pytest.mark.parametrize('num_prompts', [0, 3])
@pytest.mark.parametrize(('scaling', 'heads'), [(1, 4), (4, 8), (6, 12)])
def test_ppat_matches_its_formula(scaling, heads, num_prompts):
    module = randomise(OpenShapePPAT(scaling, in_channels=24, depth=2, num_prompts=num_prompts))
    torch.testing.assert_close(module(tokens()), ppat(module, tokens(), 2, heads), atol=1e-5, rtol=0)


def test_ppat_has_the_names_and_shapes_of_published_checkpoints():
    with torch.device('meta'):
        module = OpenShapePPAT()
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    layer = {'0.norm.weight': (512,), '0.norm.bias': (512,), '0.fn.to_qkv.weight': (1536, 512),
             '0.fn.to_out.0.weight': (512, 512), '0.fn.to_out.0.bias': (512,),
             '1.norm.weight': (512,), '1.norm.bias': (512,), '1.fn.net.0.weight': (1536, 512),
             '1.fn.net.0.bias': (1536,), '1.fn.net.3.weight': (512, 1536), '1.fn.net.3.bias': (512,)}
    assert shapes == {
        'lift.0.weight': (512, 259, 1), 'lift.0.bias': (512,), 'lift.2.weight': (512,), 'lift.2.bias': (512,),
        'cls_token': (1, 1, 512), **{f'transformer.layers.{i}.{key}': shape for i in range(12)
                                     for key, shape in layer.items()}}


def test_default_has_the_published_number_of_parameters():
    with torch.device('meta'):
        modules = OpenShapePPAT(), SetAbstraction(), torch.nn.Linear(512, 1280)
    assert sum(p.numel() for module in modules for p in module.parameters()) / 1e6 == pytest.approx(32.3, abs=0.05)


@pytest.mark.parametrize(('scaling', 'dim', 'depth', 'heads', 'mlp_dim'), [
    (1, 256, 6, 4, 1024), (2, 512, 6, 8, 1024), (3, 512, 12, 8, 1024), (4, 512, 12, 8, 512 * 3),
    (5, 768, 12, 12, 768 * 3), (6, 768, 24, 12, 768 * 4)])
def test_sizes_match_those_of_openshape(scaling, dim, depth, heads, mlp_dim):
    with torch.device('meta'):
        module = OpenShapePPAT(scaling, in_channels=96)
    assert module.out_channels == dim and module.lift[0].weight.shape == (dim, 99, 1)
    assert len(module.transformer.layers) == depth
    for attention, mlp in module.transformer.layers:
        assert attention.fn.num_heads == heads and mlp.fn.net[0].out_features == mlp_dim


def test_masked_tokens_change_nothing():
    module = randomise(OpenShapePPAT(1, in_channels=24, depth=2, num_prompts=2))
    some = tokens(masked=[4, 10])
    expected = ppat(module, Tokens(some.features[:1, :4], some.centers[:1, :4]), 2, 4)[0]
    torch.testing.assert_close(module(some)[0], expected, atol=1e-5, rtol=0)
    garbage = some._replace(features=some.features.clone(), centers=some.centers.clone())
    garbage.features[0, 4:] = 1e4
    garbage.centers[0, 4:] = -1e4
    torch.testing.assert_close(module(garbage)[0], expected, atol=1e-5, rtol=0)
    assert (module(garbage._replace(mask=None))[0] - expected).abs().max() > 1e-2


def test_ppat_has_the_common_interface():
    module = randomise(OpenShapePPAT(1, in_channels=24, depth=1, num_prompts=2))
    features = module.forward_features(tokens())
    assert module.input == 'tokens' and module.in_channels == 24
    assert features.shape == (2, 11, 256)  # prompts are not read out
    assert torch.equal(module.pool(features), module(tokens())) and module.out_channels == 256
    beginnings = [beginning for names in module.parts.values() for beginning in names]
    for name, _ in module.named_parameters():
        assert name == 'prompt_tokens' or sum(map(name.startswith, beginnings)) == 1, name


def gradients(seed=0, **options):
    """Return the gradients of a model with fixed weights and the number of calls of its blocks."""
    module = randomise(OpenShapePPAT(1, in_channels=24, depth=3, num_prompts=2, **options)).train()
    runs = []
    for layer in module.transformer.layers:
        layer.register_forward_pre_hook(lambda *_: runs.append(1))
    torch.manual_seed(seed)
    module(tokens(masked=[4, 10])).square().sum().backward()
    return {name: p.grad for name, p in module.named_parameters()}, len(runs)


def test_recomputed_blocks_have_the_same_gradients():
    (kept, once), (recomputed, twice) = (gradients(drop_path_rate=0.5, grad_checkpointing=flag)
                                          for flag in (False, True))
    assert (once, twice) == (3, 6)
    for name, expected in kept.items():
        torch.testing.assert_close(recomputed[name], expected, atol=0, rtol=0, msg=lambda m, n=name: f'{n}: {m}')
    assert kept['prompt_tokens'].abs().max() > 0
    # Only drop path is random.
    assert any(not torch.equal(gradients(seed, drop_path_rate=0.5)[0]['cls_token'], kept['cls_token'])
               for seed in range(1, 5))
    assert torch.equal(gradients(1)[0]['cls_token'], gradients(2)[0]['cls_token'])


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r'scaling=7: expected one of \[1, 2, 3, 4, 5, 6\]'):
        OpenShapePPAT(7)
