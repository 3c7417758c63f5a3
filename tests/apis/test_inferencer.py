"""The inferencer with the weights that ship."""
import json
import re
import warnings
from importlib.resources import files

import numpy as np
import pytest
import torch

from clipgs_plugin import CLIPGSInferencer, GaussianCloud, get_config, get_model, read_gaussians, write_gaussians
from clipgs_plugin.toy_world.writing import export_files


@pytest.fixture(scope='module')
def clipgs():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return CLIPGSInferencer('clipgs_toy')


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    return export_files(tmp_path_factory.mktemp('toys'), 6)


def test_shipped_model_says_what_it_knows():
    with pytest.warns(UserWarning, match=r'toy world.*--checkpoint'):
        get_model('clipgs_toy')


def test_toys_are_recognised_and_found_by_text(clipgs, toys):
    """Chair, car, mug, rocket, teapot and teddy bear, of looks that training never showed."""
    names = [' '.join(path.stem.split('_')[2:]) for path in toys]
    answers = [row[0][0] for row in clipgs.classify(toys, names)]
    assert sum(answer == name for answer, name in zip(answers, names)) >= 5, list(zip(answers, names))
    scores = clipgs.embed_text([f'a {name}' for name in names]) @ clipgs.embed_gaussians(toys).T
    assert (scores.argmax(1) == torch.arange(6)).sum() >= 5, scores


def test_probabilities_are_sorted_and_sum_to_one(clipgs, toys):
    row, = clipgs.classify(toys[0], ['chair', 'mug', 'car'])
    values = [p for _, p in row]
    assert sum(values) == pytest.approx(1, abs=1e-5) and values == sorted(values, reverse=True)
    assert {name for name, _ in row} == {'chair', 'mug', 'car'}


def test_embeddings_are_unit_and_do_not_depend_on_company_or_form(clipgs, toys):
    together = clipgs.embed_gaussians(toys, batch_size=4)
    assert together.shape == (6, clipgs.model.encoder.embed_dim)
    assert torch.allclose(together.norm(dim=-1), torch.ones(6), atol=1e-6)
    for path, row in zip(toys, together):
        assert torch.allclose(clipgs.embed_gaussians(path)[0], row, atol=1e-5)
        assert torch.allclose(clipgs.embed_gaussians(read_gaussians(path))[0], row, atol=1e-5)


