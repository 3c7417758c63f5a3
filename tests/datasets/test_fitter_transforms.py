import math

import numpy as np
import pytest
import torch

from clipgs_plugin import GaussianCloud, write_gaussians
from clipgs_plugin.datasets.transforms import DrawFit, DropAttributes, VaryFitter, build_pipeline

NEVER = dict(size=1.0, thickness=1.0, share=1.0)


def apply(transform, cloud: GaussianCloud, seed: int = 0) -> GaussianCloud:
    return transform(dict(gaussians=cloud, rng=np.random.default_rng(seed)))['gaussians']


def changed(before: GaussianCloud, after: GaussianCloud) -> set[str]:
    return {name for name, value in before.fields() if not torch.equal(value, getattr(after, name))}


def test_dropout_hides_each_attribute_by_its_neutral_value(random_cloud):
    cloud = random_cloud(40, sh_degree=1)
    after = apply(DropAttributes(1.0), cloud)
    assert changed(cloud, after) == {'quats', 'log_scales', 'opacity_logits'}
    assert torch.equal(after.rotations, torch.eye(3).expand(40, 3, 3))
    assert np.allclose(after.log_scales.numpy(), np.tile(cloud.log_scales.numpy().mean(0), (40, 1)), atol=1e-6)
    assert np.allclose(after.opacity_logits.numpy(), cloud.opacity_logits.numpy().mean(), atol=1e-6)


def test_dropout_draws_each_attribute_alone_and_at_its_rate(random_cloud):
    cloud = random_cloud(5)
    drawn = [frozenset(changed(cloud, apply(DropAttributes(0.3), cloud, seed))) for seed in range(400)]
    for name in ('quats', 'log_scales', 'opacity_logits'):
        assert abs(np.mean([name in hidden for hidden in drawn]) - 0.3) < 0.08
    assert len(set(drawn)) == 8
    assert changed(cloud, apply(DropAttributes(1.0, ('scale',)), cloud)) == {'log_scales'}
    assert changed(cloud, apply(DropAttributes(0.0), cloud)) == set()


def test_variation_without_a_change_keeps_the_object(random_cloud):
    cloud = random_cloud(30)
    assert changed(cloud, apply(VaryFitter(0.0), cloud)) == set()


def test_variation_repeats_for_a_seed_and_keeps_positions_and_colours_of_the_kept_gaussians(random_cloud):
    cloud = random_cloud(60, sh_degree=1)
    first, second = (apply(VaryFitter(1.0), cloud, seed=3) for _ in range(2))
    assert changed(first, second) == set()
    kept = {tuple(row) for row in cloud.means.tolist()}
    assert all(tuple(row) in kept for row in first.means.tolist()) and 15 <= len(first) < 60
    assert {len(apply(VaryFitter(1.0, share=0.5), cloud, seed)) for seed in range(50)} <= set(range(30, 61))


def test_variation_changes_sizes_by_one_factor_within_its_bounds(random_cloud):
    cloud = random_cloud(20)
    factors = []
    for seed in range(60):
        after = apply(VaryFitter(1.0, **{**NEVER, 'size': 3.0}), cloud, seed)
        ratio = after.log_scales.amax(1) - cloud.log_scales.amax(1)
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio), atol=1e-5)
        factors.append(float(ratio[0]))
    assert max(map(abs, factors)) <= math.log(3) + 1e-5
    assert min(factors) < -0.8 * math.log(3) and max(factors) > 0.8 * math.log(3)


def test_variation_changes_the_shortest_axis_only(random_cloud):
    cloud = random_cloud(20)
    shorter, balls = 0, 0
    for seed in range(60):
        after = apply(VaryFitter(1.0, **{**NEVER, 'thickness': 0.01}), cloud, seed)
        differs = after.log_scales != cloud.log_scales
        assert (differs.sum(1) <= 1).all()
        assert torch.equal(differs.any(1), differs.gather(1, cloud.log_scales.argmin(1, keepdim=True))[:, 0])
        change = (after.log_scales - cloud.log_scales).sum(1)
        if (change < 0).all():
            assert torch.allclose(change, change[:1].expand_as(change), atol=1e-4) and change.min() >= math.log(0.01)
            shorter += 1
        else:
            longest = cloud.log_scales.sort(1).values[:, 1:].mean(1)
            assert torch.allclose(after.log_scales.gather(1, cloud.log_scales.argmin(1, keepdim=True))[:, 0], longest)
            balls += 1
    assert shorter > 15 and balls > 15


def test_variation_moves_the_mean_opacity_into_its_range_and_keeps_the_differences(random_cloud):
    cloud = random_cloud(20)
    for seed in range(30):
        logits = apply(VaryFitter(1.0, opacity=(0.3, 0.9), **NEVER), cloud, seed).opacity_logits
        assert 0.3 <= float(logits.mean().sigmoid()) <= 0.9
        moved = logits - cloud.opacity_logits
        assert torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-5)


def test_transforms_are_built_by_name_and_refuse_values_out_of_range():
    build_pipeline([dict(type='DropAttributes'), dict(type='VaryFitter')])
    for build, word in ((lambda: DropAttributes(1.5), 'probability=1.5'), (lambda: VaryFitter(-1), 'probability=-1'),
                        (lambda: DropAttributes(attributes=('colour',)), 'colour'),
                        (lambda: VaryFitter(size=0.5), 'size=0.5'), (lambda: VaryFitter(share=0), 'share=0'),
                        (lambda: VaryFitter(thickness=2), 'thickness=2'),
                        (lambda: VaryFitter(opacity=(0.9, 0.1)), 'opacity=')):
        with pytest.raises(ValueError, match=word):
            build()


def test_another_fit_is_drawn_at_its_rate_where_there_is_one(random_cloud, tmp_path):
    own, others = random_cloud(5), {name: random_cloud(count) for name, count in (('a', 6), ('b', 7))}
    for name, cloud in others.items():
        (tmp_path / name / 'chair').mkdir(parents=True)
        write_gaussians(cloud, tmp_path / name / 'chair' / 'one.ply')
    draw = DrawFit([str(tmp_path / name) for name in others], 0.6)

    def drawn(uid: str) -> list[int]:
        return [len(draw(dict(gaussians=own, category='chair', uid=uid, rng=np.random.default_rng(seed)))['gaussians'])
                for seed in range(300)]
    counts = np.bincount(drawn('one'), minlength=8)
    assert counts.sum() == 300 and np.allclose(counts[[5, 6, 7]] / 300, (0.4, 0.3, 0.3), atol=0.08)
    assert set(drawn('two')) == {5}
    with pytest.raises(FileNotFoundError, match='is no folder'):
        DrawFit(str(tmp_path / 'c'))
    with pytest.raises(ValueError, match='probability=2'):
        DrawFit(str(tmp_path), 2)
