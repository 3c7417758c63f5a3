"""Graph networks as backbones: built by a config, and blind to padding, order and other objects."""
import pytest
import torch

from clipgs_plugin import GaussianBatch, get_config
from clipgs_plugin.registry import MODELS

pytest.importorskip('torch_geometric')
from torch_geometric.data import Batch

from clipgs_plugin.geometric import GaussianData, GaussianEdgeConv, GaussianEncoder, SetAbstraction

BACKBONES = {
    'GaussianGraphNet': dict(k=4, widths=(8, 8), embed_dims=16),
    'GraphPointNet2': dict(num_centers=(12, 4), radii=(0.6, 1.2), ks=(8, 4), widths=((8, 8), (8, 16), (32,))),
}


@pytest.fixture(params=BACKBONES)
def encoder(request):
    backbone = dict(type=f'clipgs_plugin.{request.param}', **BACKBONES[request.param])
    return MODELS.build(dict(type='clipgs_plugin.GSEncoder', tokenizer=None, backbone=backbone, embed_dim=6))


@pytest.fixture
def clouds(random_cloud):
    return [random_cloud(n, seed=n) for n in (30, 3, 55, 1)]


def warmed_up(encoder, clouds):
    """The encoder in eval mode, with statistics of batch norms that are not the initial ones."""
    with torch.no_grad():
        encoder(GaussianBatch.from_clouds(clouds))
    return encoder.eval()


def test_an_object_has_one_embedding_in_any_batch_and_order(encoder, clouds):
    encoder = warmed_up(encoder, clouds)
    with torch.no_grad():
        together = encoder(GaussianBatch.from_clouds(clouds))
        alone = torch.cat([encoder(GaussianBatch.from_clouds([cloud])) for cloud in clouds])
        shuffled = encoder(GaussianBatch.from_clouds([cloud[torch.randperm(len(cloud))] for cloud in clouds]))
    assert together.shape == (4, 6)
    assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(together, shuffled, atol=1e-5)


def test_the_graph_path_embeds_alike(encoder, clouds):
    encoder = warmed_up(encoder, clouds)
    batch = Batch.from_data_list([GaussianData.from_cloud(cloud) for cloud in clouds])
    with torch.no_grad():
        assert torch.equal(GaussianEncoder(encoder)(batch), encoder(GaussianBatch.from_clouds(clouds)))


def test_dense_features_pool_to_the_output(encoder, clouds):
    backbone, batch = warmed_up(encoder, clouds).backbone, GaussianBatch.from_clouds(clouds)
    with torch.no_grad():
        features, mask = backbone.forward_features(batch), backbone.feature_mask(batch)
        assert features.shape[:2] == mask.shape and not features[~mask].any()
        assert torch.equal(backbone.pool(features, mask), backbone(batch))
        assert backbone(batch).shape == (4, backbone.out_channels)


def test_every_parameter_learns(encoder, clouds):
    encoder(GaussianBatch.from_clouds(clouds)).square().sum().backward()
    idle = [name for name, parameter in encoder.named_parameters()
            if parameter.grad is None or not parameter.grad.any()]
    assert not idle


def test_invariant_inputs_make_an_embedding_without_orientation(clouds):
    encoder = warmed_up(MODELS.build(dict(
        type='clipgs_plugin.GSEncoder', tokenizer=None, embed_dim=6,
        backbone=dict(type='clipgs_plugin.GaussianGraphNet', attributes=('rgb', 'opacity'),
                      **BACKBONES['GaussianGraphNet']))), clouds)
    angle = torch.tensor(0.7, dtype=torch.float64)
    matrix = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    with torch.no_grad():
        found, turned = (encoder(GaussianBatch.from_clouds(batch))
                         for batch in (clouds, [cloud.transform(matrix) for cloud in clouds]))
    assert torch.allclose(found, turned, atol=1e-4)


def test_edge_convolution_is_the_maximum_over_the_edges():
    x, edge_attr = torch.randn(3, 2), torch.randn(4, 1)
    edge_index = torch.tensor([[1, 2, 0, 1], [0, 0, 1, 2]])
    found = GaussianEdgeConv(torch.nn.Identity())(x, edge_index, edge_attr)
    messages = [torch.cat([x[i], x[j] - x[i], e]) for (j, i), e in zip(edge_index.T, edge_attr)]
    assert torch.equal(found, torch.stack([torch.maximum(messages[0], messages[1]), messages[2], messages[3]]))


def test_set_abstraction_is_the_maximum_over_the_neighbourhood():
    pos, x, batch = torch.rand(9, 3), torch.randn(9, 2), torch.zeros(9, dtype=torch.long)
    layer = SetAbstraction(3, radius=0.5, k=4, nn=torch.nn.Identity())
    assert repr(layer) == 'SetAbstraction(num_centers=3, radius=0.5, k=4)'
    features, centers, objects = layer(x, pos, batch)
    assert objects.tolist() == [0, 0, 0]
    for feature, center in zip(features, centers):
        distance = (pos - center).norm(dim=1)
        near = [j for j in distance.argsort()[:4] if distance[j] <= 0.5]
        expected = torch.stack([torch.cat([x[j], pos[j] - center]) for j in near]).amax(0)
        assert torch.allclose(feature, expected)


def test_the_shipped_config_names_its_import_and_learns(random_cloud):
    cfg = get_config('clipgs_graphnet-nano_15e_toy-world')
    assert cfg.custom_imports.imports == ['clipgs_plugin.geometric']  # nothing else in the library imports it
    model = MODELS.build({**cfg.model, 'teacher': None})
    clouds = [random_cloud(40, seed=seed).normalise() for seed in range(4)]
    samples = dict(text=torch.randn(4, 128), views=torch.randn(4, 5, 128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        terms = model(GaussianBatch.from_clouds(clouds), samples, mode='loss')
        loss = terms['loss_text'] + terms['loss_image']
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_wrong_layers_are_refused():
    with pytest.raises(ValueError, match='more centres than the previous'):
        MODELS.build(dict(type='clipgs_plugin.GraphPointNet2', num_centers=(4, 12)))
    with pytest.raises(ValueError, match='one more entry of widths'):
        MODELS.build(dict(type='clipgs_plugin.GraphPointNet2', radii=(0.1,)))
