"""The linear classifier on frozen features."""
import pytest
import torch

from clipgs_plugin.evaluation.linear_probe import linear_probe


def clusters(per_class, seed, spread=0.3, classes=5, width=8):
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(seed))
    return centers[labels] * torch.arange(1, width + 1) + spread * noise, labels


def test_clusters_are_separated_and_noise_is_not():
    features, labels = clusters(10, 1)
    queries, expected = clusters(40, 2)
    assert (linear_probe(features, labels, queries) == expected).float().mean() > 0.98
    nothing = torch.randn(200, 8, generator=torch.Generator().manual_seed(3))
    guesses = linear_probe(torch.randn(50, 8, generator=torch.Generator().manual_seed(4)), labels, nothing)
    assert (guesses == torch.arange(200) % 5).float().mean() < 0.4


def test_it_is_the_minimum_that_gradient_descent_finds():
    features, labels = clusters(6, 1, spread=3.0)
    queries, _ = clusters(40, 2, spread=3.0)
    x, q = ((v - features.mean(0)) / features.std(0) for v in (features, queries))
    weight, bias = torch.zeros(5, 8), torch.zeros(5)
    for _ in range(2000):
        error = (x @ weight.T + bias).softmax(-1) - torch.eye(5)[labels]
        weight, bias = weight - 0.02 * (error.T @ x + weight), bias - 0.02 * error.sum(0)
    assert torch.equal(linear_probe(features, labels, queries), (q @ weight.T + bias).argmax(-1))


def test_one_labelled_sample_decides_every_query():
    """The deviation of one value was NaN, and with it every score, whose largest was then class 0."""
    queries, _ = clusters(3, 2)
    assert linear_probe(queries[:1], torch.tensor([3]), queries).tolist() == [3] * 15
    with pytest.raises(ValueError, match='no labelled features: a linear probe needs at least one'):
        linear_probe(queries[:0], torch.zeros(0, dtype=torch.int64), queries)


def test_an_offset_of_the_features_does_not_matter_but_the_number_of_steps_does():
    features, labels = clusters(6, 1, spread=3.0)
    queries, _ = clusters(40, 2, spread=3.0)
    expected = linear_probe(features, labels, queries)
    assert torch.equal(linear_probe(features.double() + 1e8, labels, queries.double() + 1e8), expected)
    assert not torch.equal(linear_probe(features, labels, queries, max_iter=1), expected)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r'features \(6, 3\), labels \(5,\)'):
        linear_probe(torch.zeros(6, 3), torch.zeros(5, dtype=torch.int64), torch.zeros(2, 3))
