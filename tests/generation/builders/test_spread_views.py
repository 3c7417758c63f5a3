"""The choice of an object's views from its images."""
import numpy as np
import pytest
import torch

from clipgs_plugin import ops
from clipgs_plugin.generation.builders.posed_images import spread_views


def hand_held(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    eyes = rng.normal(size=(count, 3))
    eyes *= rng.normal(3, 0.1, (count, 1)) / np.linalg.norm(eyes, axis=1, keepdims=True)
    return ops.look_at(torch.from_numpy(eyes)).float().numpy()


SETS = {'ring': ops.sphere_cameras(50, 3.0, elevation=20.0).numpy(), 'spiral': ops.sphere_cameras(50, 3.0).numpy(),
        'hand-held': hand_held(40), 'twice': np.concatenate([hand_held(10)] * 2)}


@pytest.mark.parametrize('name', SETS)
def test_each_view_is_the_farthest_from_the_views_before(name):
    viewmats = SETS[name]
    chosen = spread_views(viewmats, 16).tolist()
    directions = np.linalg.inv(viewmats.astype(np.float64))[:, :3, 3]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances = np.linalg.norm(directions[:, None] - directions, axis=-1)
    assert chosen[0] == 0 and len(set(chosen)) == 16
    for i in range(1, 16):
        nearest = distances[:, chosen[:i]].min(1)
        assert nearest[chosen[i]] == pytest.approx(nearest.max(), abs=1e-6)


@pytest.mark.parametrize('name', ['twice', 'hand-held'])
def test_every_view_is_used_before_any_is_repeated(name):
    viewmats = SETS[name]
    chosen = spread_views(viewmats, len(viewmats) + 5).tolist()
    assert sorted(chosen[:-5]) == list(range(len(viewmats))) and chosen[-5:] == chosen[:5]
