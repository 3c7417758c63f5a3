"""GS tokenizer and its components."""
import numpy as np
import pytest
import torch
from conftest import duplicated, grid, relabelled
from formulas import randomise

from clipgs_plugin import GaussianBatch, GaussianCloud, ops
from clipgs_plugin.models.tokenizers import GSTokenizer, OrderedConvs, PatchEncoder, PointTokenizer
from clipgs_plugin.models.tokenizers.patches import canonicalise, group_points
from clipgs_plugin.models.tokenizers.refinement import Refinement
from clipgs_plugin.structures.attributes import linearise, pack

NARROW = dict(num_groups=24, group_size=12, channels=20,
              patch_encoder=dict(widths=(8, 12, 16)), refine_widths=(8, 12, 16))


def tokenizer(seed=0, **options):
    return randomise(GSTokenizer(**{**NARROW, **options}), seed)


def tokens_of(module, *clouds):
    with torch.no_grad():
        return module(GaussianBatch.from_clouds(clouds))


# Patch encoder


def patch_encoder_float64(state, patches):
    """Compute the mini-PointNet of the Point-BERT family by a loop over patches in float64 numpy."""
    w = {key: value.double().numpy() for key, value in state.items()}

    def conv(x, name):
        return x @ w[f'{name}.weight'][:, :, 0].T + w[f'{name}.bias']

    def norm_relu(x, name):
        x = (x - w[f'{name}.running_mean']) / np.sqrt(w[f'{name}.running_var'] + 1e-5)
        return np.maximum(x * w[f'{name}.weight'] + w[f'{name}.bias'], 0)

    tokens = []
    for patch in patches.double().numpy():
        local = conv(norm_relu(conv(patch, 'first_conv.0'), 'first_conv.1'), 'first_conv.3')
        both = np.concatenate([np.broadcast_to(local.max(0), local.shape), local], axis=1)  # global first
        tokens.append(conv(norm_relu(conv(both, 'second_conv.0'), 'second_conv.1'), 'second_conv.3').max(0))
    return torch.from_numpy(np.stack(tokens)).float()


def test_reference_and_fast_patch_encoder_match_the_published_formula():
    encoder = randomise(PatchEncoder(6, 40, (16, 24, 32)))
    patches = torch.randn(700, 9, 6)  # more than one chunk
    expected = patch_encoder_float64(encoder.state_dict(), patches)
    with torch.no_grad():
        torch.testing.assert_close(encoder.reference(patches), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder(patches), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(patches), expected, atol=1e-5, rtol=0)  # with gradients: not folded


def test_patch_encoder_has_the_names_and_shapes_of_published_checkpoints():
    shapes = {key: tuple(value.shape) for key, value in PatchEncoder(3, 256).state_dict().items()
              if not key.endswith('num_batches_tracked')}
    norms = {f'{conv}.1.{name}': (width,) for conv, width in (('first_conv', 128), ('second_conv', 512))
             for name in ('weight', 'bias', 'running_mean', 'running_var')}
    assert shapes == {
        'first_conv.0.weight': (128, 3, 1), 'first_conv.0.bias': (128,),
        'first_conv.3.weight': (256, 128, 1), 'first_conv.3.bias': (256,),
        'second_conv.0.weight': (512, 512, 1), 'second_conv.0.bias': (512,),
        'second_conv.3.weight': (256, 512, 1), 'second_conv.3.bias': (256,), **norms}


def test_patch_encoder_trains_like_its_reference():
    reference, fast = (randomise(PatchEncoder(6, 20, (8, 12, 16))).train() for _ in range(2))
    patches = torch.randn(30, 7, 6)
    outputs = reference.reference(patches), fast(patches)
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)
    for output in outputs:
        output.square().sum().backward()
    for (name, a), b in zip(reference.named_parameters(), fast.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-3, rtol=1e-4, msg=lambda m, n=name: f'{n}: {m}')
    for (name, a), b in zip(reference.named_buffers(), fast.buffers()):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=lambda m, n=name: f'{n}: {m}')


