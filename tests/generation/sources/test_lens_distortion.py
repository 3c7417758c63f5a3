"""Lens models against their formulas in plain loops, and images of a scene whose every ray is known."""
import math

import numpy as np
import pytest
from scipy.optimize import fsolve

from clipgs_plugin.generation.sources.lens_distortion import CAMERA_MODELS, Lens, focal_scale, undistort

WIDTH, HEIGHT = 60, 44
MATRIX = np.array([[55.0, 0, 28.5], [0, 52.0, 23.25], [0, 0, 1]])
NUMBERS = {'SIMPLE_RADIAL': [-0.12], 'RADIAL': [0.15, -0.05], 'OPENCV': [-0.2, 0.06, 0.01, -0.015],
           'FULL_OPENCV': [0.3, 0.1, -0.008, 0.012, 0.05, 0.25, 0.12, 0.02],
           'OPENCV_FISHEYE': [0.05, -0.02, 0.01, -0.005], 'SIMPLE_RADIAL_FISHEYE': [-0.03],
           'RADIAL_FISHEYE': [0.04, -0.01]}


def lens_of(model: str) -> Lens:
    names = CAMERA_MODELS[model]
    coefficients = dict(zip(names[len(names) - len(NUMBERS[model]):], NUMBERS[model]))
    return Lens.from_coefficients(coefficients, model.endswith('FISHEYE'))


def bent(model: str, x: float, y: float) -> tuple[float, float]:
    """Distort a point of a pinhole image as COLMAP defines each of its models."""
    k = NUMBERS[model]
    r2 = x * x + y * y
    if model == 'SIMPLE_RADIAL':
        return x * (1 + k[0] * r2), y * (1 + k[0] * r2)
    if model == 'RADIAL':
        return x * (1 + k[0] * r2 + k[1] * r2 ** 2), y * (1 + k[0] * r2 + k[1] * r2 ** 2)
    if model.endswith('FISHEYE'):
        r = math.sqrt(r2)
        if r == 0:
            return x, y
        theta = math.atan2(r, 1)
        total = theta + sum(value * theta ** (3 + 2 * i) for i, value in enumerate(k))
        return x / r * total, y / r * total
    k1, k2, p1, p2, k3, k4, k5, k6 = [*k, 0, 0, 0, 0][:8]
    radial = (1 + k1 * r2 + k2 * r2 ** 2 + k3 * r2 ** 3) / (1 + k4 * r2 + k5 * r2 ** 2 + k6 * r2 ** 3)
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x ** 2), y * radial + p1 * (r2 + 2 * y ** 2) + 2 * p2 * x * y)


def scene(x, y):
    """Colours and alpha of the direction (x, y, 1), smooth and different everywhere."""
    colors = np.stack([0.5 + 0.4 * np.sin(5 * x + 1), 0.5 + 0.4 * np.cos(4 * y - x), 0.5 + 0.2 * x + 0.2 * y], -1)
    alpha = 1 / (1 + np.exp(20 * (np.hypot(x - 0.05, y + 0.03) - 0.35)))
    return np.concatenate([colors, alpha[..., None]], -1)


def places(matrix) -> tuple[np.ndarray, np.ndarray]:
    """Centres of all pixels, in focal lengths from the axis."""
    return np.meshgrid((np.arange(WIDTH) + 0.5 - matrix[0, 2]) / matrix[0, 0],
                       (np.arange(HEIGHT) + 0.5 - matrix[1, 2]) / matrix[1, 1])


def photographed(model: str) -> np.ndarray:
    """Render the scene through a lens, solving for the ray of every pixel."""
    rays = np.array([[fsolve(lambda p, u=u, v=v: np.subtract(bent(model, *p), (u, v)), (u, v), xtol=1e-9)
                      for u, v in zip(*row)] for row in zip(*places(MATRIX))])
    return scene(rays[..., 0], rays[..., 1]).astype(np.float32)


@pytest.mark.parametrize('model', NUMBERS)
def test_lens_models_match_their_formulas(model):
    rng = np.random.default_rng(0)
    points = [(0.0, 0.0), *rng.uniform(-0.8, 0.8, (40, 2)).tolist()]
    found = lens_of(model).distort(*np.array(points).T)
    np.testing.assert_allclose(np.stack(found, 1), [bent(model, *point) for point in points], atol=1e-14)


