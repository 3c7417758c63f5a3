import math
from contextlib import suppress
from itertools import product
from queue import Empty

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clipgs_plugin.models import ContrastiveLoss, ImageVotingLoss
from clipgs_plugin.models.losses.contrastive import contrastive_terms

SCALE = 9.0


def rows(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def unit(x):
    return x / math.sqrt(sum(float(v) ** 2 for v in x))


def loop_nll(query, candidates, target, scale):
    """Return -log softmax of one query, by the definition."""
    logits = [scale * float(unit(query) @ unit(c)) for c in candidates]
    return math.log(sum(math.exp(v) for v in logits)) - logits[target]


def loop_contrastive(a, b, scale):
    n = len(a)
    return sum(loop_nll(a[i], b, i, scale) + loop_nll(b[i], a, i, scale) for i in range(n)) / (2 * n)


def loop_voting(g, views, text, scale, normalise, tau, weights, pool):
    n, k = views.shape[:2]
    total = 0.0
    for i in range(n):
        w = [max(0.0, float(unit(views[i, s]) @ unit(text[i]))) for s in range(k)]
        if weights == 'uniform':
            w = [1.0] * k
        elif normalise == 'mean':
            mean = sum(w) / k
            w = [x / mean if mean else 0.0 for x in w]
        elif normalise == 'softmax':
            e = [math.exp(x / tau) for x in w]
            w = [k * x / sum(e) for x in e]
        for s in range(k):
            if pool == 'slot':
                to_views = loop_nll(g[i], views[:, s], i, scale)
            else:
                to_views = loop_nll(g[i], views.reshape(n * k, -1), i * k + s, scale)
            total += w[s] * (to_views + loop_nll(views[i, s], g, i, scale))
    return total / (2 * n * k)


def test_contrastive_equals_the_loop():
    a, b = rows(7, 5), rows(7, 5, seed=1)
    expected = loop_contrastive(a.numpy(), b.numpy(), SCALE)
    assert ContrastiveLoss()(a, b, SCALE).item() == pytest.approx(expected, rel=1e-12)
    assert ContrastiveLoss()(a * 3, b * 0.1, SCALE).item() == pytest.approx(expected, rel=1e-12)
    assert ContrastiveLoss(loss_weight=0.5)(a, b, SCALE).item() == pytest.approx(expected / 2, rel=1e-12)


def test_terms_are_those_of_the_first_candidates_by_default():
    a, b = rows(7, 5), rows(7, 5, seed=1)
    unit_a, unit_b = torch.nn.functional.normalize(a, dim=1), torch.nn.functional.normalize(b, dim=1)[:, None]
    terms = contrastive_terms(unit_a[:3], unit_b[:3], unit_a, unit_b, SCALE)
    expected = [(loop_nll(a[i], b, i, SCALE) + loop_nll(b[i], a, i, SCALE)) / 2 for i in range(3)]
    assert terms.shape == (3, 1) and terms[:, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_contrastive_of_a_single_object_is_zero():
    assert ContrastiveLoss()(rows(1, 4), rows(1, 4, seed=1), SCALE).item() == 0


def test_logit_scale_is_the_multiplier_and_gets_a_gradient():
    a, b = rows(6, 4), rows(6, 4, seed=1)
    log_scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    ContrastiveLoss()(a, b, log_scale.exp()).backward()
    step = 1e-5
    numeric = (loop_contrastive(a.numpy(), b.numpy(), math.exp(1.3 + step))
               - loop_contrastive(a.numpy(), b.numpy(), math.exp(1.3 - step))) / (2 * step)
    assert log_scale.grad.item() == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize('scale', [SCALE, torch.tensor(SCALE), torch.tensor([SCALE])])
def test_scale_may_be_a_number_or_a_tensor_of_one(scale):
    a, b = rows(6, 4), rows(6, 4, seed=1)
    ids = torch.tensor([0, 1, 2, 0, 1, 0])
    for loss in (lambda s: ContrastiveLoss()(a, b, s), lambda s: ContrastiveLoss('positive')(a, b, s, ids),
                 lambda s: ImageVotingLoss(1)(a, b[:, None], b, s)):
        assert loss(scale).ndim == 0 and torch.equal(loss(scale), loss(SCALE))


def test_identical_captions_are_masked_or_positives():
    a, b = rows(5, 4).numpy(), rows(5, 4, seed=1).numpy()
    ids = [3, 8, 3, 1, 3]
    masked = positive = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(5):
            twins = [j for j in range(5) if ids[j] == ids[i]]
            kept = [j for j in range(5) if j == i or j not in twins]
            masked += loop_nll(x[i], y[kept], kept.index(i), SCALE) / 10
            positive += sum(loop_nll(x[i], y, j, SCALE) for j in twins) / len(twins) / 10
    call = lambda collisions: ContrastiveLoss(collisions=collisions)(  # noqa: E731
        torch.from_numpy(a), torch.from_numpy(b), SCALE, ids=torch.tensor(ids)).item()
    assert call('mask') == pytest.approx(masked, rel=1e-12)
    assert call('positive') == pytest.approx(positive, rel=1e-12)
    assert call('keep') == pytest.approx(loop_contrastive(a, b, SCALE), rel=1e-12)


@pytest.mark.parametrize('collisions', ['keep', 'mask', 'positive'])
def test_contrastive_gradient_matches_finite_differences(collisions):
    a, b = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    ids = torch.tensor([0, 1, 0, 2])
    loss = ContrastiveLoss(collisions=collisions)
    assert torch.autograd.gradcheck(lambda x, y: loss(x, y, SCALE, ids=ids), (a, b))


@pytest.mark.parametrize('pool', ['slot', 'all'])
@pytest.mark.parametrize('normalise, weights', [('mean', 'voting'), ('softmax', 'voting'), ('none', 'voting'),
                                                ('mean', 'uniform')])
def test_voting_equals_the_loop(normalise, weights, pool):
    g, views, text = rows(6, 5), rows(6, 4, 5, seed=1), rows(6, 5, seed=2)
    views[0, 1] = -text[0]  # a view without any vote
    expected = loop_voting(g.numpy(), views.numpy(), text.numpy(), SCALE, normalise, 0.3, weights, pool)
    loss = ImageVotingLoss(4, normalise, tau=0.3, weights=weights, views=pool)
    assert loss(g, views, text, SCALE).item() == pytest.approx(expected, rel=1e-12)


def test_voting_with_equal_views_is_the_contrastive_loss():
    g, view, text = rows(6, 5), rows(6, 5, seed=1), rows(6, 5, seed=1)
    expected = ContrastiveLoss()(g, view, SCALE)
    assert torch.allclose(ImageVotingLoss(3)(g, view[:, None].expand(-1, 3, -1), text, SCALE), expected)
    assert torch.allclose(ImageVotingLoss(1)(g, view[:, None], text, SCALE), expected)


def loop_sigmoid(a, b, scale, bias, ids=None, collisions='keep'):
    total = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            twins = ids is not None and ids[i] == ids[j]
            if collisions == 'mask' and twins and i != j:
                continue
            z = 1 if i == j or (collisions == 'positive' and twins) else -1
            total += math.log1p(math.exp(-z * (scale * float(unit(a[i]) @ unit(b[j])) + bias)))
    return total / len(a)


@pytest.mark.parametrize('chunk_size', [1, 3, 7, 1024])
@pytest.mark.parametrize('collisions', ['keep', 'mask', 'positive'])
def test_sigmoid_equals_the_loop_in_chunks_of_any_size(collisions, chunk_size):
    a, b, ids = rows(7, 5), rows(7, 5, seed=1), [0, 1, 2, 0, 1, 0, 3]
    loss = ContrastiveLoss(collisions, kind='sigmoid', chunk_size=chunk_size).double()
    assert loss.logit_bias.tolist() == [-10]
    torch.nn.init.constant_(loss.logit_bias, -2.5)
    expected = loop_sigmoid(a.numpy(), b.numpy(), SCALE, -2.5, ids, collisions)
    assert loss(a, b, SCALE, torch.tensor(ids)).item() == pytest.approx(expected, rel=1e-12)


def test_sigmoid_is_the_loss_of_siglip_with_its_gradients():
    from open_clip.loss import SigLipLoss

    def values(call):
        a, b = rows(9, 6).requires_grad_(), rows(9, 6, seed=1).requires_grad_()
        scale = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)
        ours = ContrastiveLoss(kind='sigmoid', chunk_size=4).double()
        value = call(ours, a, b, scale.exp())
        value.backward()
        return [value.detach(), a.grad, b.grad, scale.grad, ours.logit_bias.grad]

    def theirs(ours, a, b, scale):
        return SigLipLoss()(*(torch.nn.functional.normalize(x, dim=1) for x in (a, b)), scale, ours.logit_bias)

    found, expected = values(lambda ours, a, b, scale: ours(a, b, scale)), values(theirs)
    for x, y in zip(found, expected):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize('collisions', ['keep', 'mask', 'positive'])
def test_sigmoid_gradient_matches_finite_differences(collisions):
    a, b = rows(5, 3).requires_grad_(), rows(5, 3, seed=1).requires_grad_()
    loss, ids = ContrastiveLoss(collisions, kind='sigmoid', chunk_size=2).double(), torch.tensor([0, 1, 0, 2, 0])
    bias = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)

    def call(x, y, bias):
        return torch.func.functional_call(loss, {'logit_bias': bias}, (x, y, SCALE, ids))
    assert torch.autograd.gradcheck(call, (a, b, bias))


