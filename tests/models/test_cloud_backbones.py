"""Backbones over Gaussians: their formulas as loops in float64, and invariances of their features."""
import math

import pytest
import torch
from conftest import duplicated, grid

from clipgs_plugin import GaussianBatch, GaussianCloud
from clipgs_plugin.models import GSEncoder, GSTokenizer
from clipgs_plugin.models.backbones import dgcnn
from clipgs_plugin.models.backbones.base import CloudBackbone
from clipgs_plugin.models.backbones.dgcnn import DGCNN, feature_knn
from clipgs_plugin.models.backbones.pointnet2 import PointNet2
from clipgs_plugin.models.backbones.serialized_transformer import SerializedTransformer
from clipgs_plugin.ops import quaternion_to_matrix
from clipgs_plugin.registry import MODELS

SMALL = {
    'PointNet2': dict(num_centers=(16, 6), radii=(0.6, 0.9), group_sizes=(5, 4), widths=((8, 12), (12, 16), (16, 24))),
    'DGCNN': dict(k=6, widths=(8, 12, 16), embed_dims=24),
    'SerializedTransformer': dict(widths=(8, 12, 16), depths=(2, 1, 3), num_heads=(2, 3, 4), window=16, cells=(8, 4),
                                  attributes=('xyz', 'rgb'), shuffle=False),
}
KINDS = {'PointNet2': PointNet2, 'DGCNN': DGCNN, 'SerializedTransformer': SerializedTransformer}
PUBLISHED = ('PointNet2', 'DGCNN')  # formulas below; the others have test files of their own


def make(kind, **options):
    """Build a small backbone in eval mode with random batch norms, whose factors have both signs."""
    module = KINDS[kind](**{**SMALL[kind], **options})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith('running_var'):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.ndim == 2:
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / value.shape[1]) ** 0.5)
            elif name.endswith('weight'):
                sign = torch.randn(value.shape, generator=generator).sign()
                value.copy_(sign * (torch.rand(value.shape, generator=generator) + 0.5))
            elif value.ndim == 1:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return module.eval()


@pytest.fixture(params=KINDS)
def backbone(request):
    return make(request.param)


def embed(module, *clouds):
    with torch.no_grad():
        return module(GaussianBatch.from_clouds(clouds))


