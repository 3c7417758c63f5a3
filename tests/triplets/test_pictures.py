"""Contact sheets: which objects are on them, and that what they show is what is stored."""
import json

import numpy as np
import pytest
import torch

from clipgs_plugin import ops
from clipgs_plugin.triplets import ShardReader, ShardWriter
from clipgs_plugin.triplets.inspection import contact_sheet

SIZE, VIEWS, WIDTH = 32, 6, 640
SHOWN = VIEWS // 3  # the number of the view on a sheet
CAMERAS = dict(size=SIZE, background=(1.0, 1.0, 1.0), viewmats=ops.sphere_cameras(VIEWS, 4.0).tolist(),
               intrinsics=ops.intrinsics(40.0, SIZE, SIZE).tolist())


def write(root, cloud, pictures, render=CAMERAS, qualities=None, captions=None):
    """A set of objects with these views, (V, H, W, 3), stored without loss."""
    with ShardWriter(root, render=render, webp_quality=None) as writer:
        for i, views in enumerate(pictures):
            writer.write(f'uid-{i}', cloud, views, captions=[captions[i] if captions else f'thing {i}'],
                         quality=qualities[i] if qualities else {})
    return root


def flat(count, height=SIZE, width=SIZE):
    """Pictures of one colour each, which tells the object (red) and the view (green)."""
    views = np.full((count, VIEWS, height, width, 3), 200, np.uint8)
    views[..., 0] = 10 * np.arange(count)[:, None, None, None]
    views[..., 1] = 20 * np.arange(VIEWS)[None, :, None, None]
    return views