def test_images_come_as_paths_arrays_or_pictures(clipgs, tmp_path):
    from PIL import Image
    array = np.random.default_rng(0).integers(0, 255, (80, 60, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / 'a.png')
    rows = clipgs.embed_images([array, tmp_path / 'a.png', Image.fromarray(array)])
    assert torch.allclose(rows[0], rows[1], atol=1e-6) and torch.allclose(rows[0], rows[2], atol=1e-6)
    with pytest.raises(FileNotFoundError, match=r'absent\.png'):
        clipgs.embed_images(tmp_path / 'absent.png')


def test_texts_and_images_need_one_tower_each(toys):
    """The results are those of the whole teacher, which is built only when it is asked for."""
    with warnings.catch_warnings(action='ignore'):
        clipgs = CLIPGSInferencer('clipgs_toy')
    picture = np.random.default_rng(0).integers(0, 255, (80, 60, 3), dtype=np.uint8)
    words, (answer,) = clipgs.embed_text(['a chair', 'a mug']), clipgs.classify(toys[0], ['chair', 'mug'])
    assert [teacher.towers for teacher in clipgs._teachers.values()] == ['text']
    looks = clipgs.embed_images(picture)
    assert [teacher.towers for teacher in clipgs._teachers.values()] == ['text', 'image']
    assert clipgs.teacher.towers == 'both' and clipgs.teacher is clipgs.teacher
    assert torch.equal(clipgs.embed_text(['a chair', 'a mug']), words)
    assert torch.equal(clipgs.embed_images(picture), looks)
    assert clipgs.classify(toys[0], ['chair', 'mug']) == [answer]
    for names, classes in ((None, ['mug', 'chair']), (['chair', 'mug'], ['mug', 'car', 'chair'])):
        again, = clipgs.classify(toys[0], names, class_embeddings=clipgs.classes(classes))
        assert dict(again) == pytest.approx(dict(answer), rel=1e-4) and [name for name, _ in again] == [
            name for name, _ in answer]


@pytest.mark.parametrize('orientation, to_stored', [(3, 'ROTATE_180'), (6, 'ROTATE_90'), (8, 'ROTATE_270'),
                                                    (5, 'TRANSPOSE')])
def test_photographs_are_turned_upright_by_their_exif(clipgs, tmp_path, orientation, to_stored):
    """A camera stores the pixels as its sensor lies, and writes the turn that makes them upright."""
    from PIL import Image
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    upright = Image.fromarray(np.stack([np.broadcast_to(ramp[:, None], (64, 96)), np.full((64, 96), 40, np.uint8),
                                        np.broadcast_to(np.resize(ramp, 96), (64, 96))], -1))
    stored = upright.transpose(getattr(Image.Transpose, to_stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / 'photo.jpg', quality=100, subsampling=0, exif=exif)
    expected, path, opened, lying = clipgs.embed_images([upright, tmp_path / 'photo.jpg',
                                                         Image.open(tmp_path / 'photo.jpg'), stored])
    assert expected @ path > 0.999 and expected @ opened > 0.999 > expected @ lying + 0.01


def test_nothing_to_embed_is_an_error(clipgs):
    with pytest.raises(ValueError, match='empty list'):
        clipgs.embed_gaussians([])


def test_a_checkpoint_of_another_model_names_what_does_not_fit(tmp_path):
    cfg = get_config('clipgs_pointbert-nano_15e_toy-world')
    torch.save({'state_dict': {'encoder.projection.weight': torch.zeros(3, 3), 'other': torch.zeros(1)}},
               tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'missing.*1 unexpected \(other\).*encoder.projection.weight \(3, 3\)'):
        get_model(cfg, tmp_path / 'x.pth')
    with pytest.warns(UserWarning, match='random'):
        assert not get_model(cfg).training


def test_golden_embeddings_of_real_files(clipgs, splats):
    """Embeddings of the released weights; a change in any step from file to embedding shows here."""
    golden = json.loads((files('clipgs_plugin') / 'weights' / 'clipgs_toy' / 'golden.json').read_text())
    assert len(golden) == 3
    for name, expected in golden.items():
        found = clipgs.embed_gaussians(splats / name)[0]
        assert torch.allclose(found, torch.tensor(expected), atol=2e-3), name


def test_every_real_file_has_an_embedding(clipgs, splats):
    paths = sorted(path for path in splats.iterdir())
    rows = clipgs.embed_gaussians(paths)
    assert len(rows) == len(paths) >= 20 and rows.isfinite().all()


def test_the_order_in_a_file_does_not_matter(clipgs, splats):
    cloud = read_gaussians(splats / 'potted_plant.splat')
    shuffled = cloud[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))]
    a, b = clipgs.embed_gaussians([cloud, shuffled])
    assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('name', ['potted_plant.splat', 'camera.spz', 'monkey.sog'])
def test_a_few_floaters_do_not_change_an_embedding(clipgs, splats, name):
    """They shrank the object in the unit sphere, and farthest point sampling picked all of them."""
    cloud = read_gaussians(splats / name).with_sh_degree(0)
    count = len(cloud) // 1000
    centre, radius = cloud.bounding_sphere()
    directions = torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)
    means = centre + directions * radius * torch.linspace(3, 30, count, dtype=torch.float64)[:, None]
    most_opaque = cloud[cloud.opacity_logits.argsort(descending=True)[:count]].replace(means=means.float())
    dirty = GaussianCloud(**{field: torch.cat([value, getattr(most_opaque, field)]) for field, value in cloud.fields()})
    a, b = clipgs.embed_gaussians([cloud, dirty])
    assert a @ b > 0.9999