def assert_close(found, expected, atol=2e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


class Formula:
    """Published formulas over a list of objects, as loops over points and edges in float64.

    A batch norm uses the running statistics, or in training the statistics of all rows of all objects.
    """

    def __init__(self, module, training=False):
        self.w = {key: value.double() for key, value in module.state_dict().items()}
        self.module = module
        self.training = training

    def layer(self, rows, linear, norm, slope):
        """Apply linear layer, batch norm and (leaky) ReLU to the rows of each object, [(R_i, C)] to [(R_i, D)]."""
        sizes, x = [len(r) for r in rows], torch.cat(rows) @ self.w[f'{linear}.weight'].T
        if self.training:
            mean, var = x.mean(0), (x - x.mean(0)).square().mean(0)
        else:
            mean, var = self.w[f'{norm}.running_mean'], self.w[f'{norm}.running_var']
        x = (x - mean) / (var + 1e-5).sqrt() * self.w[f'{norm}.weight'] + self.w[f'{norm}.bias']
        return torch.where(x > 0, x, slope * x).split(sizes)

    def channels(self, cloud, origin):
        """Return the attributes of Gaussians relative to an origin."""
        cloud = GaussianCloud(**{name: getattr(cloud, name).double()
                                 for name in ('means', 'quats', 'log_scales', 'opacity_logits', 'sh')})
        rgb = (0.5 + cloud.sh[:, 0] / (2 * math.sqrt(math.pi))).clamp(0, 1)
        channels = [cloud.means - origin, rgb]
        if self.module.in_channels == 19:
            channels += [1 / (1 + (-cloud.opacity_logits[:, None]).exp()), 1 / (1 + (-cloud.log_scales).exp()),
                         quaternion_to_matrix(cloud.quats).flatten(1)]
        return torch.cat(channels, dim=1)

    def pointnet2(self, clouds):
        """Compute centres, patches and MLPs, layer by layer."""
        objects = [(cloud.means.double(), None, farthest_from_centroid(cloud.means.double())) for cloud in clouds]
        counts = []
        for layer, (g, radius, k) in enumerate(zip(*(SMALL['PointNet2'][key] for key in
                                                     ('num_centers', 'radii', 'group_sizes')))):
            patches, centers = [], []
            for cloud, (points, features, first) in zip(clouds, objects):
                picks = fps(points, min(g, len(points)), first)
                centers.append(points[picks])
                patches.append([])
                for c in picks:
                    distance = (points - points[c]).square().sum(1)
                    nearest = [int(i) for i in distance.argsort()[:k]]
                    inside = [i for i in nearest if distance[i] <= radius ** 2]
                    counts.append((len(inside), k, len(points)))
                    if len(points) < k and len(inside) == len(points):
                        inside = [inside[i % len(inside)] for i in range(k)]  # an object smaller than a patch
                    inside += [inside[0]] * (k - len(inside))
                    patches[-1].append(self.channels(cloud, points[c])[inside] if features is None else
                                       torch.cat([points[inside] - points[c], features[inside]], dim=1))
            rows = [torch.cat(p) for p in patches]
            for i in range(len(SMALL['PointNet2']['widths'][layer])):
                rows = self.layer(rows, f'mlps.{layer}.{3 * i}', f'mlps.{layer}.{3 * i + 1}', 0.0)
            features = [r.unflatten(0, (-1, k)).max(1).values for r in rows]
            objects = [(c, f, 0) for c, f in zip(centers, features)]
        self.counts = counts
        rows = [torch.cat([c, f], dim=1) for c, f, _ in objects]
        last = len(SMALL['PointNet2']['widths']) - 1
        for i in range(len(SMALL['PointNet2']['widths'][last])):
            rows = self.layer(rows, f'mlps.{last}.{3 * i}', f'mlps.{last}.{3 * i + 1}', 0.0)
        return torch.stack([r.max(0).values for r in rows])

    def dgcnn(self, clouds):
        """Compute graphs and edges, layer by layer."""
        x = [self.channels(cloud, 0.0) for cloud in clouds]
        space = [cloud.means.double() for cloud in clouds]
        outputs = []
        k = SMALL['DGCNN']['k']
        for layer in range(len(SMALL['DGCNN']['widths'])):
            edges = []
            for points, features in zip(space, x):
                edges.append([])
                for i, center in enumerate(points):
                    nearest = (points - center).square().sum(1).argsort()[:k]
                    for j in nearest[torch.arange(k) % len(points)]:
                        edges[-1].append(torch.cat([features[j] - features[i], features[i]]))
            rows = self.layer([torch.stack(e) for e in edges], f'convs.{layer}.linear', f'convs.{layer}.norm', 0.2)
            x = space = [r.unflatten(0, (-1, k)).max(1).values for r in rows]
            outputs.append(x)
        rows = self.layer([torch.cat(o, dim=1) for o in zip(*outputs)], 'embed.0', 'embed.1', 0.2)
        return torch.stack([torch.cat([r.max(0).values, r.mean(0)]) for r in rows])


def farthest_from_centroid(points):
    return int((points - points.mean(0)).square().sum(1).argmax())


def fps(points, count, first):
    picks = [first]
    while len(picks) < count:
        picks.append(int(torch.stack([(points - points[p]).square().sum(1) for p in picks]).amin(0).argmax()))
    return picks


def formula(module, clouds, training=False):
    found = Formula(module, training)
    return getattr(found, type(module).__name__.lower())(clouds).float()


@pytest.mark.parametrize('kind', PUBLISHED)
@pytest.mark.parametrize('attributes', [('xyz', 'rgb'), 'paper'])
def test_features_match_their_formula(kind, attributes, random_cloud):
    module = make(kind, attributes=attributes)
    clouds = [random_cloud(n, seed) for seed, n in enumerate((50, 23, 4, 1))]
    expected = formula(module, clouds)
    assert_close(embed(module, *clouds), expected)
    assert_close(module(GaussianBatch.from_clouds(clouds)).detach(), expected)  # with gradients, not the inference path
    assert torch.pdist(expected).min() > 1e-2


@pytest.mark.parametrize('kind', PUBLISHED)
def test_batch_norms_see_every_real_row_and_no_padding(kind, random_cloud):
    module = make(kind)
    clouds = [random_cloud(n, seed) for seed, n in enumerate((50, 23, 4))]
    expected = formula(module, clouds, training=True)
    assert_close(module.train()(GaussianBatch.from_clouds(clouds)).detach(), expected)


@pytest.mark.parametrize(('kind', 'options'), [('PointNet2', dict(num_centers=(300, 6), group_sizes=(20, 4))),
                                               ('DGCNN', dict(k=20))])
def test_chunks_of_patches_change_nothing(kind, options, random_cloud):
    module, cloud = make(kind, **options), random_cloud(900)
    assert_close(embed(module, cloud), module(GaussianBatch.from_clouds([cloud])).detach())


def test_formula_covers_patches_bounded_by_radius_and_by_size(random_cloud):
    reference = Formula(make('PointNet2'))
    reference.pointnet2([random_cloud(50)])
    assert any(inside < min(k, n) for inside, k, n in reference.counts)
    assert any(inside == k < n for inside, k, n in reference.counts)


def padded(batch, count):
    """Add padding with nonzero values to a batch."""
    mask = batch.mask
    def widen(value):
        wide = torch.full((len(batch), batch.means.shape[1] + count, *value.shape[2:]), 0.7)
        wide[:, :value.shape[1]][mask] = value[mask]
        return wide
    return GaussianBatch(**{name: widen(value) for name, value in batch.fields()}, lengths=batch.lengths)


def test_batch_mates_and_padding_change_nothing(backbone, random_cloud):
    clouds = [random_cloud(1), random_cloud(3, 1), random_cloud(11, 2), random_cloud(200, 3), grid(4),
              duplicated(random_cloud(60, 4))]
    together = embed(backbone, *clouds)
    with torch.no_grad():
        assert_close(backbone(padded(GaussianBatch.from_clouds(clouds), 50)), together)
    for cloud, expected in zip(clouds, together):
        assert_close(embed(backbone, cloud)[0], expected)
        assert_close(embed(backbone, random_cloud(300, 9), cloud)[1], expected)
    assert torch.pdist(together).min() > 1e-2  # the feature does depend on the object


def test_padding_changes_nothing_in_training(backbone, random_cloud):
    batch = GaussianBatch.from_clouds([random_cloud(40), random_cloud(9, 1), random_cloud(1, 2)])
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    results = []
    for given in (batch, padded(batch, 30)):
        backbone.load_state_dict(before)
        backbone.train().zero_grad()
        out = backbone(given)
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad.clone() for p in backbone.parameters()),
                        *(b.clone() for b in backbone.buffers())])
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert any((b - before[name]).abs().max() > 1e-3 for name, b in backbone.named_buffers() if 'mean' in name)


