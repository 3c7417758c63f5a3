"""Labels of segmentations, in files of the layouts that their programs write."""
import numpy as np
import pytest
import torch
from composed import random_scene

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.io.inria_ply import further_columns
from clipgs_plugin.scenes import LabelSource, find_labels, read_labels, split_by_labels
from clipgs_plugin.scenes.label_files import scene_columns

COUNT = 500
IDS = np.arange(COUNT) % 7
FEATURES = [f'obj_dc_{i}' for i in range(16)]
INSTANCE = [f'ins_feat_{name}' for name in ('r', 'g', 'b', 'r2', 'g2', 'b2')]


@pytest.fixture
def write(tmp_path):
    """Writer of a scene with further properties, in the folders of a trainer."""
    folder = tmp_path / 'point_cloud' / 'iteration_30000'
    folder.mkdir(parents=True)

    def write(**columns):
        path = folder / 'point_cloud.ply'
        write_gaussians(random_scene(COUNT), path, columns={name: np.asarray(x) for name, x in columns.items()})
        return path
    return write


def grouping(scene_of):
    """Write a scene of gaussian-grouping whose classes are those of ``IDS``."""
    rng = np.random.default_rng(0)
    classifier = torch.nn.Conv2d(16, 256, kernel_size=1)
    directions = torch.nn.functional.normalize(classifier.weight.detach()[:, :, 0, 0], dim=1)
    features = 40 * directions[IDS].numpy() + 0.01 * rng.standard_normal((COUNT, 16))
    path = scene_of(**dict(zip(FEATURES, features.astype(np.float32).T)))
    torch.save(classifier.state_dict(), path.parent / 'classifier.pth')
    logits = torch.from_numpy(features).float() @ classifier.weight[:, :, 0, 0].T + classifier.bias
    return path, logits.detach()


@pytest.mark.parametrize('kind', ['i1', 'u1', 'i2', '<i4', 'f4', 'f8'])
def test_a_property_of_any_type_is_read(write, kind):
    path = write(object=IDS.astype(kind), other=np.zeros(COUNT, np.float32))
    source = find_labels(path)
    assert source == LabelSource(None, 'object')
    labels = split_by_labels(read_gaussians(path), read_labels(path, source))
    assert labels.dtype == torch.int64 and np.array_equal(labels, np.where(IDS == 0, -1, IDS))
    assert np.array_equal(further_columns(path)['object'], IDS) and set(further_columns(path)) == {'object', 'other'}
    assert torch.equal(read_gaussians(path).sh, random_scene(COUNT).sh)


def test_an_array_is_read_and_its_background_is_an_option(write, tmp_path):
    path, array = write(), tmp_path / 'labels.npy'
    assert find_labels(path) is None
    for values, background, expected in ((IDS[:, None], 0, np.where(IDS == 0, -1, IDS)), (IDS - 1, -1, IDS - 1),
                                         (IDS.astype(np.uint8), 3, np.where(IDS == 3, -1, IDS))):
        np.save(array, values)
        labels = split_by_labels(read_gaussians(path), read_labels(path, array), background, str(array))
        assert np.array_equal(labels, expected)


def test_features_of_gaussian_grouping_become_the_most_probable_class(write):
    path, logits = grouping(write)
    source = find_labels(path)
    assert source.file == path.parent / 'classifier.pth'
    found = read_labels(path, source)
    assert np.array_equal(found, logits.argmax(1)) and (found == IDS).mean() > 0.9
    sure = read_labels(path, source, min_probability=0.9)
    assert np.array_equal(sure, torch.where(logits.softmax(1).amax(1) >= 0.9, logits.argmax(1), -1))


def test_clusters_of_opengaussian_are_read_without_those_of_one_view(write):
    path = write(**{name: np.zeros(COUNT, np.float32) for name in INSTANCE})
    file = path.parents[2] / 'cluster_lang.npz'
    views = np.array([9, 1, 2, 5, 5, 5], np.float32)  # index 6 is beyond the last cluster
    np.savez(file, leaf_feat=np.zeros((6, 512), np.float32), leaf_score=np.zeros(6, np.float32), occu_count=views,
             leaf_ind=IDS.astype(np.int64))
    source = find_labels(path)
    assert source.file == file
    assert np.array_equal(read_labels(path, source), np.where((IDS == 1) | (IDS == 6), 0, IDS + 1))


def test_features_without_their_classes_say_what_is_absent(write):
    path, _ = grouping(write)
    (path.parent / 'classifier.pth').unlink()
    with pytest.raises(ValueError, match=r'has obj_dc_0 to obj_dc_15, but .*classifier.pth.* is absent'):
        find_labels(path)
    path = write(**{name: np.zeros(COUNT, np.float32) for name in INSTANCE})
    with pytest.raises(ValueError, match=r'has ins_feat_r to ins_feat_b2, but .*cluster_lang.npz.* is absent'):
        find_labels(path)