def test_one_gaussian_is_an_object(clipgs, random_cloud, tmp_path):
    assert isinstance(random_cloud(1), GaussianCloud)
    write_gaussians(random_cloud(1), tmp_path / 'one.ply')
    assert clipgs.embed_gaussians(tmp_path / 'one.ply').isfinite().all()


@pytest.mark.parametrize('field, value', [('means', torch.inf), ('quats', 0.0), ('quats', torch.nan),
                                          ('log_scales', torch.nan), ('opacity_logits', torch.nan), ('sh', torch.nan)])
def test_clouds_in_memory_with_values_without_meaning_are_refused(clipgs, random_cloud, field, value):
    """Such values turned the whole embedding, and every probability, into NaN."""
    bad = random_cloud(40)
    getattr(bad, field)[7] = value
    problem = 'are zero and define no rotation' if value == 0 else 'is NaN or infinite'
    for call in (clipgs.embed_gaussians, lambda clouds: clipgs.classify(clouds, ['mug', 'car'])):
        with pytest.raises(ValueError, match=f'^object 1: {field} {problem} in 1 of 40 .* at index 7;'):
            call([random_cloud(40), bad])
    with pytest.raises(ValueError, match=f'{field} {problem}.*index 7'):
        clipgs.prepare(bad)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    model = get_model('clipgs_toy')
    name = next(name for name, value in model.state_dict().items() if value.ndim == 2)
    model.state_dict()[name][0, 0] = float('nan')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'nan.pth')
    with pytest.raises(ValueError, match=rf'nan\.pth: tensor {re.escape(name)} holds NaN or infinite values'):
        get_model(model.cfg, tmp_path / 'nan.pth')


def test_turns_average_to_the_same_embedding_after_one_of_them(clipgs, splats):
    from clipgs_plugin.ops.rotations import y_rotation
    cloud = read_gaussians(splats / 'potted_plant.splat')[::7]
    each = clipgs.embed_gaussians([cloud.transform(y_rotation(2 * np.pi * i / 3)) for i in range(3)])
    averaged = clipgs.embed_gaussians([cloud, cloud.transform(y_rotation(2 * np.pi / 3))], turns=3)
    assert torch.allclose(averaged[0], each.mean(0) / each.mean(0).norm(), atol=1e-4)
    assert torch.allclose(averaged[1], averaged[0], atol=2e-3)
    clouds = [cloud, *(cloud.transform(y_rotation(angle)) for angle in (0.4, 2.9))]
    losses = []
    for turns in (1, 6):
        embeddings = clipgs.embed_gaussians(clouds, turns=turns)
        losses.append(float(1 - (embeddings[1:] @ embeddings[0]).mean()))
    assert losses[1] < 0.5 * losses[0]
    with pytest.raises(ValueError, match='turns=0'):
        clipgs.embed_gaussians(cloud, turns=0)


class Spread(torch.nn.Module):
    """An encoder that follows turns exactly: its embedding is a function of the angles about y."""

    cfg = get_config('clipgs_pointbert-nano_15e_toy-world')

    def forward(self, batch, mode):
        x, y, z = batch.means.double().unbind(-1)
        return torch.stack([x.pow(3).sum(1), y.abs().sum(1), (x * z).sum(1), z.relu().sum(1)], 1)


def test_turns_are_exact_for_an_equivariant_model(random_cloud):
    from clipgs_plugin.ops.rotations import y_rotation
    model = CLIPGSInferencer(Spread())
    cloud = random_cloud(400)
    before, after = (model.embed_gaussians(each, turns=12) for each in (cloud, cloud.transform(y_rotation(np.pi / 6))))
    assert torch.allclose(before, after, atol=1e-5)
    single = model.embed_gaussians([cloud, cloud.transform(y_rotation(np.pi / 6))])
    assert not torch.allclose(single[0], single[1], atol=1e-2)
