"""The light of a scene, estimated from its objects and removed."""
import torch

from clipgs_plugin.scenes import SceneObjects, balance_colors
from clipgs_plugin.structures import SH_C0, GaussianCloud
from clipgs_plugin.structures.discs import surface_discs

GAMMA = 2.2


def balls(count: int, points: int = 1500) -> tuple[GaussianCloud, torch.Tensor, torch.Tensor]:
    """Balls of one colour each, their labels and their normals."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(count, points, 3, generator=generator), dim=-1)
    centers = 4 * torch.arange(count)[:, None, None] * torch.tensor([1.0, 0, 0])
    colors = (0.2 + 0.6 * torch.rand(count, 1, 3, generator=generator)).expand(-1, points, -1)
    flat = [x.reshape(-1, 3) for x in (normals + centers, normals, colors)]
    return surface_discs(*(x.double().numpy() for x in flat)), torch.arange(count).repeat_interleave(points), flat[1]


def lit(cloud: GaussianCloud, normals: torch.Tensor, lamp: torch.Tensor, ambient: float = 0.4) -> GaussianCloud:
    """Multiply colours by the light of a lamp and of everywhere, in linear light."""
    light = (ambient + (1 - ambient) * (normals @ lamp).clamp_min(0))[:, None] ** (1 / GAMMA)
    return cloud.replace(sh=((light * cloud.rgb - 0.5) / SH_C0)[:, None])


def test_the_light_of_a_lamp_is_removed_and_colours_differ_as_before():
    cloud, labels, normals = balls(4)
    objects = SceneObjects.from_labels(labels)
    dark = lit(cloud, normals, torch.tensor([0.6, 0.8, 0.0]))
    bright = balance_colors(dark, objects)
    before, after = ((x.rgb - cloud.rgb).abs().mean() for x in (dark, bright))
    assert before > 0.1 and after < 0.03
    assert torch.allclose(bright.rgb / bright.rgb.sum(1, keepdim=True), cloud.rgb / cloud.rgb.sum(1, keepdim=True),
                          atol=1e-3)


def test_without_light_and_outside_of_objects_colours_stay():
    cloud, labels, normals = balls(4)
    balanced = balance_colors(cloud, SceneObjects.from_labels(labels))
    assert torch.allclose(balanced.rgb, cloud.rgb, atol=2e-3)
    dark = lit(cloud, normals, torch.tensor([0.0, 1.0, 0.0]))
    some = balance_colors(dark, SceneObjects.from_labels(torch.where(labels == 3, -1, labels)))
    assert torch.equal(some.sh[labels == 3], dark.sh[labels == 3])
    assert (some.rgb[labels < 3] >= dark.rgb[labels < 3] - 1e-5).all() and some.rgb.max() <= 1 + 1e-5
    assert balance_colors(dark, SceneObjects.from_labels(torch.full_like(labels, -1))) is dark


def test_every_band_of_the_harmonics_gets_the_same_gain():
    cloud, labels, normals = balls(2, 400)
    dark = lit(cloud, normals, torch.tensor([0.0, 1.0, 0.0])).with_sh_degree(1)
    dark = dark.replace(sh=torch.cat([dark.sh[:, :1], torch.full_like(dark.sh[:, 1:], 0.1)], 1))
    balanced = balance_colors(dark, SceneObjects.from_labels(labels))
    gain = balanced.rgb / dark.rgb
    assert torch.allclose(balanced.sh[:, 1:], dark.sh[:, 1:] * gain[:, None], atol=1e-3)
