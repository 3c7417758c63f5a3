"""Visual hulls against a ball whose images are computed pixel by pixel."""
import numpy as np
import pytest

from clipgs_plugin import ops
from clipgs_plugin.generation.objects import Points, PosedImages
from clipgs_plugin.generation.sources.visual_hull import hull_box, hull_points, points_of_object, within_masks

CENTRE, RADIUS, SIZE = np.array([0.3, -0.2, 0.5]), 0.7, 80


def ball_views(num_views=24) -> PosedImages:
    """Render a ball coloured by its normals, by rays through the centres of pixels."""
    viewmats = ops.sphere_cameras(num_views, 4.0).double().numpy()
    matrix = ops.intrinsics(40.0, SIZE, SIZE).numpy()
    places = np.arange(SIZE) + 0.5
    x, y = np.meshgrid((places - matrix[0, 2]) / matrix[0, 0], (places - matrix[1, 2]) / matrix[1, 1])
    rays = np.stack([x, y, np.ones_like(x)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    images = np.zeros((num_views, SIZE, SIZE, 4), np.float32)
    for image, viewmat in zip(images, viewmats):
        centre = viewmat[:3, :3] @ CENTRE + viewmat[:3, 3]
        along = rays @ centre
        inside = along ** 2 - centre @ centre + RADIUS ** 2
        hits = rays * (along - np.sqrt(inside.clip(0)))[..., None] - centre
        image[..., :3] = (hits @ viewmat[:3, :3] / RADIUS + 1) / 2
        image[..., 3] = inside > 0
    return PosedImages(images, viewmats.astype(np.float32), np.broadcast_to(matrix, (num_views, 3, 3)))


@pytest.fixture(scope='module')
def ball():
    return ball_views()


def test_points_lie_on_a_ball_with_its_normals_and_colours(ball):
    surface = hull_points(ball, 3000, seed=0)
    assert surface.positions.shape == surface.normals.shape == surface.colors.shape == (3000, 3)
    assert surface.positions.dtype == surface.normals.dtype == surface.colors.dtype == np.float32
    away = surface.positions - CENTRE
    distance = np.linalg.norm(away, axis=1)
    cell = 2 * RADIUS / 64
    assert np.abs(distance - RADIUS).max() < cell * 1.5 and abs(distance.mean() - RADIUS) < cell * 0.75
    outward = away / distance[:, None]
    assert (outward * surface.normals).sum(1).min() > 0.95
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-5)
    assert np.abs(surface.colors - (outward + 1) / 2).max() < 0.05
    # Every octant has about its share.
    octants = ((outward > 0) @ [1, 2, 4])
    assert np.bincount(octants, minlength=8).min() > 3000 / 8 * 0.8


def test_occluded_places_take_no_colour_from_the_occluder():
    """Each of two balls keeps its colour although many views see one before the other."""
    near, far = ball_views(36), ball_views(36)
    images = near.images.copy()
    images[..., :3] = (1, 0, 0)
    # The second ball is the first, seen by cameras moved by (-1.6, 0, 0).
    shift = np.array([1.6, 0.0, 0.0])
    viewmats = near.viewmats.copy()
    for view, viewmat in enumerate(viewmats):
        moved = viewmat[:3, :3] @ (CENTRE + shift) + viewmat[:3, 3]
        first = viewmat[:3, :3] @ CENTRE + viewmat[:3, 3]
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        matrix = far.intrinsics[view]
        rays = np.stack([(columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1],
                         np.ones((SIZE, SIZE))], -1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        along = rays @ moved
        hit = along ** 2 - moved @ moved + RADIUS ** 2 > 0
        before = hit & ((np.linalg.norm(moved) < np.linalg.norm(first)) | (images[view, ..., 3] == 0))
        images[view][before] = (0, 0, 1, 1)
    surface = hull_points(PosedImages(images, viewmats, near.intrinsics), 2000, seed=0)
    first = np.linalg.norm(surface.positions - CENTRE, axis=1)
    second = np.linalg.norm(surface.positions - CENTRE - shift, axis=1)
    on_first, on_second = np.abs(first - RADIUS) < 0.05, np.abs(second - RADIUS) < 0.05
    assert min(on_first.sum(), on_second.sum()) > 300
    assert (surface.colors[on_first, 0] > 0.9).mean() > 0.97
    assert (surface.colors[on_second, 2] > 0.9).mean() > 0.97


def test_a_thin_plate_keeps_a_colour_on_each_side():
    """A box of two cells is red from above and blue from below; most views are from above."""
    viewmats = ops.sphere_cameras(24, 4.0, elevation=[35, 35, 0, 35, -35]).double().numpy()
    matrix = ops.intrinsics(40.0, SIZE, SIZE).numpy()
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    rays = np.stack([(columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1],
                     np.ones((SIZE, SIZE))], -1)
    images = np.zeros((24, SIZE, SIZE, 4), np.float32)
    corner = np.array([0.7, 0.04, 0.7])
    for image, viewmat in zip(images, viewmats):
        eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
        bounds = np.stack([-corner - eye, corner - eye])[:, None, None] / (rays @ viewmat[:3, :3])
        image[..., 3] = bounds.min(0).max(-1) < bounds.max(0).min(-1)  # enters all three slabs before leaving one
        image[..., :3] = (eye[1] > 0.04, 0, eye[1] < -0.04)
    posed = PosedImages(images, viewmats.astype(np.float32), np.broadcast_to(matrix, (24, 3, 3)))
    surface = hull_points(posed, 2000, seed=0)
    above, below = surface.normals[:, 1] > 0.7, surface.normals[:, 1] < -0.7
    assert min(above.sum(), below.sum()) > 500
    assert (surface.colors[above] == (1, 0, 0)).all(1).mean() > 0.99  # rims are seen from the side
    assert (surface.colors[below] == (0, 0, 1)).all(1).mean() > 0.99


def test_the_box_is_tight_around_the_rectangles(ball):
    low, high = hull_box(ball)
    axes = np.linspace(-1, 1.6, 53)  # steps of 0.05
    places = np.stack(np.meshgrid(axes, axes, axes, indexing='ij'), -1).reshape(-1, 3)
    inside = np.ones(len(places), bool)
    for image, viewmat, matrix in zip(ball.images, ball.viewmats.astype(np.float64), ball.intrinsics):
        seen = (places @ viewmat[:3, :3].T + viewmat[:3, 3]) @ matrix.T.astype(np.float64)
        pixels = seen[:, :2] / seen[:, 2:]
        rows, columns = np.nonzero(image[..., 3])
        for axis, filled in enumerate((columns, rows)):
            inside &= (pixels[:, axis] >= filled.min() - 1) & (pixels[:, axis] <= filled.max() + 2)
    np.testing.assert_allclose(low, places[inside].min(0), atol=0.06)
    np.testing.assert_allclose(high, places[inside].max(0), atol=0.06)
    assert (places[inside].min(0) >= low).all() and (places[inside].max(0) <= high).all()


def test_only_masks_that_see_a_place_exclude_it(ball):
    images = ball.images[:5].copy()
    images[0, ..., 3] = 0                    # excludes nothing
    posed = PosedImages(images, ball.viewmats[:5], ball.intrinsics[:5])
    places = np.random.default_rng(0).uniform(-6, 6, (500, 3)) * np.random.default_rng(1).random((500, 1)) + CENTRE
    expected = []
    for place in places:
        kept = True
        for image, viewmat, matrix in zip(images[1:], posed.viewmats[1:], posed.intrinsics[1:]):
            x, y, depth = matrix.astype(np.float64) @ (viewmat[:3, :3].astype(np.float64) @ place + viewmat[:3, 3])
            if depth > 0 and 0 <= x / depth < SIZE and 0 <= y / depth < SIZE:
                kept &= bool(image[int(y / depth), int(x / depth), 3] >= 0.5)
        expected.append(kept)
    assert 50 < sum(expected) < 450
    np.testing.assert_array_equal(within_masks(places, posed), expected)


def test_points_of_the_surroundings_are_dropped(ball):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(400, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = CENTRE + RADIUS * directions * np.repeat((0.96, 1.0, 2.5, 5.0), 100)[:, None]
    posed = ball._replace(images=ball.images.copy(), points=Points(places.astype(np.float32), rng.random((400, 3)),
                                                                    directions.astype(np.float32)))
    posed.images[:2, 20:60, 20:60, 3] = 0    # two masks with holes
    posed.images[2, ..., 3] = 0              # and an empty one
    expected = []
    for place in posed.points.positions.astype(np.float64):
        hits = []
        for image, viewmat, matrix in zip(posed.images, posed.viewmats, posed.intrinsics):
            x, y, depth = matrix.astype(np.float64) @ (viewmat[:3, :3].astype(np.float64) @ place + viewmat[:3, 3])
            if image[..., 3].any() and depth > 0 and 0 <= x / depth < SIZE and 0 <= y / depth < SIZE:
                hits.append(image[int(y / depth), int(x / depth), 3] >= 0.5)
        expected.append(len(hits) >= 3 and np.mean(hits) >= 0.9)
    assert all(expected[:100]) and not any(expected[200:])
    found = points_of_object(posed).points
    for array, kept in zip(posed.points, found):
        np.testing.assert_array_equal(kept, array[expected])
    assert points_of_object(posed._replace(images=np.ones_like(posed.images))).points is posed.points
    assert points_of_object(ball) is ball
    far = posed._replace(points=Points(posed.points.positions[200:]))
    with pytest.warns(UserWarning, match='none of 200 points lies on the object'):
        assert points_of_object(far).points is None


def test_a_mask_cut_by_the_border_bounds_nothing_beyond():
    whole = ball_views(12)
    cut = whole._replace(images=whole.images.copy(), intrinsics=whole.intrinsics.copy())
    # Shift the image until its edge cuts the ball in half.
    shift = int(np.nonzero(whole.images[5, ..., 3])[1].mean())
    cut.images[5] = 0
    cut.images[5, :, :SIZE - shift] = whole.images[5, :, shift:]
    cut.intrinsics[5, 0, 2] -= shift
    assert (cut.images[5, :, 0, 3] > 0).sum() > 10
    surface = hull_points(cut, 1000, seed=0)
    away = surface.positions - CENTRE
    outward = away / np.linalg.norm(away, axis=1, keepdims=True)
    assert np.bincount((outward > 0) @ [1, 2, 4], minlength=8).min() > 1000 / 8 * 0.6


def test_points_depend_on_the_seed_and_cells_give_several():
    ball = ball_views(6)
    first, again, other = (hull_points(ball, 400, seed) for seed in (3, 3, 4))
    assert first.positions.tobytes() == again.positions.tobytes() and first.colors.tobytes() == again.colors.tobytes()
    assert first.positions.tobytes() != other.positions.tobytes()
    many = hull_points(ball, 30_000, seed=3)
    assert len(np.unique(many.positions, axis=0)) > 29_000


def test_unbounded_or_contradictory_masks_are_refused(ball):
    without = ball._replace(images=np.ones_like(ball.images))
    with pytest.raises(ValueError, match='masks of 24 images do not bound the object; provide masks'):
        hull_points(without, 10, seed=0)
    single = PosedImages(*(array[:1] for array in ball[:3]))
    with pytest.raises(ValueError, match='masks of 1 images do not bound'):
        hull_points(single, 10, seed=0)
    moved = ball._replace(viewmats=ball.viewmats.copy())
    moved.viewmats[::2, 0, 3] += 2.5
    with pytest.raises(ValueError, match='no place is inside the rectangles of all 24 masks'):
        hull_points(moved, 10, seed=0)
    holed = ball._replace(images=ball.images.copy())
    holed.images[:, 10:70, 10:70, 3] = 0
    holed.images[:, 5, 5, 3] = holed.images[:, 75, 75, 3] = 1
    with pytest.raises(ValueError, match='no place is inside all 24 masks'):
        hull_points(holed, 10, seed=0)
