"""Contact sheets: choice of the objects, and agreement with the stored views and Gaussians."""
import json

import numpy as np
import pytest
import torch

from clipgs_plugin import ops
from clipgs_plugin.triplets import ShardReader, ShardWriter
from clipgs_plugin.triplets.inspection import contact_sheet

SIZE, VIEWS, WIDTH = 32, 6, 640
SHOWN = VIEWS // 3  # number of the view on a sheet
CAMERAS = dict(size=SIZE, background=(1.0, 1.0, 1.0), viewmats=ops.sphere_cameras(VIEWS, 4.0).tolist(),
               intrinsics=ops.intrinsics(40.0, SIZE, SIZE).tolist())


def write(root, cloud, objects, render=CAMERAS, qualities=None, captions=None):
    """Write a dataset of objects with these views, each (V, H, W, 3), losslessly."""
    with ShardWriter(root, render=render, webp_quality=None) as writer:
        for i, views in enumerate(objects):
            writer.write(f'uid-{i}', cloud, views, captions=[captions[i] if captions else f'thing {i}'],
                         quality=qualities[i] if qualities else {})
    return root


def flat(count, height=SIZE, width=SIZE):
    """Make views of one colour each, which encodes the object (red) and the view (green)."""
    views = np.full((count, VIEWS, height, width, 3), 200, np.uint8)
    views[..., 0] = 10 * np.arange(count)[:, None, None, None]
    views[..., 1] = 20 * np.arange(VIEWS)[None, :, None, None]
    return views


def colours(sheet, columns, rows):
    """Return the central colours of the left images of a sheet, row by row, and of the right ones."""
    pixels = np.asarray(sheet)
    pitch = (pixels.shape[1] - 12) // columns
    left = 12 + np.arange(columns) * pitch
    side = (pitch - 12 - 4) // 2
    # A frame of this grey starts and ends each row of images.
    frames = [y for y in range(len(pixels)) if (pixels[y, left[0]:left[0] + side] == 221).all()][::2]
    assert len(frames) == rows
    return ([tuple(pixels[y + side // 2, x + side // 2].tolist()) for y in frames for x in left],
            [tuple(pixels[y + side // 2, x + side + 4 + side // 2].tolist()) for y in frames for x in left])


def shown_objects(sheet, columns, rows, count):
    """Return the objects of :func:`flat` that a sheet shows."""
    left, _ = colours(sheet, columns, rows)
    assert all(green == 20 * SHOWN for _, green, _ in left[:count])
    return [red // 10 for red, *_ in left[:count]]


def test_the_shown_objects_spread_over_the_ranks_from_worst_to_best(tmp_path, random_cloud):
    foreground = [33.0, 21.0, 40.0, 28.0, 35.0, 30.0, 22.0]
    # The PSNR of whole views ranks in reverse, and one object is not measured.
    qualities = [dict(psnr=60 - value, psnr_foreground=value) for value in foreground] + [{}]
    root = write(tmp_path, random_cloud(20), flat(8), qualities=qualities)
    by_rank = sorted(range(7), key=lambda i: foreground[i])
    assert shown_objects(contact_sheet(root, 4, columns=2, width=WIDTH), 2, 2, 4) == [by_rank[i] for i in (0, 2, 4, 6)]
    assert shown_objects(contact_sheet(root, 7, columns=7, width=WIDTH), 7, 1, 7) == by_rank
    assert shown_objects(contact_sheet(root, 1, width=WIDTH), 1, 1, 1) == by_rank[:1]
    # Seven measured objects are too few for eight.
    assert shown_objects(contact_sheet(ShardReader(root), 100, columns=4, width=WIDTH), 4, 2, 8) == list(range(8))


def test_the_psnr_of_whole_views_ranks_if_no_foreground_is_measured(tmp_path, random_cloud):
    psnr = [33.0, 21.0, 40.0]
    root = write(tmp_path, random_cloud(20), flat(3), qualities=[dict(psnr=value) for value in psnr])
    assert shown_objects(contact_sheet(root, 3, columns=3, width=WIDTH), 3, 1, 3) == [1, 0, 2]


def test_objects_without_quality_are_drawn_with_the_seed(tmp_path, random_cloud):
    root = write(tmp_path, random_cloud(20), flat(12))
    draws = {seed: contact_sheet(root, 4, seed, width=WIDTH) for seed in range(4)}
    shown = {seed: tuple(shown_objects(sheet, 4, 1, 4)) for seed, sheet in draws.items()}
    assert all(len(set(found)) == 4 for found in shown.values()) and len(set(shown.values())) > 1
    assert contact_sheet(root, 4, 2, width=WIDTH).tobytes() == draws[2].tobytes()


def test_a_view_stands_beside_its_gaussians_from_the_same_camera(tmp_path, random_cloud):
    cloud = random_cloud(300).normalise()
    cloud = cloud.replace(opacity_logits=cloud.opacity_logits + 3)
    matrices = torch.tensor(CAMERAS['intrinsics']).expand(VIEWS, 3, 3)
    drawn, _ = ops.render(cloud, torch.tensor(CAMERAS['viewmats']), matrices, SIZE, SIZE, CAMERAS['background'])
    views = (drawn.clamp(0, 1) * 255).round().byte().numpy()
    pixels = np.asarray(contact_sheet(write(tmp_path, cloud, [views]), width=2 * SIZE + 4 + 2 * 12)).astype(int)
    # At this width an image keeps its size.
    top = next(y for y in range(len(pixels)) if (pixels[y, 12:12 + SIZE] == 221).all()) + 1
    left, right = (pixels[top:top + SIZE, x:x + SIZE] for x in (12, 12 + SIZE + 4))
    assert np.array_equal(left, views[SHOWN])
    assert abs(left - right).mean() < 1 and right.std() > 10  # Gaussians are stored as float16
    assert abs(views[SHOWN + 1].astype(int) - right).mean() > 5  # another view differs


def test_images_keep_their_proportions(tmp_path, random_cloud):
    root = write(tmp_path, random_cloud(20), flat(1, 16, 48), render={})
    pixels = np.asarray(contact_sheet(root, width=WIDTH))
    ys, xs = np.nonzero((pixels == (0, 20 * SHOWN, 200)).all(-1))
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    assert width / height == pytest.approx(3, rel=0.02) and width > 0.4 * WIDTH


def test_text_stays_under_its_object(tmp_path, random_cloud):
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
def test_numbers_out_of_range_are_refused(tmp_path, random_cloud, options, reason):
    root = write(tmp_path, random_cloud(20), flat(4))
    with pytest.raises(ValueError, match=reason):
        contact_sheet(root, **options)


def test_datasets_without_objects_or_views_are_refused(tmp_path, random_cloud):
    with pytest.raises(ValueError, match='0 objects of 0 views'):
        contact_sheet(write(tmp_path / 'none', random_cloud(20), []))
    with pytest.raises(ValueError, match='1 objects of 0 views'):
        contact_sheet(write(tmp_path / 'blind', random_cloud(20), [()]))
    (tmp_path / 'open').mkdir()
    (tmp_path / 'open' / 'dataset.json').write_text(json.dumps(ShardReader(tmp_path / 'none').settings))
    with pytest.raises(FileNotFoundError, match='has not finished'):
        contact_sheet(tmp_path / 'open')
