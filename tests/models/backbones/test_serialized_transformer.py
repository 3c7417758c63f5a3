"""The serialised transformer: its loops in float64, its sequences, windows and cells, and its randomness."""
import copy
import math
import pickle

import pytest
import torch
from conftest import duplicated, grid, random_cloud
from serialized_loops import Loops, morton

from clipgs_plugin import GaussianBatch
from clipgs_plugin.models import GSEncoder
from clipgs_plugin.models.backbones.serialisation import (
    Cells,
    extend_ends,
    merge_cells,
    sequence,
    serialise,
    windows,
)
from clipgs_plugin.models.backbones.serialized_transformer import SerializedTransformer

SMALL = dict(widths=(8, 12, 16), depths=(2, 1, 3), num_heads=(2, 3, 4), window=16, cells=(8, 4), kernel=3)
SIZES = (70, 33, 16, 5, 1)


def make(**options):
    """Build a small module in eval mode with random norms and statistics."""
    torch.manual_seed(0)
    module = SerializedTransformer(**{**SMALL, **options})
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point() and value.ndim == 1:
                scale = name.endswith(('weight', 'var'))
                value.copy_(torch.rand_like(value) + 0.5 if scale else torch.randn_like(value))
    return module.eval()


def batch_of(*sizes, seed=0):
    return GaussianBatch.from_clouds([random_cloud(n, seed + i) for i, n in enumerate(sizes)])


def points_of(batch):
    return batch.means[batch.mask], batch.lengths


def embed(module, batch):
    with torch.no_grad():
        return module(batch)


@pytest.mark.parametrize('options', [dict(), dict(window=1, orders=('z',)), dict(attributes='paper', kernel=1),
                                     dict(window=1000, orders=('hilbert-trans', 'z'), scale='log', kernel=7)])
def test_features_match_loops_over_windows(options):
    module, batch = make(**options), batch_of(*SIZES)
    expected = Loops(module)(batch.to_clouds())
    torch.testing.assert_close(embed(module, batch).double(), expected, atol=1e-4, rtol=0)
    assert torch.pdist(expected).min() > 1e-2


def test_training_matches_loops_with_the_statistics_of_all_rows():
    module, batch = make(shuffle=False).train(), batch_of(*SIZES)
    expected = Loops(module, training=True)(batch.to_clouds())
    torch.testing.assert_close(module(batch).detach().double(), expected, atol=1e-4, rtol=0)


def test_batch_mates_and_padding_change_nothing_but_rounding():
    module = make().double()
    clouds = [*(random_cloud(n, i) for i, n in enumerate(SIZES)), grid(4), duplicated(random_cloud(60, 9))]
    together = embed(module, GaussianBatch.from_clouds(clouds))
    for cloud, expected in zip(clouds, together):
        for others in ([], [random_cloud(200, 20)]):
            found = embed(module, GaussianBatch.from_clouds([*others, cloud]))[-1]
            torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_structure_of_an_object_does_not_depend_on_its_batch():
    batch = batch_of(*SIZES)
    together = serialise(*points_of(batch))
    merged, groups = merge_cells(together, 3)
    for i, cloud in enumerate(batch.to_clouds()):
        alone = serialise(cloud.means, torch.tensor([len(cloud)]))
        mine, start = together.objects == i, int(together.starts()[i])
        assert torch.equal(together.positions[mine], alone.positions)
        for order, code in alone.codes.items():
            assert torch.equal(together.codes[order][mine], code)
            rows, places = sequence(together, order)
            assert torch.equal(rows[mine] - start, sequence(alone, order)[0])
            assert torch.equal(places[mine], sequence(alone, order)[1])
        coarse, own = merge_cells(alone, 3)
        here = merged.objects == i
        assert torch.equal(merged.positions[here], coarse.positions) and torch.equal(groups.counts[here], own.counts)
        assert all(torch.equal(merged.codes[order][here], code) for order, code in coarse.codes.items())


def test_codes_are_of_the_cells_of_the_bounding_cube():
    points = torch.tensor([[0.0, 0, 0], [4, 0, 0], [1, 0, 0], [0, 0, 2], [1.9, 0, 1]])
    cells = serialise(points, torch.tensor([5]), ('z', 'z-trans', 'hilbert'), bits=2)
    assert torch.equal(cells.positions, points / 4)
    expected = [(0, 0, 0), (3, 0, 0), (1, 0, 0), (0, 0, 2), (1, 0, 1)]
    assert cells.codes['z'].tolist() == [0b000000, 0b100100, 0b000100, 0b001000, 0b000101]
    assert cells.codes['z-trans'].tolist() == [morton(y, x, z, 2) for x, y, z in expected]
    assert sequence(cells, 'z')[0].tolist() == [0, 2, 4, 3, 1]
    assert sequence(cells, 'z')[1].tolist() == [0, 4, 1, 3, 2]


