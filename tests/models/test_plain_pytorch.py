"""Encoder, tokenizer, losses and classifier as ordinary modules: copies, pickles, functional calls, compiled graphs."""
import copy
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import random_cloud
from torch import nn

from clipgs_plugin import GaussianBatch
from clipgs_plugin.models import (
    ContrastiveLoss,
    GSClassifier,
    GSEncoder,
    GSTokenizer,
    ImageVotingLoss,
    IndexedEncoder,
    PointBERT,
    Uni3D,
    encoder_inputs,
)

TOKENIZER = dict(num_groups=12, group_size=8, channels=32, patch_encoder=dict(widths=(8, 16, 24)),
                 refine_widths=(8, 16, 24))


def batch(*counts):
    return GaussianBatch.from_clouds([random_cloud(count, i) for i, count in enumerate(counts)])


def encoder(attributes='paper', backbone=None, **options):
    torch.manual_seed(0)
    module = GSEncoder(GSTokenizer(**TOKENIZER, attributes=attributes, **options), backbone or PointBERT(32, 2, 4, 32),
                       16)
    if module.tokenizer.refinement is not None:
        nn.init.normal_(module.tokenizer.refinement.gate.weight, std=0.1)
    return module.eval()


class Learned(nn.Module):
    """A loss, and the features that it compares."""

    def __init__(self, loss, *shapes):
        super().__init__()
        torch.manual_seed(0)
        self.loss = loss
        self.features = nn.ParameterList([nn.functional.normalize(torch.randn(shape), dim=-1) for shape in shapes])

    def forward(self, scale):
        return self.loss(*self.features, scale)


MODULES = {
    'encoder': lambda: (encoder(), batch(60, 7)),
    'tokenizer': lambda: (encoder().tokenizer, batch(60, 7)),
    'classifier': lambda: (GSClassifier(encoder(), num_classes=5).eval(), batch(60, 7)),
    'contrastive': lambda: (Learned(ContrastiveLoss(), (4, 8), (4, 8)), torch.tensor(10.0)),
    'sigmoid': lambda: (Learned(ContrastiveLoss(kind='sigmoid'), (4, 8), (4, 8)), torch.tensor(10.0)),
    'voting': lambda: (Learned(ImageVotingLoss(num_views=3), (4, 8), (4, 3, 8), (4, 8)), torch.tensor(10.0)),
}


def output(module, value):
    found = module(value)
    return found if isinstance(found, torch.Tensor) else found.features


@pytest.mark.parametrize('name', MODULES)
def test_copies_pickles_and_functional_calls_compute_the_same(name):
    module, value = MODULES[name]()
    expected = output(module, value)
    assert torch.equal(output(copy.deepcopy(module), value), expected)
    assert torch.equal(output(pickle.loads(pickle.dumps(module)), value), expected)

    other, _ = MODULES[name]()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert not torch.allclose(output(other, value), expected)
    found = torch.func.functional_call(other, module.state_dict(), (value,))
    assert torch.equal(found if isinstance(found, torch.Tensor) else found.features, expected)
    assert not torch.allclose(output(other, value), expected)  # the call has not changed it
    other.load_state_dict(module.state_dict())
    assert torch.equal(output(other, value), expected)


VARIANTS = {
    'paper': lambda: encoder(), 'gauge_free': lambda: encoder('gauge_free', combine='concat'),
    'turn': lambda: encoder(combine='turn'), 'points': lambda: encoder(refine=False, start=0),
    'Uni3D': lambda: encoder(backbone=Uni3D('ti', 32, 2)), 'permuted': lambda: encoder(point_axes=(0, 2, 1)),
    'radius': lambda: encoder(radius=0.5, start=0)}


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('counts', [(60, 90), (5,)])
def test_given_indices_give_the_embedding_of_the_object(name, counts):
    module, objects = VARIANTS[name](), batch(*counts)
    inputs, indexed = encoder_inputs(module, objects), IndexedEncoder(module)
    assert inputs['center_idx'].shape[1] == min(12, *counts)
    assert indexed.num_orders == (inputs['orders'].shape[2] if 'orders' in inputs else 0)
    torch.testing.assert_close(indexed(**inputs), module(objects), atol=1e-5, rtol=0)