def test_sigmoid_never_holds_the_whole_matrix():
    """No tensor of the forward or the backward pass has more than a chunk of rows of the N x N matrix."""
    from torch.utils._python_dispatch import TorchDispatchMode
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            sizes = [x.numel() for x in torch.utils._pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
            largest = max([largest, *sizes])
            return result

    a, b = rows(300, 4).requires_grad_(), rows(300, 4, seed=1).requires_grad_()
    loss = ContrastiveLoss('mask', kind='sigmoid', chunk_size=20).double()
    with Watch():
        loss(a, b, SCALE, torch.arange(300) // 2).backward()
    assert largest == 20 * 300


def test_the_bias_is_in_checkpoints_of_the_sigmoid_loss_only():
    assert list(ContrastiveLoss(kind='sigmoid').state_dict()) == ['logit_bias']
    assert ContrastiveLoss().state_dict() == {}


def test_single_view_takes_the_first():
    g, views, text = rows(6, 5), rows(6, 4, 5, seed=1), rows(6, 5, seed=2)
    expected = loop_voting(g.numpy(), views[:, :1].numpy(), text.numpy(), SCALE, 'none', 1, 'voting', 'slot')
    assert ImageVotingLoss(1, 'none')(g, views, text, SCALE).item() == pytest.approx(expected, rel=1e-12)


def test_object_without_votes_has_no_loss_and_finite_gradients():
    g, views, text = rows(3, 5).requires_grad_(), rows(3, 2, 5, seed=1), rows(3, 5, seed=2)
    views[1] = -text[1]
    loss = ImageVotingLoss(2)(g, views, text, SCALE)
    loss.backward()
    expected = loop_voting(g.detach().numpy(), views.numpy(), text.numpy(), SCALE, 'mean', 1, 'voting', 'slot')
    assert loss.item() == pytest.approx(expected, rel=1e-12) and g.grad.isfinite().all()


def test_half_precision_inputs_under_autocast_are_computed_in_float32():
    a, b = rows(6, 32).bfloat16(), rows(6, 32, seed=1).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        loss = ContrastiveLoss()(a, b, 100.0)
        voting = ImageVotingLoss(1)(a, b[:, None], b, 100.0)
    assert loss.dtype == voting.dtype == torch.float32
    expected = loop_contrastive(a.double().numpy(), b.double().numpy(), 100.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert voting.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('make, match', [
    (lambda: ContrastiveLoss(collisions='drop'), "collisions='drop'"),
    (lambda: ContrastiveLoss(kind='triplet'), "kind='triplet'"),
    (lambda: ContrastiveLoss(kind='sigmoid', chunk_size=0), 'chunk_size=0'),
    (lambda: ContrastiveLoss()(rows(3, 4), rows(3, 5), 1.0), r'\(3, 4\) and \(3, 5\)'),
    (lambda: ContrastiveLoss('mask')(rows(3, 4), rows(3, 4), 1.0), r'needs ids of shape \(3,\), got None'),
    (lambda: ImageVotingLoss(normalise='max'), "normalise='max'"),
    (lambda: ImageVotingLoss(weights='half'), "weights='half'"),
    (lambda: ImageVotingLoss(views='any'), "views='any'"),
    (lambda: ImageVotingLoss(num_views=0), 'num_views=0'),
    (lambda: ImageVotingLoss(tau=0), 'tau=0'),
    (lambda: ImageVotingLoss(5)(rows(3, 4), rows(3, 2, 4), rows(3, 4), 1.0), 'num_views=5, but .* 2 views'),
    (lambda: ImageVotingLoss(2)(rows(3, 4), rows(4, 2, 4), rows(3, 4), 1.0), r'\(4, 2, 4\)'),
])
def test_error_names_the_wrong_argument(make, match):
    with pytest.raises(ValueError, match=match):
        make()


LOSSES = {
    'contrastive': (ContrastiveLoss, {}),
    'mask': (ContrastiveLoss, {'collisions': 'mask'}),
    'positive': (ContrastiveLoss, {'collisions': 'positive'}),
    'sigmoid': (ContrastiveLoss, {'kind': 'sigmoid', 'chunk_size': 2}),
    'sigmoid mask': (ContrastiveLoss, {'kind': 'sigmoid', 'collisions': 'mask'}),
    'sigmoid positive': (ContrastiveLoss, {'kind': 'sigmoid', 'collisions': 'positive', 'chunk_size': 2}),
    'voting': (ImageVotingLoss, {'num_views': 3}),
    'pooled': (ImageVotingLoss, {'num_views': 3, 'normalise': 'softmax', 'views': 'all'}),
}


def value_and_gradients(name, options, part=slice(None)):
    """Return the loss and the gradients of a weight, a target, the scale and a bias, on a part of a batch."""
    factory, defaults = LOSSES[name]
    weight = rows(4, 5, seed=3).requires_grad_()
    bias = rows(5, seed=4).requires_grad_()
    log_scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    g = rows(6, 4)[part] @ weight
    loss = factory(**defaults, **options).double()
    if factory is ContrastiveLoss:
        ids = torch.tensor([0, 1, 2, 0, 1, 0])[part]
        value = loss(g, rows(6, 5, seed=1)[part] + bias, log_scale.exp(), ids=ids)
    else:
        value = loss(g, rows(6, 3, 5, seed=1)[part] + bias, rows(6, 5, seed=2)[part], log_scale.exp())
    value.backward()
    return [value.detach(), weight.grad, bias.grad, log_scale.grad, *(x.grad for x in loss.parameters())]


def worker(rank, world, init_file, queue):
    dist.init_process_group('gloo', f'file://{init_file}', rank=rank, world_size=world)
    part = slice(rank * 3, rank * 3 + 3)
    found = {}
    for name, local, gather in product(LOSSES, (False, True), (False, True)):
        values = value_and_gradients(name, {'gather': gather, 'local_loss': local}, part)
        own = values[0].clone()
        for value in values:
            dist.all_reduce(value)
        found[name, local, gather] = [own.numpy(), *((value / world).numpy() for value in values)]
    for name in LOSSES:  # two objects here and four there
        with pytest.raises(ValueError, match='the processes hold 2, 4 objects') as refused:
            value_and_gradients(name, {'gather': True}, slice(0, 2) if rank == 0 else slice(2, 6))
        found[name, 'uneven'] = str(refused.value)
    if rank == 0:
        queue.put(found)
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Losses and process-averaged gradients of two processes with half a batch each."""
    context = mp.get_context('spawn')
    queue = context.Queue()
    init_file = tmp_path_factory.mktemp('gloo') / 'init'
    running = mp.start_processes(worker, (2, init_file, queue), nprocs=2, join=False, start_method='spawn')
    found = None
    while found is None:  # join raises, and ends the other process, when one has failed
        with suppress(Empty):
            found = queue.get(timeout=0.2)
        if running.join(timeout=0.01) and found is None:
            found = queue.get(timeout=5)
    while not running.join():
        pass
    return found


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('local', [False, True])
def test_two_processes_equal_one(two_processes, name, local):
    own, *averaged = two_processes[name, local, True]
    expected = value_and_gradients(name, {})
    for found, value in zip(averaged, expected):
        np.testing.assert_allclose(found, value.numpy(), rtol=1e-10, atol=1e-14)
    if not local:
        np.testing.assert_allclose(own, expected[0].numpy(), rtol=1e-10)


@pytest.mark.parametrize('name', LOSSES)
def test_uneven_batches_are_refused_in_every_process(two_processes, name):
    assert 'drop_last=True' in two_processes[name, 'uneven']


@pytest.mark.parametrize('name', LOSSES)
def test_process_without_gathering_uses_only_its_own_objects(two_processes, name):
    own = two_processes[name, False, False][0]
    np.testing.assert_allclose(own, value_and_gradients(name, {}, slice(0, 3))[0].numpy(), rtol=1e-12)
    assert own != pytest.approx(two_processes[name, False, True][0], rel=1e-3)