@pytest.mark.parametrize('kind', ['random', 'grid', 'duplicated'])
def test_order_of_the_gaussians_changes_nothing(backbone, random_cloud, kind):
    cloud = {'random': random_cloud(200), 'grid': grid(5), 'duplicated': duplicated(random_cloud(150))}[kind]
    expected = embed(backbone, cloud)
    for seed in range(3):
        shuffled = cloud[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(seed))]
        assert_close(embed(backbone, shuffled), expected)


@pytest.mark.parametrize('kind', KINDS)
def test_sign_of_quaternions_changes_nothing_but_rotation_does(kind, random_cloud):
    module, cloud = make(kind, attributes='paper'), random_cloud(80)
    expected = embed(module, cloud)
    assert_close(embed(module, cloud.replace(quats=-cloud.quats)), expected)
    assert (embed(module, cloud.replace(quats=cloud.quats.flip(-1))) - expected).abs().max() > 1e-2


def test_objects_of_zero_extent_have_finite_features(backbone, random_cloud):
    assert embed(backbone, random_cloud(30).replace(means=torch.zeros(30, 3)).normalise()).isfinite().all()


def test_half_precision_is_close(backbone, random_cloud):
    cloud = random_cloud(200)
    expected = embed(backbone, cloud)
    with torch.autocast('cpu', torch.bfloat16):
        autocast = embed(backbone, cloud)
    for found in (autocast, embed(backbone.bfloat16(), cloud)):
        assert torch.cosine_similarity(found.float(), expected).min() > 0.99


def test_cloud_backbones_have_the_common_interface(backbone, random_cloud):
    assert backbone.input == 'gaussians' and backbone.in_channels == 6
    batch = GaussianBatch.from_clouds([random_cloud(40), random_cloud(3, 1)])
    with torch.no_grad():
        features, mask = backbone.forward_features(batch), backbone.feature_mask(batch)
        expected = backbone(batch)
    assert features.shape[:2] == mask.shape and mask[1].sum() == 3
    assert not features[~mask].any() and features[mask].any(1).all()
    assert expected.shape == (2, backbone.out_channels)
    assert_close(backbone.pool(features, mask), expected)
    assert_close(backbone.pool(features.masked_fill(~mask[..., None], 1e4), mask), expected, atol=1e-2)


