"""GSEncoder: invariances of the embedding, gradients, configs and errors."""
import pytest
import torch
from conftest import duplicated, grid, relabelled
from mmengine.model import BaseModule
from torch import nn

from clipgs_plugin import GaussianBatch
from clipgs_plugin.models import GSEncoder, GSTokenizer, PointBERT, Uni3D
from clipgs_plugin.registry import MODELS

TOKENIZER = dict(num_groups=24, group_size=12, channels=32,
                 patch_encoder=dict(widths=(16, 24, 32)), refine_widths=(16, 24, 32))
BACKBONES = {'PointBERT': lambda: PointBERT(48, 2, 4, 32), 'Uni3D': lambda: Uni3D('ti', 32, 2)}


def with_open_gate(encoder):
    """Return the encoder in eval mode with random gate weights and batch statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        gate = encoder.tokenizer.refinement.gate.weight
        gate.copy_(torch.randn(gate.shape, generator=generator) / gate.shape[1] ** 0.5)
        for name, buffer in encoder.named_buffers():
            if name.endswith('running_mean'):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
            if name.endswith('running_var'):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return encoder.eval()


@pytest.fixture(params=BACKBONES)
def encoder(request):
    torch.manual_seed(0)
    return with_open_gate(GSEncoder(GSTokenizer(**TOKENIZER), BACKBONES[request.param](), embed_dim=16))


def embed(encoder, *clouds):
    with torch.no_grad():
        return encoder(GaussianBatch.from_clouds(clouds))


def assert_close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_other_objects_and_padding_do_not_change_an_embedding(encoder, random_cloud):
    clouds = [random_cloud(1), random_cloud(3, 1), random_cloud(11, 2), random_cloud(23, 3), random_cloud(200, 4),
              grid(4), grid(5), duplicated(random_cloud(60, 5))]
    together = embed(encoder, *clouds)
    for i, cloud in enumerate(clouds):
        assert_close(embed(encoder, cloud)[0], together[i])
        assert_close(embed(encoder, cloud, random_cloud(300, 9))[0], together[i])
    assert torch.pdist(together).min() > 1e-3  # the embedding depends on the object


def test_values_in_the_padding_do_not_change_an_embedding(encoder, random_cloud):
    batch = GaussianBatch.from_clouds([random_cloud(40), random_cloud(90, 1)])
    with torch.no_grad():
        expected = encoder(batch)
        for name, value in batch.fields():
            value[0, 40:] = 0.7 if name != 'quats' else 1.0
        assert_close(encoder(batch), expected)


@pytest.mark.parametrize('kind', ['random', 'grid', 'duplicated'])
def test_the_order_of_the_gaussians_does_not_change_an_embedding(encoder, random_cloud, kind):
    cloud = {'random': random_cloud(200), 'grid': grid(6), 'duplicated': duplicated(random_cloud(150))}[kind]
    expected = embed(encoder, cloud)
    for seed in range(3):
        shuffled = cloud[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(seed))]
        assert_close(embed(encoder, shuffled), expected)


def test_the_sign_of_quaternions_does_not_change_an_embedding(encoder, random_cloud):
    cloud = random_cloud(200)
    assert_close(embed(encoder, cloud.replace(quats=-cloud.quats)), embed(encoder, cloud))


def test_gauge_free_embeddings_are_equal_for_all_24_labellings_of_axes(random_cloud):
    torch.manual_seed(0)
    encoder = with_open_gate(GSEncoder(GSTokenizer(**TOKENIZER, attributes='gauge_free'), PointBERT(48, 2, 4, 32), 16))
    cloud = random_cloud(200)
    others = relabelled(cloud)
    assert len(others) == 24
    expected = embed(encoder, cloud)
    assert_close(embed(encoder, *others), expected.expand(24, -1))


def test_an_object_of_zero_radius_is_embedded(encoder, random_cloud):
    cloud = random_cloud(30).replace(means=torch.zeros(30, 3)).normalise()
    assert embed(encoder, cloud).isfinite().all()
    assert embed(encoder, random_cloud(1).normalise()).isfinite().all()


def test_a_very_large_object_is_embedded(random_cloud):
    torch.manual_seed(0)
    encoder = with_open_gate(GSEncoder(GSTokenizer(**TOKENIZER), PointBERT(48, 2, 4, 32), embed_dim=16))
    large, small = random_cloud(300_000), random_cloud(50, 1)
    together = embed(encoder, large, small)
    assert together.isfinite().all()
    assert_close(embed(encoder, small)[0], together[1])


def test_the_inference_path_equals_the_training_path(encoder, random_cloud):
    batch = GaussianBatch.from_clouds([random_cloud(200), random_cloud(7, 1)])
    plain = encoder(batch)  # with gradients, batch norms are not folded
    assert plain.requires_grad
    assert_close(embed(encoder, random_cloud(200), random_cloud(7, 1)), plain.detach())
    with torch.inference_mode():
        assert_close(encoder(batch), plain.detach())


def test_bfloat16_is_close_to_float32(encoder, random_cloud):
    cloud = random_cloud(200)
    expected = embed(encoder, cloud)
    with torch.autocast('cpu', torch.bfloat16):
        autocast = embed(encoder, cloud)
    for found in (autocast, embed(encoder.bfloat16(), cloud)):
        assert found.dtype == torch.bfloat16
        assert torch.cosine_similarity(found.float(), expected).min() > 0.99


def test_every_parameter_has_a_gradient_once_the_gate_is_open(encoder, random_cloud):
    encoder.train()
    encoder(GaussianBatch.from_clouds([random_cloud(60, i) for i in range(4)])).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_encoder_is_built_from_configs(random_cloud):
    encoder = MODELS.build(dict(
        type='GSEncoder', tokenizer=dict(type='GSTokenizer', **TOKENIZER),
        backbone=dict(type='PointBERT', embed_dims=48, depth=1, num_heads=4, in_channels=32), embed_dim=16))
    assert encoder.embed_dim == 16
    assert embed(encoder.eval(), random_cloud(30)).shape == (1, 16)


class MeanBackbone(BaseModule):
    """Backbone that takes Gaussians."""

    input = 'gaussians'
    out_channels = 3

    def forward(self, batch):
        return batch.means.sum(1) / batch.lengths[:, None]


def test_a_backbone_receives_gaussians_if_it_asks_for_them(random_cloud):
    cloud = random_cloud(30)
    encoder = GSEncoder(None, MeanBackbone(), embed_dim=5)
    nn.init.zeros_(encoder.projection.bias)
    torch.testing.assert_close(embed(encoder, cloud)[0], encoder.projection.weight.detach() @ cloud.means.mean(0))


def test_a_mismatch_of_tokenizer_and_backbone_is_refused():
    with pytest.raises(ValueError, match=r'GSTokenizer has channels=32, but PointBERT has in_channels=256'):
        GSEncoder(GSTokenizer(**TOKENIZER), PointBERT(), embed_dim=16)
    with pytest.raises(ValueError, match='PointBERT takes tokens, but tokenizer is None'):
        GSEncoder(None, PointBERT(), embed_dim=16)
    with pytest.raises(ValueError, match='MeanBackbone takes Gaussians, not the tokens of a GSTokenizer'):
        GSEncoder(GSTokenizer(**TOKENIZER), MeanBackbone(), embed_dim=16)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('radius', [None, 0.4])
def test_torch_func_gives_the_gradients_of_backward(random_cloud, training, radius):
    encoder = GSEncoder(GSTokenizer(8, 6, 32, refine_widths=(8, 8, 8), radius=radius), PointBERT(64, 2, 1, 32), 24)
    torch.nn.init.normal_(encoder.tokenizer.refinement.gate.weight)
    encoder.train(training)
    batch = GaussianBatch.from_clouds([random_cloud(40), random_cloud(5, 1)])
    parameters, buffers = dict(encoder.named_parameters()), dict(encoder.named_buffers())

    def loss(parameters, means):
        moved = GaussianBatch(**{**dict(batch.fields()), 'means': means}, lengths=batch.lengths)
        kept = {name: value.clone() for name, value in buffers.items()}
        return torch.func.functional_call(encoder, {**parameters, **kept}, (moved,)).square().sum()

    found, found_means = torch.func.grad(loss, argnums=(0, 1))(parameters, batch.means)
    means = batch.means.clone().requires_grad_()
    loss(parameters, means).backward()
    torch.testing.assert_close(found_means, means.grad)
    assert means.grad.abs().max() > 0
    for name, value in parameters.items():
        torch.testing.assert_close(found[name], value.grad, msg=lambda m, name=name: f'{name}: {m}')