def colours(sheet, columns, rows):
    """The colour in the middle of each left picture of a sheet, row by row, and of each right one."""
    pixels = np.asarray(sheet)
    pitch = (pixels.shape[1] - 12) // columns
    left = 12 + np.arange(columns) * pitch
    side = (pitch - 12 - 4) // 2
    # Rows of pictures follow one another at one pitch from the bottom up; the frame of the first begins it.
    frames = [y for y in range(len(pixels)) if (pixels[y, left[0]:left[0] + side] == 221).all()][::2]
    assert len(frames) == rows
    return ([tuple(pixels[y + side // 2, x + side // 2].tolist()) for y in frames for x in left],
            [tuple(pixels[y + side // 2, x + side + 4 + side // 2].tolist()) for y in frames for x in left])


def objects(sheet, columns, rows, count):
    """Which objects of :func:`flat` a sheet shows."""
    left, _ = colours(sheet, columns, rows)
    assert all(green == 20 * SHOWN for _, green, _ in left[:count])
    return [red // 10 for red, *_ in left[:count]]


def test_objects_are_spread_over_the_ranks_from_the_worst_to_the_best(tmp_path, random_cloud):
    foreground = [33.0, 21.0, 40.0, 28.0, 35.0, 30.0, 22.0]
    # Whole pictures rank otherwise, and one object was not measured.
    qualities = [dict(psnr=60 - value, psnr_foreground=value) for value in foreground] + [{}]
    root = write(tmp_path, random_cloud(20), flat(8), qualities=qualities)
    by_rank = sorted(range(7), key=lambda i: foreground[i])
    assert objects(contact_sheet(root, 4, columns=2, width=WIDTH), 2, 2, 4) == [by_rank[i] for i in (0, 2, 4, 6)]
    assert objects(contact_sheet(root, 7, columns=7, width=WIDTH), 7, 1, 7) == by_rank
    assert objects(contact_sheet(root, 1, width=WIDTH), 1, 1, 1) == by_rank[:1]
    # Seven measured are not enough for eight.
    assert objects(contact_sheet(ShardReader(root), 100, columns=4, width=WIDTH), 4, 2, 8) == list(range(8))


def test_whole_pictures_rank_where_no_foreground_was_measured(tmp_path, random_cloud):
    psnr = [33.0, 21.0, 40.0]
    root = write(tmp_path, random_cloud(20), flat(3), qualities=[dict(psnr=value) for value in psnr])
    assert objects(contact_sheet(root, 3, columns=3, width=WIDTH), 3, 1, 3) == [1, 0, 2]


def test_objects_without_quality_are_drawn_by_the_seed(tmp_path, random_cloud):
    root = write(tmp_path, random_cloud(20), flat(12))
    draws = {seed: contact_sheet(root, 4, seed, width=WIDTH) for seed in range(4)}
    shown = {seed: tuple(objects(sheet, 4, 1, 4)) for seed, sheet in draws.items()}
    assert all(len(set(found)) == 4 for found in shown.values()) and len(set(shown.values())) > 1
    assert contact_sheet(root, 4, 2, width=WIDTH).tobytes() == draws[2].tobytes()


def test_a_view_stands_beside_its_gaussians_from_the_same_camera(tmp_path, random_cloud):
    cloud = random_cloud(300).normalise()
    cloud = cloud.replace(opacity_logits=cloud.opacity_logits + 3)
    matrices = torch.tensor(CAMERAS['intrinsics']).expand(VIEWS, 3, 3)
    drawn, _ = ops.render(cloud, torch.tensor(CAMERAS['viewmats']), matrices, SIZE, SIZE, CAMERAS['background'])
    views = (drawn.clamp(0, 1) * 255).round().byte().numpy()
    pixels = np.asarray(contact_sheet(write(tmp_path, cloud, [views]), width=2 * SIZE + 4 + 2 * 12)).astype(int)
    # At this width a picture is shown as large as it is.
    top = next(y for y in range(len(pixels)) if (pixels[y, 12:12 + SIZE] == 221).all()) + 1
    left, right = (pixels[top:top + SIZE, x:x + SIZE] for x in (12, 12 + SIZE + 4))
    assert np.array_equal(left, views[SHOWN])
    assert abs(left - right).mean() < 1 and right.std() > 10  # Gaussians are stored as float16
    assert abs(views[SHOWN + 1].astype(int) - right).mean() > 5  # and another view is another picture


def test_pictures_keep_their_proportions(tmp_path, random_cloud):
    root = write(tmp_path, random_cloud(20), flat(1, 16, 48), render={})
    pixels = np.asarray(contact_sheet(root, width=WIDTH))
    ys, xs = np.nonzero((pixels == (0, 20 * SHOWN, 200)).all(-1))
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    assert width / height == pytest.approx(3, rel=0.02) and width > 0.4 * WIDTH


def test_words_stay_under_their_object(tmp_path, random_cloud):
    long = 'a very long caption of many words that goes on and on ' * 4
    root = write(tmp_path, random_cloud(20), flat(2), captions=[long, 'b'], render={})
    pixels = np.asarray(contact_sheet(root, 2, columns=2, width=WIDTH)).astype(int)
    pitch = (WIDTH - 12) // 2
    top = next(y for y in range(len(pixels)) if (pixels[y, 12:pitch // 2] == 221).all())
    dark = (pixels.max(-1) < 120)
    assert dark[:, :pitch].any() and not dark[:, -11:].any()
    assert dark[top:, pitch - 30:pitch].any() and not dark[top:, pitch + 1:12 + pitch].any()


@pytest.mark.parametrize('options, reason', [(dict(count=0), 'count=0'), (dict(columns=0), 'columns=0'),
                                             (dict(width=60), 'width=60 leaves')])
def test_sheets_that_cannot_be_are_refused(tmp_path, random_cloud, options, reason):
    root = write(tmp_path, random_cloud(20), flat(4))
    with pytest.raises(ValueError, match=reason):
        contact_sheet(root, **options)


def test_sets_without_objects_or_views_are_refused(tmp_path, random_cloud):
    with pytest.raises(ValueError, match='0 objects of 0 views'):
        contact_sheet(write(tmp_path / 'none', random_cloud(20), []))
    with pytest.raises(ValueError, match='1 objects of 0 views'):
        contact_sheet(write(tmp_path / 'blind', random_cloud(20), [()]))
    (tmp_path / 'open').mkdir()
    (tmp_path / 'open' / 'dataset.json').write_text(json.dumps(ShardReader(tmp_path / 'none').settings))
    with pytest.raises(FileNotFoundError, match='has not ended'):
        contact_sheet(tmp_path / 'open')
