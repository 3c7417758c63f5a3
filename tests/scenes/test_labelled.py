"""Objects of a scene, found, embedded and labelled in Python."""
import os

import numpy as np
import pytest
import torch

from clipgs_plugin import CLIPGSInferencer, read_gaussians
from clipgs_plugin.apis import label_scene
from clipgs_plugin.io.inria_ply import further_columns
from clipgs_plugin.ops import axis_change
from clipgs_plugin.scenes import (
    Scene,
    SplitOptions,
    check_scene_folder,
    embed_objects,
    find_objects,
    write_scene_folder,
)
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.toy_world import make_object
from clipgs_plugin.toy_world.writing import export_specs

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def clipgs():
    return CLIPGSInferencer('clipgs_toy')


@pytest.fixture(scope='module')
def three():
    """Three toys far from each other, of different sizes, and their labels."""
    toys = [make_object(spec, count).gaussians for spec, count in zip(export_specs(3), (900, 500, 300))]
    toys = [cloud.replace(means=cloud.means + 4 * i) for i, cloud in enumerate(toys)]
    cloud = GaussianCloud(*map(torch.cat, zip(*([value for _, value in cloud.fields()] for cloud in toys))))
    return cloud, torch.arange(1, 4).repeat_interleave(torch.tensor([900, 500, 300]))


@pytest.mark.parametrize('turns', [1, 2])
def test_objects_embedded_in_batches_are_those_embedded_one_by_one(clipgs, three, turns):
    cloud, labels = three
    members = [torch.nonzero(labels == i)[:, 0] for i in (1, 2, 3)]
    lying = cloud.transform(axis_change('y', '-z'))
    found = embed_objects(clipgs, lying, members, '-z', turns, batch_size=2)
    alone = torch.cat([clipgs.embed_gaussians(cloud[each], turns=turns) for each in members])
    assert torch.allclose(found, alone, atol=1e-5) and found.norm(dim=1).allclose(torch.ones(3))


def test_a_cloud_with_an_array_of_labels_is_labelled_and_written(clipgs, three, tmp_path):
    cloud, labels = three
    names = ['chair', 'car', 'mug']
    found = label_scene(cloud, clipgs, names, split=SplitOptions(labels=labels))
    assert [row.label for row in found.rows] == names and found.way == 'labels (array)'
    assert [row.gaussians for row in found.rows] == [900, 500, 300]
    write_scene_folder(found, tmp_path / 'out')
    assert np.array_equal(further_columns(tmp_path / 'out' / 'scene.labelled.ply')['object'], labels)
    again = label_scene(tmp_path / 'out' / 'scene.labelled.ply', clipgs, 'a car')
    assert again.way == 'labels (property object)' and again.texts.kind == 'cosine'
    assert again.ids_of('a car', clipgs) == [2] and again.ids_of('3, 1', clipgs) == [3, 1]
    again.write_part(again.objects.of(2), tmp_path / 'car.ply')
    assert torch.equal(read_gaussians(tmp_path / 'car.ply').means, cloud.means[labels == 2])
    with pytest.raises(ValueError, match='no Gaussians are left for'):
        again.write_part(~again.objects.of([1, 2, 3]), tmp_path / 'rest.ply')


def test_an_empty_crop_names_the_box_and_the_scene(three):
    scene = Scene(three[0])
    with pytest.raises(ValueError, match=r'no Gaussian lies in the crop 20,20,20,30,30,30; the scene reaches from'):
        find_objects(scene, SplitOptions(crop=(20, 20, 20, 30, 30, 30)))
    with pytest.raises(ValueError, match='labels object belong to a file'):
        find_objects(scene, SplitOptions(labels='object'))
    with pytest.raises(ValueError, match="labels are for the way 'labels', not 'spheres'"):
        SplitOptions('spheres', three[1])


def test_places_that_results_cannot_take_are_refused_before_the_work(tmp_path, monkeypatch):
    out = tmp_path / 'out'
    out.mkdir()
    (out / '.label_scene').touch()
    for name in ('objects', 'index'):
        (out / name).symlink_to(tmp_path / 'nowhere')
        with pytest.raises(ValueError, match=f'out/{name} is not a folder, .*remove it'):
            check_scene_folder(out)
        (out / name).unlink()
    (out / 'scores.npz').mkdir()
    with pytest.raises(ValueError, match=r'out/scores\.npz is a folder, .*remove it'):
        check_scene_folder(out)
    (out / 'scores.npz').rmdir()
    (out / 'objects').symlink_to(tmp_path)
    check_scene_folder(out)  # a link within the disk
    monkeypatch.setattr('clipgs_plugin.scenes.folder.device_of', lambda path: int(path.is_symlink()))
    with pytest.raises(ValueError, match=f'out/objects is on another disk than {out}, .*; remove it, or name a folder'):
        check_scene_folder(out)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    check_scene_folder(tmp_path / 'new' / 'out')
    (tmp_path / 'old' / 'index').mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(PermissionError, match='old/index cannot be written'):
        patch.setattr(os, 'access', lambda place, mode: place.name != 'index')
        check_scene_folder(tmp_path / 'old')
    monkeypatch.setattr(os, 'access', lambda place, mode: False)
    with pytest.raises(PermissionError, match=f'{tmp_path} cannot be written; name another folder'):
        check_scene_folder(tmp_path / 'new' / 'out')