def test_cells_are_merged_by_codes_without_their_last_bits():
    # Octants of the first object: 0, 4, 0, 1, 0; of the second: 7, 0.
    points = torch.tensor([[0.0, 0, 0], [4, 0, 0], [1, 0, 0], [0, 0, 2], [1.9, 0, 1], [2, 2, 2], [0, 0, 0]])
    cells = serialise(points, torch.tensor([5, 2]), ('z', 'hilbert'), bits=2)
    merged, groups = merge_cells(cells, 1)
    assert merged.bits == 1 and merged.lengths.tolist() == [3, 2] and merged.objects.tolist() == [0, 0, 0, 1, 1]
    assert merged.codes['z'].tolist() == [0, 1, 4, 0, 7]
    assert groups.rows.tolist() == [0, 2, 4, 3, 1, 6, 5] and groups.counts.tolist() == [3, 1, 1, 1, 1]
    mean = torch.tensor([[2.9 / 12, 0, 1 / 12], [0, 0, 0.5], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    torch.testing.assert_close(merged.positions, mean)
    x = torch.tensor([[1.0, -1], [5, 5], [3, -3], [7, 7], [2, -0.5], [8, 8], [9, 9]], requires_grad=True)
    pooled = groups.reduce(x, 'max')
    assert pooled.tolist() == [[3, -0.5], [7, 7], [5, 5], [9, 9], [8, 8]]
    pooled.sum().backward()
    assert x.grad.tolist() == [[0, 0], [1, 1], [1, 0], [1, 1], [0, 1], [1, 1], [1, 1]]
    whole = merge_cells(merged, 0)[0]
    assert whole.lengths.tolist() == [1, 1] and whole.codes['hilbert'].tolist() == [0, 0]


@pytest.mark.parametrize('size', [1, 7, 16, 100])
def test_windows_are_few_and_equal_and_follow_the_sequence(size):
    cells = serialise(*points_of(batch_of(70, 33, 16, 17, 5, 1)))
    places = sequence(cells, 'hilbert')[1]
    parts = windows(cells, places, size)
    window = parts.slots // parts.size
    assert len(parts.slots.unique()) == len(places)  # one row a place
    found = torch.zeros(parts.num, parts.size, dtype=torch.bool)
    found.flatten()[parts.slots] = True
    assert (parts.mask is None and bool(found.all())) or torch.equal(parts.mask, found)
    for i, n in enumerate((70, 33, 16, 17, 5, 1)):
        mine = cells.objects == i
        assert (window[mine][places[mine].argsort()].diff() >= 0).all()
        sizes = window[mine].bincount()[int(window[mine].min()):]
        assert len(sizes) == math.ceil(n / size) and sizes.max() <= size and sizes.max() - sizes.min() <= 1
    x = torch.randn(len(places), 3)
    assert torch.equal(parts.merge(parts.split(x)), x)
    assert not parts.split(x)[~found].any()
    assert window[cells.objects == 4].unique().numel() + window[cells.objects == 5].unique().numel() == len(
        window[cells.objects >= 4].unique())  # no window of two objects


def test_ends_of_a_sequence_are_repeated():
    cells = Cells(torch.zeros(5, 3), {'z': torch.tensor([2, 0, 1, 0, 0])}, 1, torch.tensor([0, 0, 0, 1, 1]),
                  torch.tensor([3, 2]))
    rows, places = sequence(cells, 'z')
    assert rows.tolist() == [1, 2, 0, 3, 4] and places.tolist() == [2, 0, 1, 0, 1]
    wide, slots = extend_ends(cells, rows, places, 2)
    assert wide.tolist() == [1, 1, 1, 2, 0, 0, 0, 3, 3, 3, 4, 4, 4]
    assert wide[slots + 2].tolist() == [0, 1, 2, 3, 4]
    assert wide[slots[:, None] + torch.arange(5)].tolist() == [
        [1, 2, 0, 0, 0], [1, 1, 1, 2, 0], [1, 1, 2, 0, 0], [3, 3, 3, 4, 4], [3, 3, 4, 4, 4]]


def test_orders_are_shuffled_in_training_by_torch_alone():
    module, batch = make(), batch_of(40, 20)
    orders = {tuple(module._stage_orders()) for _ in range(5)}
    assert orders == {('z', 'z-trans', 'hilbert', 'hilbert-trans')}
    module.train()
    orders = [tuple(module._stage_orders()) for _ in range(40)]
    assert len(set(orders)) > 10 and {tuple(sorted(one)) for one in orders} == {tuple(sorted(module.orders))}
    torch.manual_seed(3)
    first = module(batch)
    assert not torch.equal(module(batch), first)
    torch.manual_seed(3)
    assert torch.equal(module(batch), first)
    module.shuffle = False
    state = torch.get_rng_state()
    assert torch.equal(module(batch), module(batch)) and torch.equal(torch.get_rng_state(), state)


def test_gradients_match_finite_differences():
    module, batch = make(drop_path_rate=0.5).double(), batch_of(40, 9, 1)
    weights = torch.randn(3, module.out_channels, dtype=torch.float64)
    (module(batch) * weights).sum().backward()
    for name in ('', 'embed', 'blocks.0.position', 'blocks.2.pool', 'blocks.5.block', 'norm'):
        parameters = [p for key, p in module.named_parameters() if key.startswith(name)]
        steps = [torch.randn_like(p) * 1e-6 for p in parameters]
        values = []
        for sign in (1, -2):
            with torch.no_grad():
                for p, step in zip(parameters, steps):
                    p.add_(step, alpha=sign)
            values.append((embed(module, batch) * weights).sum())
        with torch.no_grad():
            for p, step in zip(parameters, steps):
                p.add_(step)
        slope = sum((p.grad * step).sum() for p, step in zip(parameters, steps))
        torch.testing.assert_close((values[0] - values[1]) / 2, slope, rtol=1e-5, atol=1e-12)


def test_gradients_reach_every_attribute_of_a_gaussian():
    batch = batch_of(40, 9)
    for _, value in batch.fields():
        value.requires_grad_()
    make()(batch).square().sum().backward()
    for name, value in batch.fields():
        assert value.grad.isfinite().all() and value.grad[0].any() and value.grad[1, :9].any(), name
        assert not value.grad[1, 9:].any(), name


def test_copies_and_compiled_modules_agree():
    module, batch = make(), batch_of(*SIZES)
    expected = embed(module, batch)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(embed(other, batch), expected)
    compiled = torch.compile(make(depths=(1, 1, 1)), backend='eager')
    torch.testing.assert_close(embed(compiled, batch), embed(make(depths=(1, 1, 1)), batch))


def test_parts_cover_the_backbone_and_freeze():
    encoder = GSEncoder(None, make(), embed_dim=8, frozen=('patch_encoder', 'blocks'))
    parts = encoder.parts()
    assert all(name.startswith('backbone.embed.') for name in parts['patch_encoder'])
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {*parts['norm'], *parts['projection']} and len(parts['norm']) == 2
    assert not encoder.train().backbone.blocks[2].pool.norm.training and encoder.backbone.norm.training


def test_default_size():
    module = SerializedTransformer()
    assert (module.in_channels, module.out_channels) == (13, 1024)
    assert [block.block.norm1.normalized_shape[0] for block in module.blocks] == [
        32] * 2 + [64] * 2 + [128] * 2 + [256] * 6 + [512] * 2
    assert 'depths=(2, 2, 2, 6, 2), window=1024, cells=(64, 32, 16, 8)' in repr(module)


@pytest.mark.parametrize(('options', 'named'), [
    (dict(widths=(8, 12)), r'widths=\(8, 12\), depths=\(2, 1, 3\)'),
    (dict(cells=(8,)), r'cells=\(8,\): expected widths'),
    (dict(cells=(8, 6)), r'cells=\(8, 6\): expected powers of two from 1 to 1024'),
    (dict(cells=(0, 4)), r'cells=\(0, 4\): expected powers'),
    (dict(cells=(4, 8)), r'cells=\(4, 8\): expected fewer'),
    (dict(depths=(2, 0, 3)), 'depths=0'),
    (dict(window=0), 'window=0'),
    (dict(kernel=4), 'kernel=4: expected an odd number'),
    (dict(orders=('z', 'peano')), r"orders=\('z', 'peano'\): expected some of"),
    (dict(orders=()), r'orders=\(\)'),
    (dict(num_heads=(3, 3, 4)), 'a width of 8 does not split into 3 heads'),
])
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        SerializedTransformer(**{**SMALL, **options})