@pytest.mark.parametrize('values, message', [
    (np.zeros(499), r'of shape \(499,\), expected one number for each of 500'),
    (np.zeros((500, 2)), r'of shape \(500, 2\)'), (np.full(500, np.nan), 'nan at Gaussian 0, expected whole numbers'),
    (np.linspace(0, 1, 500), 'at Gaussian 1, expected whole numbers; are these scores'),
    (np.full(500, 2 ** 63, np.uint64), 'at most 62 bits'), (np.full(500, 1e30), 'at most 62 bits'),
    (np.array(['a'] * 500), 'expected one number')])
def test_arrays_that_are_no_labels_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=f'^mine.npy: .*{message}'):
        split_by_labels(random_scene(500), values, name='mine.npy')


def test_as_many_ids_as_gaussians_are_no_objects():
    from clipgs_plugin.scenes import SceneObjects
    labels = split_by_labels(random_scene(500), np.arange(500) * 2_000_000 + 10 ** 9)
    assert len(SceneObjects.from_labels(labels)) == 0 and labels.max() > 10 ** 9


def damaged_classifier(path, how):
    """Write a classifier of another kind."""
    file = path.parent / 'classifier.pth'
    state = torch.nn.Conv2d(16, 256, 1).state_dict()
    if how == 'truncated':
        torch.save(state, file)
        file.write_bytes(file.read_bytes()[:2000])
    elif how == 'wide':
        torch.save(torch.nn.Conv2d(16, 5000, 1).state_dict(), file)
    elif how == 'other':
        torch.save(torch.nn.Linear(16, 256).state_dict(), file)
    elif how == 'nan':
        torch.save({**state, 'bias': torch.full((256,), torch.nan)}, file)
    elif how == 'list':
        torch.save([state], file)
    return file


@pytest.mark.parametrize('how, message', [
    ('truncated', 'truncated or not a checkpoint'), ('wide', 'of at most 4096 classes'), ('nan', 'NaN or infinite'),
    ('other', r'weight of shape \(256, 16\)'), ('list', 'weight of shape None')])
def test_classifiers_of_another_kind_are_refused_by_name(write, how, message):
    path, _ = grouping(write)
    file = damaged_classifier(path, how)
    with pytest.raises(ValueError, match=f'^{file}: .*{message}'):
        read_labels(path, file)


def test_a_classifier_for_a_scene_without_features_is_refused(write):
    path, _ = grouping(write)
    file = path.parent / 'classifier.pth'
    assert write() == path
    with pytest.raises(ValueError, match='lacks obj_dc_0 and others of the features'):
        read_labels(path, file)
    write(**{name: np.full(COUNT, np.inf, np.float32) for name in FEATURES})
    with pytest.raises(ValueError, match='obj_dc are NaN or infinite at Gaussian 0'):
        read_labels(path, file)


@pytest.mark.parametrize('arrays, message', [
    (dict(leaf_feat=np.zeros((6, 512))), 'holds leaf_feat, expected leaf_ind'),
    (dict(leaf_ind=np.zeros(500)), 'leaf_ind is float64'), (dict(leaf_ind=np.zeros((500, 2), int)), r'\(500, 2\)'),
    (dict(leaf_ind=np.zeros(500, int), occu_count=np.zeros((6, 2))), r'occu_count is float64 of shape \(6, 2\)'),
    (dict(leaf_ind=np.full(500, 8), occu_count=np.zeros(6)), 'leaf_ind is from 8 to 8 for 6 clusters')])
def test_cluster_files_of_another_shape_are_refused_by_name(write, tmp_path, arrays, message):
    file = tmp_path / 'cluster_lang.npz'
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=f'^{file}: .*{message}'):
        read_labels(write(), file)


def test_a_name_that_is_neither_property_nor_file_lists_what_there_is(write):
    path = write(part=IDS.astype(np.int32))
    assert np.array_equal(read_labels(path, 'part'), IDS)
    with pytest.raises(FileNotFoundError, match=r"labels 'parts' are neither a file nor a property .*which has part"):
        read_labels(path, 'parts')


def test_scenes_of_other_formats_have_no_properties(tmp_path):
    for name in ('a.compressed.ply', 'b.spz', 'c.splat'):
        write_gaussians(random_scene(COUNT), tmp_path / name)
        assert scene_columns(tmp_path / name) == {} and find_labels(tmp_path / name) is None


@pytest.mark.parametrize('columns', [dict(x=np.zeros(500)), dict(y2=np.zeros(499)), dict(z2=np.zeros(500, np.int64))])
def test_columns_that_a_ply_does_not_have_are_refused(tmp_path, columns):
    with pytest.raises(ValueError, match=f'further property {next(iter(columns))!r}'):
        write_gaussians(random_scene(500), tmp_path / 'a.ply', columns=columns)