def test_published_sizes():
    module = PointNet2()
    edges = [(6, 64), (64, 64), (64, 128), (131, 128), (128, 128), (128, 256), (259, 256), (256, 512), (512, 1024)]
    assert sum(p.numel() for p in module.parameters()) == sum(a * b + 2 * b for a, b in edges)
    assert (module.in_channels, module.out_channels) == (6, 1024)
    assert 'num_centers=(512, 128), radii=(0.2, 0.4), group_sizes=(32, 64)' in repr(module)
    module = DGCNN(attributes='paper', scale='log')
    edges = [(38, 64), (128, 64), (128, 128), (256, 256), (512, 1024)]
    assert sum(p.numel() for p in module.parameters()) == sum(a * b + 2 * b for a, b in edges)
    assert (module.in_channels, module.out_channels) == (19, 2048)
    assert "k=20, attributes=('xyz', 'rgb', 'opacity', 'scale', 'rotation'), scale='log'" in repr(module)


@pytest.mark.parametrize('block', [1, 100, 1 << 20])
def test_feature_knn_finds_the_nearest_rows_of_each_cloud(monkeypatch, block):
    monkeypatch.setitem(dgcnn.BLOCK, 'cpu', block)
    features = torch.randn(38, 5, generator=torch.Generator().manual_seed(0)) + 30
    found = feature_knn(features, 7, [25, 3, 1, 9])
    start = 0
    for length in (25, 3, 1, 9):
        cloud = features[start:start + length].double()
        for i in range(length):
            nearest = sorted(range(length), key=lambda j: float((cloud[i] - cloud[j]).square().sum()))[:7]
            row = found[start + i].tolist()
            assert set(row) == {start + j for j in nearest} and i + start in row
            assert max(map(row.count, row)) - min(map(row.count, row)) <= 1
        start += length


@pytest.mark.parametrize('kind', KINDS)
def test_encoder_builds_from_a_config_and_trains(kind, random_cloud):
    torch.manual_seed(0)
    encoder = MODELS.build(dict(type='GSEncoder', tokenizer=None, backbone=dict(type=kind, **SMALL[kind]),
                                embed_dim=32))
    assert isinstance(encoder, GSEncoder) and isinstance(encoder.backbone, CloudBackbone)
    batch = GaussianBatch.from_clouds([random_cloud(60, 0), random_cloud(40, 1), random_cloud(1, 2)])
    target = torch.randn(3, 32)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (encoder(batch) - target).square().mean()
        loss.backward()
        assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
        assert [name for name, p in encoder.named_parameters() if not p.grad.any()] == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert embed(encoder.eval(), random_cloud(30)).shape == (1, 32)


@pytest.mark.parametrize('kind', KINDS)
def test_tokenizer_with_a_cloud_backbone_is_refused(kind):
    with pytest.raises(ValueError, match=f'{kind} takes Gaussians, not the tokens of a GSTokenizer'):
        GSEncoder(GSTokenizer(num_groups=8, group_size=4, channels=32), make(kind), embed_dim=16)


def test_wrong_options_are_named(backbone):
    kind = type(backbone)
    with pytest.raises(ValueError, match="scale='cube'"):
        kind(scale='cube')
    with pytest.raises(ValueError, match="attributes='everything'"):
        kind(attributes='everything')
    with pytest.raises(TypeError, match=f'{kind.__name__} takes a GaussianBatch, got Tensor'):
        backbone(torch.zeros(1, 4, 3))


@pytest.mark.parametrize(('options', 'named'), [
    (dict(num_centers=(512,)), r'num_centers=\(512,\), radii=\(0\.2, 0\.4\)'),
    (dict(num_centers=(128, 512)), r'num_centers=\(128, 512\): expected no layer'),
    (dict(num_centers=(512, 0)), 'num_centers=0'),
    (dict(group_sizes=(0, 64)), 'group_sizes=0'),
    (dict(radii=(0.2, 0.0)), r'radii=\(0\.2, 0\.0\)'),
    (dict(widths=((64,), (), (128,))), r'widths=\(\(64,\), \(\), \(128,\)\)'),
])
def test_wrong_layers_of_pointnet2_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        PointNet2(**options)


@pytest.mark.parametrize(('options', 'named'), [(dict(k=0), 'k=0'), (dict(widths=()), r'widths=\(\)')])
def test_wrong_layers_of_dgcnn_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        DGCNN(**options)
