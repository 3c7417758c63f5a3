"""Fast path of the refinement branch at its published size, compared with the formula."""
import math

import pytest
import torch

from clipgs_plugin.models.tokenizers.inference import is_inference, relu_, relu_max
from clipgs_plugin.models.tokenizers.refinement import Refinement

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def special_numbers(dtype):
    """Draw from zero, the smallest, ordinary and the largest numbers and infinity, with both signs, (P, K, C)."""
    info = torch.finfo(dtype)
    kinds = [0.0, info.smallest_normal, info.eps, 1.0, 1.0 + info.eps, 3.5, info.max, math.inf]
    kinds = torch.tensor([*kinds, *[-kind for kind in kinds]], dtype=torch.float64)
    draws = torch.randint(len(kinds), (50, 3, 40), generator=torch.Generator().manual_seed(0))
    draws[:, :, 30:] = draws[:, :, 30:] % 8 + 8  # columns without a positive number
    return kinds[draws].to(dtype)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('gradients', [False, True])
def test_the_fast_path_is_taken_only_in_eval_mode_without_gradients(training, gradients):
    with torch.set_grad_enabled(gradients):
        assert is_inference(torch.nn.Identity().train(training)) == (not training and not gradients)


@pytest.mark.parametrize('dtype', DTYPES)
def test_relu_is_exact_for_special_numbers(dtype):
    numbers = special_numbers(dtype)
    expected = [number if number > 0 else 0.0 for number in numbers.flatten().tolist()]
    assert relu_(numbers.clone()).flatten().tolist() == expected
    image = numbers.transpose(1, 2).unsqueeze(2)  # channels last, as in convolutions
    assert relu_(image.clone(memory_format=torch.preserve_format)).squeeze(2).transpose(1, 2).flatten().tolist() \
        == expected


@pytest.mark.parametrize('dtype', DTYPES)
def test_maximum_after_relu_is_exact_for_special_numbers(dtype):
    numbers = special_numbers(dtype)
    expected = [[max(0.0, *column) for column in zip(*patch)] for patch in numbers.tolist()]
    assert relu_max(numbers).tolist() == expected


def refinement_float64(module, attributes, orders):
    """Compute the mean over three orders by convolving one position at a time, in float64."""
    pooled = []
    for order in orders:
        x = torch.take_along_dim(attributes.double(), order[..., None], dim=1)
        for conv, norm, _ in module.convs.rows:
            taps, stride, k = conv.weight[:, :, 0].double(), conv.stride[1], x.shape[1]
            y = torch.stack([sum(x[:, i + tap - 1] @ taps[:, :, tap].T for tap in range(3) if 0 <= i + tap - 1 < k)
                             for i in range(0, k, stride)], dim=1)
            y = (y - norm.running_mean) / (norm.running_var.double() + norm.eps).sqrt() * norm.weight + norm.bias
            x = y.clamp(min=0)
        pooled.append(x.amax(1))
    return sum(pooled) / len(pooled) @ module.gate.weight.double().T + module.gate.bias


@pytest.fixture(scope='module')
def published():
    """Branch of the published size with random weights, patches for more than one chunk, and the formula's result."""
    generator = torch.Generator().manual_seed(0)
    module = Refinement(19, 512, 3).eval()
    with torch.no_grad():
        module.gate.weight.normal_(0, 0.05, generator=generator)
        for _, norm, _ in module.convs.rows:
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.2, generator=generator)
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
        attributes = torch.randn(70, 64, 19, generator=generator)
        orders = torch.rand(3, 70, 64, generator=generator).argsort(-1)
        return module, attributes, orders, refinement_float64(module, attributes, orders).float()


def test_branch_matches_the_formula(published):
    module, attributes, orders, expected = published
    with torch.no_grad():
        torch.testing.assert_close(module(attributes, orders), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(module(attributes, orders).detach(), expected, atol=1e-5, rtol=0)  # with gradients


@pytest.mark.parametrize('how', ['weights', 'autocast'])
def test_branch_in_half_precision_is_close(published, how):
    module, attributes, orders, expected = published
    with torch.no_grad():
        if how == 'weights':
            half = Refinement(19, 512, 3).eval().bfloat16()
            half.load_state_dict(module.state_dict())
            found = half(attributes.bfloat16(), orders)
        else:
            with torch.autocast('cpu', torch.bfloat16):
                found = module(attributes, orders)
    assert found.dtype == torch.bfloat16
    assert torch.cosine_similarity(found.float(), expected, dim=-1).min() >= 0.9999