def test_objects_of_other_numbers_of_patches_and_other_encoders_are_refused():
    with pytest.raises(ValueError, match=r'the objects have 5, 12 patches, and a graph takes equal numbers'):
        encoder_inputs(encoder(), batch(60, 5))
    with pytest.raises(ValueError, match='the Linear has a tokenizer of type NoneType, expected a GSTokenizer'):
        IndexedEncoder(nn.Linear(2, 2))


@pytest.mark.parametrize('attributes', ['paper', 'gauge_free'])
def test_gradients_of_the_gaussians_are_those_of_finite_differences(attributes):
    """In float64 and for given patches: in every channel of some Gaussians, and along the whole gradient."""
    module = encoder(attributes)
    inputs = encoder_inputs(module, batch(40))
    indexed, gaussians = IndexedEncoder(module.double()), inputs.pop('gaussians').double().requires_grad_()
    target = torch.randn(16, dtype=torch.float64)

    def loss(values):
        return 1 - torch.cosine_similarity(indexed(values, **inputs), target[None]).sum()

    gradient, = torch.autograd.grad(loss(gaussians), gaussians)
    assert (gradient[0] != 0).any(0).all()  # in each of the 14 channels
    directions = [gradient / gradient.norm(), *(torch.zeros_like(gradient).index_put(
        (torch.tensor(0), torch.tensor(row), torch.tensor(channel)), torch.tensor(1.0, dtype=torch.float64))
        for row, channel in zip(range(0, 28, 2), range(14)))]
    with torch.no_grad():
        for direction in directions:
            numeric = (loss(gaussians + 1e-6 * direction) - loss(gaussians - 1e-6 * direction)) / 2e-6
            torch.testing.assert_close(numeric, (gradient * direction).sum(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('name', ['paper', 'gauge_free', 'points', 'Uni3D'])
def test_compiled_graphs_compute_the_same(name):
    module = VARIANTS[name]()
    compiled = torch.compile(IndexedEncoder(module), backend='eager', fullgraph=True, dynamic=True)
    for counts in ((60, 90), (40, 50, 30)):
        inputs = encoder_inputs(module, batch(*counts))
        with torch.no_grad():
            torch.testing.assert_close(compiled(**inputs), module(batch(*counts)), atol=1e-5, rtol=0)


def test_a_compiled_encoder_samples_outside_of_its_graphs():
    module = encoder()
    compiled = torch.compile(module, backend='eager')
    torch.testing.assert_close(compiled(batch(60, 5)), module(batch(60, 5)), atol=1e-5, rtol=0)


def gradients(module, objects):
    module(objects).square().sum(-1).mean().backward()
    return {name.removeprefix('module.'): value.grad.numpy() for name, value in module.named_parameters()}


def process(rank, folder, queue):
    dist.init_process_group('gloo', f'file://{folder}/init', rank=rank, world_size=2)
    objects = batch(60, 7, 40, 90).to_clouds()[2 * rank:2 * rank + 2]
    found = gradients(nn.parallel.DistributedDataParallel(encoder()), GaussianBatch.from_clouds(objects))
    if rank == 0:
        queue.put(found)
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    queue = mp.get_context('spawn').SimpleQueue()
    running = mp.start_processes(process, (tmp_path, queue), nprocs=2, join=False, start_method='spawn')
    while queue.empty() and not running.join(timeout=0.1):
        pass
    found = queue.get()
    while not running.join():
        pass
    expected = gradients(encoder(), batch(60, 7, 40, 90))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(torch.from_numpy(found[name]), torch.from_numpy(value), atol=1e-6, rtol=1e-4)