def test_zero_distortion_is_a_pinhole_unless_fisheye():
    assert Lens.from_coefficients(dict(fx=3, cx=4, k1=0.0, p2=0)) is None
    fisheye = Lens.from_coefficients({}, fisheye=True)
    assert fisheye.distort(np.array([1.0]), np.array([0.0]))[0] == pytest.approx(math.pi / 4)


@pytest.mark.parametrize('model', NUMBERS)
def test_undistorted_images_match_the_pinhole(model):
    found, matrix = undistort(photographed(model), lens_of(model), MATRIX)
    expected = scene(*places(matrix))
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_array_equal(matrix[:, 2], MATRIX[:, 2])
    assert matrix[0, 0] / MATRIX[0, 0] == pytest.approx(matrix[1, 1] / MATRIX[1, 1]) and matrix[0, 1] == 0
    # Interpolation errs by less than half a pixel would, and than the lens does.
    seen = expected[..., 3] > 0.2
    assert np.abs(found - expected)[seen][:, :3].max() < 0.01 and np.abs(found - expected)[..., 3].max() < 0.02
    shifted = matrix + [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    assert np.abs(found - scene(*places(shifted)))[seen].max() > 0.03
    assert np.abs(photographed(model) - scene(*places(MATRIX)))[seen].max() > 0.03


@pytest.mark.parametrize('model', NUMBERS)
def test_the_focal_scale_shows_as_much_as_the_lens_saw(model):
    factor = focal_scale(lens_of(model), MATRIX, (WIDTH, HEIGHT))

    def outside(scale: float) -> float:
        """Maximum distance in pixels of the pinhole image's border outside the lens's image."""
        worst = -math.inf
        for u, v in [*((u, v) for u in np.linspace(0, WIDTH, 121) for v in (0, HEIGHT)),
                     *((u, v) for u in (0, WIDTH) for v in np.linspace(0, HEIGHT, 89))]:
            x, y = bent(model, (u - MATRIX[0, 2]) / MATRIX[0, 0] / scale, (v - MATRIX[1, 2]) / MATRIX[1, 1] / scale)
            column, row = x * MATRIX[0, 0] + MATRIX[0, 2], y * MATRIX[1, 1] + MATRIX[1, 2]
            worst = max(worst, -column, column - WIDTH, -row, row - HEIGHT)
        return worst

    assert outside(factor) < 0.01
    assert outside(factor * 0.99) > 0.1
    barrel = model in ('SIMPLE_RADIAL', 'OPENCV') or model.endswith('FISHEYE')
    assert 0.5 < factor < 1 if barrel else 1 < factor < 1.2


def test_an_opaque_image_stays_opaque():
    pixels = np.ones((HEIGHT, WIDTH, 4), np.float32)
    pixels[..., :3] = (0.2, 0.4, 0.6)
    for model in NUMBERS:
        found, _ = undistort(pixels, lens_of(model), MATRIX)
        np.testing.assert_allclose(found, pixels, atol=1e-6)


def test_colours_are_weighted_by_alpha():
    """Transparent neighbours, whose colour is meaningless, do not change a colour."""
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.float32)
    pixels[:, ::2] = (0.2, 0.4, 0.6, 1)
    pixels[:, 1::2, :3] = (1, 0, 0)
    found, _ = undistort(pixels, lens_of('OPENCV'), MATRIX)
    assert 0.1 < found[..., 3].mean() < 0.9
    something = found[found[..., 3] > 0.01][:, :3]
    np.testing.assert_allclose(something, np.tile((0.2, 0.4, 0.6), (len(something), 1)), atol=1e-5)


@pytest.mark.parametrize('lens', [Lens(False, k1=-40.0), Lens(False, p1=30.0), Lens(False, k4=-30.0)])
def test_lenses_that_fold_the_image_are_refused(lens):
    with pytest.raises(ValueError, match='over itself; its distortion coefficients are wrong'):
        undistort(np.zeros((HEIGHT, WIDTH, 4), np.float32), lens, MATRIX)


def test_a_folding_polynomial_shows_nothing_twice():
    """Distortion folds back beyond r = 1 / sqrt(3 * 0.9), and the pinhole image ends before that."""
    lens = Lens(False, k1=-0.9)
    factor = focal_scale(lens, MATRIX, (WIDTH, HEIGHT))
    farthest = max(math.hypot((u - MATRIX[0, 2]) / MATRIX[0, 0], (v - MATRIX[1, 2]) / MATRIX[1, 1])
                   for u in (0, WIDTH) for v in (0, HEIGHT)) / factor
    assert 0.9 / math.sqrt(2.7) < farthest < 1 / math.sqrt(2.7) + 0.01