# Refinement


def ordered_convs_float64(state, sequences, strides, pooling):
    """Compute 1x3 convolutions by loops over positions and taps in float64 numpy."""
    w = {key: value.double().numpy() for key, value in state.items()}
    x = sequences.double().numpy()
    for row, stride in enumerate(strides):
        kernel = w[f'rows.{row}.0.weight'][:, :, 0]  # (out, in, 3)
        out = np.zeros((len(x), -(-x.shape[1] // stride), kernel.shape[0]))
        for i in range(out.shape[1]):
            for tap in range(3):
                at = i * stride + tap - 1
                if 0 <= at < x.shape[1]:
                    out[:, i] += x[:, at] @ kernel[:, :, tap].T
        name = f'rows.{row}.1'
        x = (out - w[f'{name}.running_mean']) / np.sqrt(w[f'{name}.running_var'] + 1e-5)
        x = np.maximum(x * w[f'{name}.weight'] + w[f'{name}.bias'], 0)
    return torch.from_numpy(x.max(1) if pooling == 'max' else x.mean(1)).float()


@pytest.mark.parametrize('pooling', ['max', 'mean'])
@pytest.mark.parametrize(('length', 'strides'), [(12, (1, 1, 2)), (13, (1, 1, 2, 2)), (1, (1, 2))])
def test_reference_and_fast_ordered_convolutions_match_the_loop(length, strides, pooling):
    convs = randomise(OrderedConvs(5, (8, 6, 9, 7)[:len(strides)], strides, pooling))
    sequences = torch.randn(400, length, 5)
    expected = ordered_convs_float64(convs.state_dict(), sequences, strides, pooling)
    with torch.no_grad():
        torch.testing.assert_close(convs.reference(sequences), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(convs(sequences), expected, atol=1e-5, rtol=0)


def test_rows_are_those_of_the_figure_by_default():
    for convs in (OrderedConvs(19), Refinement(19, 512, 3).convs, GSTokenizer().refinement.convs):
        assert [row[0].weight.shape for row in convs.rows] == [(64, 19, 1, 3), (128, 64, 1, 3), (256, 128, 1, 3)]
        assert [row[0].stride for row in convs.rows] == [(1, 1), (1, 1), (1, 2)]
        assert convs.out_channels == 256 and convs.pooling == 'max'
    assert Refinement(19, 512, 3).gate.weight.shape == (512, 256)


def test_closed_gate_equals_the_tokenizer_without_refinement(random_cloud):
    torch.manual_seed(0)
    refined, unrefined = GSTokenizer(**NARROW).eval(), GSTokenizer(**NARROW, refine=False).eval()
    unrefined.load_state_dict({k: v for k, v in refined.state_dict().items() if not k.startswith('refinement')})
    a, b = (tokens_of(module, random_cloud(200)) for module in (refined, unrefined))
    assert torch.equal(a.features, b.features)


def test_gradients_reach_the_gate_at_once_and_the_branch_after_one_step(random_cloud):
    torch.manual_seed(0)
    module = GSTokenizer(**NARROW).train()
    batch = GaussianBatch.from_clouds([random_cloud(200)])
    convs = [row[0].weight for row in module.refinement.convs.rows]

    module(batch).features.square().sum().backward()
    assert module.refinement.gate.weight.grad.abs().max() > 0
    assert all(weight.grad.abs().max() == 0 for weight in convs)
    torch.optim.SGD(module.parameters(), lr=1e-3).step()
    module.zero_grad()
    module(batch).features.square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in convs)


@pytest.mark.parametrize('combine', ['mean', 'concat', 'turn'])
def test_orders_are_combined_as_documented(random_cloud, combine):
    curves = ('xyz', 'hilbert', 'z')
    module = tokenizer(orders=curves, combine=combine)
    patches = module.group(GaussianBatch.from_clouds([random_cloud(200), random_cloud(9, seed=1)]))
    g = torch.cat([torch.arange(24), torch.arange(9)])  # index of each patch in its object
    attributes = module.linearise(patches, module.attributes)
    pooled = []
    for curve in curves:
        keys = ops.order_keys(patches.raw[..., :3], curve)
        ordered = torch.stack([attributes[p, np.argsort(keys[p].numpy(), kind='stable')] for p in range(len(g))])
        pooled.append(module.refinement.convs.reference(ordered))
    if combine == 'turn':
        expected = torch.stack([pooled[g[p] % 3][p] for p in range(len(g))])
    else:
        expected = sum(pooled) / 3 if combine == 'mean' else torch.cat(pooled, dim=1)
    expected = module.refinement.gate(expected)
    with torch.no_grad():
        found = module.refinement(attributes, module.order(patches))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# Groups


def test_patches_are_the_nearest_gaussians_with_relative_positions_and_absolute_colours(random_cloud):
    cloud = random_cloud(80)
    patches = tokenizer().group(GaussianBatch.from_clouds([cloud]))
    for raw, center in zip(patches.raw, patches.centers[0]):
        distances = (cloud.means - center).norm(dim=1)
        assert distances.min() == 0
        nearest = distances.argsort()[:12]
        torch.testing.assert_close(raw[:, :3] + center, cloud.means[nearest], atol=1e-6, rtol=0)
        torch.testing.assert_close(raw[:, 3:6], cloud.rgb[nearest], atol=0, rtol=0)
    farthest = (cloud.means - cloud.means.mean(0)).norm(dim=1).argmax()
    assert torch.equal(patches.centers[0, 0], cloud.means[farthest])


@pytest.mark.parametrize('radius', [None, 0.5])
def test_groups_start_at_the_first_point_by_default(random_cloud, radius):
    points = torch.stack([random_cloud(30, seed).means for seed in range(2)])
    center_idx, neighbor_idx = group_points(points, 4, 3, radius=radius)
    assert center_idx[:, 0].tolist() == [0, 0] and neighbor_idx.shape == (2, 4, 3)
    assert group_points(points, 4, 3, start=5, radius=radius)[0][:, 0].tolist() == [5, 5]


def test_small_objects_have_one_patch_per_gaussian(random_cloud):
    tokens = tokens_of(tokenizer(), random_cloud(3), random_cloud(50, seed=1), random_cloud(1, seed=2))
    assert tokens.mask.sum(1).tolist() == [3, 24, 1]
    assert tokens.features[~tokens.mask].abs().max() == 0
    assert tokens.features[tokens.mask].abs().amax(-1).min() > 0
    assert len(tokens.centers[0].unique(dim=0)) == 3
    assert tokens_of(tokenizer(), random_cloud(50)).mask is None


def test_padding_patches_do_not_change_running_statistics(random_cloud):
    few, many = (tokenizer(num_groups=g).train() for g in (5, 24))
    for module in (few, many):
        module(GaussianBatch.from_clouds([random_cloud(5)]))
    assert sum('running' in name for name, _ in few.named_buffers()) == 10
    for (name, a), b in zip(few.named_buffers(), many.buffers()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=lambda m, n=name: f'{n}: {m}')


@pytest.mark.parametrize('kind', ['random', 'grid', 'duplicated', 'coincident'])
def test_order_of_the_file_does_not_matter(random_cloud, kind):
    cloud = {'random': random_cloud(150), 'grid': grid(), 'duplicated': duplicated(random_cloud(120, seed=5)),
             'coincident': random_cloud(40).replace(means=torch.zeros(40, 3))}[kind]
    module = tokenizer()
    expected = tokens_of(module, cloud)
    for seed in range(4):
        shuffled = cloud[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(seed))]
        found = tokens_of(module, shuffled)
        torch.testing.assert_close(found.features, expected.features, atol=1e-5, rtol=0)
        assert torch.equal(found.centers, expected.centers)


def test_a_random_start_is_random_in_training_only(random_cloud):
    cloud, points = random_cloud(150), random_cloud(150).means[None]
    module, plain = tokenizer(start='random'), PointTokenizer(8, 6, 32, start='random', rule='exact')
    firsts = {mode: {(tuple(module.train(mode).group(GaussianBatch.from_clouds([cloud])).centers[0, 0].tolist()),
                      int(plain.train(mode).group(points)[0][0, 0])) for _ in range(5)} for mode in (True, False)}
    assert len(firsts[True]) > 1 and len(firsts[False]) == 1
    assert torch.equal(tokens_of(module, cloud).centers, tokens_of(tokenizer(start='farthest'), cloud).centers)


def test_start_index_refers_to_the_order_of_the_file(random_cloud):
    cloud = random_cloud(150)
    module = tokenizer(start=7)
    assert torch.equal(tokens_of(module, cloud).centers[0, 0], cloud.means[7])
    assert torch.equal(tokens_of(module, cloud[torch.arange(149, -1, -1)]).centers[0, 0], cloud.means[149 - 7])


def test_pointnet2_rule_never_starts_a_patch_near_the_origin(random_cloud):
    cloud = random_cloud(20)
    means = torch.cat([cloud.means[:1], 0.02 * cloud.means[1:12], cloud.means[12:]])  # squared norms below 1e-3
    assert means[1:12].square().sum(1).max() < 1e-3 < means[[0, *range(12, 20)]].square().sum(1).min()
    batch = GaussianBatch.from_clouds([cloud.replace(means=means)])
    by_rule = {rule: tokenizer(num_groups=9, start=0, rule=rule).group(batch).centers[0]
               for rule in ('exact', 'pointnet2')}
    near = {rule: int((centers.norm(dim=1) < 0.03).sum()) for rule, centers in by_rule.items()}
    assert near['exact'] >= 1 and near['pointnet2'] == 0
    assert torch.equal(by_rule['pointnet2'].unique(dim=0), means[[0, *range(12, 20)]].unique(dim=0))


def test_sign_of_a_quaternion_does_not_matter(random_cloud):
    cloud = duplicated(random_cloud(120, seed=5))
    flips = torch.where(torch.arange(len(cloud)) % 2 == 0, -1.0, 1.0)
    a, b = (tokens_of(tokenizer(), c) for c in (cloud, cloud.replace(quats=cloud.quats * flips[:, None])))
    assert torch.equal(a.features, b.features)


def test_gauge_free_tokens_ignore_the_labelling_of_axes(random_cloud):
    # Includes coincident Gaussians, whose shapes decide their order in a patch.
    cloud = duplicated(random_cloud(120, seed=5))
    cloud = cloud.replace(sh=torch.zeros_like(cloud.sh), opacity_logits=torch.zeros(len(cloud)))
    blind, paper = tokenizer(attributes='gauge_free'), tokenizer()
    expected, seen = tokens_of(blind, cloud).features, tokens_of(paper, cloud).features
    variants = relabelled(cloud)
    assert len(variants) == 24
    for i, other in enumerate(variants):
        torch.testing.assert_close(other.covariances, cloud.covariances, atol=1e-6, rtol=0)
        torch.testing.assert_close(tokens_of(blind, other).features, expected, atol=1e-5, rtol=0)
        if i > 0:
            assert (tokens_of(paper, other).features - seen).abs().max() > 1e-3


def test_point_attributes_select_the_input_of_the_patch_encoder(random_cloud):
    cloud = random_cloud(100)
    grey = cloud.replace(sh=torch.zeros_like(cloud.sh))
    module = tokenizer(point_attributes=('xyz',), refine=False)
    assert module.patch_encoder.in_channels == 3
    assert torch.equal(tokens_of(module, cloud).features, tokens_of(module, grey).features)
    assert GSTokenizer(**NARROW, point_attributes='paper', refine=False).patch_encoder.in_channels == 19


def test_tokens_in_half_precision_are_close(random_cloud):
    cloud = random_cloud(150)
    expected = tokens_of(tokenizer(), cloud).features
    with torch.autocast('cpu', torch.bfloat16):
        autocast = tokens_of(tokenizer(), cloud)
    cast = tokens_of(tokenizer().bfloat16(), cloud)
    assert cast.features.dtype == torch.bfloat16 and cast.centers.dtype == torch.float32
    for found in (autocast, cast):
        cosine = torch.cosine_similarity(found.features.float(), expected, dim=-1)
        assert cosine.min() > 0.99


def test_cloud_instead_of_a_batch_is_refused(random_cloud):
    with pytest.raises(TypeError, match=r'got GaussianCloud; make one with GaussianBatch.from_clouds'):
        tokenizer()(random_cloud(5))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="combine='sum'"):
        GSTokenizer(combine='sum')
    with pytest.raises(ValueError, match="orders=\\('peano',\\)"):
        GSTokenizer(orders='peano')
    with pytest.raises(ValueError, match='expected one or more of each, in equal number'):
        GSTokenizer(strides=(1, 2), refine_widths=(64, 64, 64))
    with pytest.raises(ValueError, match="pooling='sum'"):
        GSTokenizer(pooling='sum')
    with pytest.raises(ValueError, match="scale='square'"):
        GSTokenizer(scale='square')
    with pytest.raises(ValueError, match="start='first'"):
        GSTokenizer(start='first')
    with pytest.raises(ValueError, match='num_groups=0'):
        GSTokenizer(num_groups=0)
    with pytest.raises(ValueError, match='group_size=0'):
        GSTokenizer(group_size=0)
    with pytest.raises(ValueError, match=r'point_axes=\(0, 1, 1\): expected the axes 0, 1 and 2 in some order'):
        GSTokenizer(point_axes=(0, 1, 1))
    with pytest.raises(ValueError, match="rule='nearest'"):
        GSTokenizer(rule='nearest')
    with pytest.raises(ValueError, match="start='farthest': rule='pointnet2' always starts at 0"):
        GSTokenizer(rule='pointnet2')


# Order by content


def at_one_place(quats, log_scales):
    """Return Gaussians of one position, colour and opacity."""
    n = len(quats)
    return GaussianCloud(torch.zeros(n, 3), quats, log_scales, torch.zeros(n), torch.zeros(n, 1, 3))


def sorted_by_content(cloud):
    batch = GaussianBatch.from_clouds([cloud])
    return canonicalise(pack(batch), batch.lengths)[0]


def test_rounding_of_relabelled_axes_does_not_change_the_order():
    generator = torch.Generator().manual_seed(0)
    quats, log_scales = torch.randn(20, 4, generator=generator), torch.randn(20, 3, generator=generator)
    angles = torch.linspace(0.3, 5.5, 7)
    zeros = torch.zeros_like(angles)
    about_x = torch.stack([(angles / 2).cos(), (angles / 2).sin(), zeros, zeros], -1)  # keeps the variance along x
    cloud = at_one_place(ops.quaternion_multiply(about_x[:, None], quats).flatten(0, 1),
                         log_scales.repeat(len(angles), 1))
    first, *others = (linearise(sorted_by_content(other), ('log_covariance',)) for other in relabelled(cloud))
    for covariances in others:
        torch.testing.assert_close(covariances, first, atol=1e-4, rtol=0)


def test_gaussians_of_equal_covariance_are_ordered_by_their_rotation():
    generator = torch.Generator().manual_seed(0)
    quats = torch.nn.functional.normalize(torch.randn(50, 4, generator=generator), dim=-1)
    cloud = at_one_place(quats, torch.zeros(50, 3))  # unit spheres
    expected = sorted_by_content(cloud)
    assert not linearise(expected, ('log_covariance',)).any()
    for seed in range(3):
        order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(sorted_by_content(cloud[order]), expected)
