import multiprocessing
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy
from conftest import START_METHODS

from clipgs_plugin.triplets import FeatureWriter, ShardFeatures, ShardReader, ShardWriter, caption_id
from clipgs_plugin.triplets.layout import feature_path

WIDTH = 6


def random_features(i: int, captions: int):
    rng = np.random.default_rng(i)
    return rng.normal(size=(2, WIDTH)).astype(np.float16), rng.normal(size=(captions, WIDTH)).astype(np.float16)


@pytest.fixture
def reader(tmp_path, random_cloud):
    with ShardWriter(tmp_path, objects_per_shard=2) as writer:
        for i in range(5):
            writer.write(f'o{i}', random_cloud(4, seed=i), np.zeros((2, 4, 4, 3), np.uint8),
                         captions=[f'caption {i} {j}' for j in range(1 + i % 3)])
    return ShardReader(tmp_path)


def fill(writer: FeatureWriter, shards=None) -> list[int]:
    done = []
    for shard, rows in writer.pending():
        if shards is None or shard in shards:
            pairs = [random_features(row, len(writer.captions(row))) for row in rows]
            writer.write(shard, np.stack([image for image, _ in pairs]), [text for _, text in pairs])
            done.append(shard)
    return done


def check(features) -> None:
    assert features.teacher == dict(name='toy', width=WIDTH, weights='abc', precision='fp32')
    for i in (4, 0, 3, 2, 1):
        image, text = random_features(i, 1 + i % 3)
        assert np.array_equal(features.image(i), image) and np.array_equal(features.text(i), text)
        assert features.caption_ids(np.int64(i)).tolist() == [caption_id(f'caption {i} {j}') for j in range(len(text))]


def test_features_are_read_by_index_also_after_pickling_and_in_a_fork(reader):
    assert fill(FeatureWriter(reader, 'toy', WIDTH, 'abc')) == [0, 1, 2]
    features = ShardFeatures(reader, 'toy')
    check(features)
    check(pickle.loads(pickle.dumps(features)))
    if 'fork' in START_METHODS:
        child = multiprocessing.get_context('fork').Process(target=check, args=(features,))
        child.start()
        child.join()
        assert child.exitcode == 0


def test_a_second_run_writes_the_missing_shards(reader):
    assert fill(FeatureWriter(reader, 'toy', WIDTH, 'abc'), shards=[1]) == [1]
    with pytest.raises(FileNotFoundError, match=r'lacks the features of 2 shards, the first 00000; run tools/cache_fe'):
        ShardFeatures(reader, 'toy')
    assert fill(FeatureWriter(reader, 'toy', WIDTH, 'abc')) == [0, 2]
    assert ShardFeatures(reader, 'toy').image(0).shape == (2, WIDTH)


def test_the_same_features_give_the_same_bytes(reader):
    fill(FeatureWriter(reader, 'a', WIDTH, 'abc'))
    fill(FeatureWriter(reader, 'b', WIDTH, 'abc'))
    read = lambda name: (reader.root / 'features' / name / '00002.safetensors').read_bytes()  # noqa: E731
    assert read('a') == read('b')


def test_arrays_in_another_order_of_memory_keep_their_values(reader):
    image = np.random.default_rng(0).normal(size=(WIDTH, 2, 2)).astype(np.float16).transpose(1, 2, 0)
    views = np.broadcast_to(np.arange(2.0)[None, :, None], (2, 2, WIDTH))
    for name, given in (('transposed', image), ('broadcast', views)):
        FeatureWriter(reader, name, WIDTH, 'abc').write(0, given, [np.ones((1 + i, WIDTH)) for i in range(2)])
        assert np.array_equal(safetensors.numpy.load_file(feature_path(reader.root, name, 0))['image'], given)


@pytest.mark.parametrize('change', [dict(width=8), dict(weights='def'), dict(precision='fp16')])
def test_features_of_two_teachers_do_not_mix(reader, change):
    FeatureWriter(reader, 'toy', WIDTH, 'abc')
    with pytest.raises(ValueError, match='contains features of'):
        FeatureWriter(reader, **{'teacher': 'toy', 'width': WIDTH, 'weights': 'abc', **change})


def test_missing_features_name_the_command_and_other_teachers(reader):
    fill(FeatureWriter(reader, 'toy', WIDTH, 'abc'))
    with pytest.raises(FileNotFoundError, match=r"'big'.*\['toy'\].*tools/cache_features.py .* --teacher big"):
        ShardFeatures(reader, 'big')


def test_shapes_and_values_are_checked(reader):
    writer = FeatureWriter(reader, 'toy', WIDTH, 'abc')
    image, text = np.zeros((2, 2, WIDTH)), [np.zeros((1, WIDTH)), np.zeros((2, WIDTH))]
    with pytest.raises(ValueError, match=r'image features of shard 0 have shape \(2, 3, 6\), expected \(2, 2, 6\)'):
        writer.write(0, np.zeros((2, 3, WIDTH)), text)
    with pytest.raises(ValueError, match=r'text features of o1 have shape \(1, 6\), expected \(2, 6\)'):
        writer.write(0, image, [text[0], text[0]])
    with pytest.raises(ValueError, match='NaN'):
        writer.write(0, image * np.nan, text)
    assert [shard for shard, _ in writer.pending()] == [0, 1, 2]


def test_truncated_or_foreign_features_are_refused(reader):
    fill(FeatureWriter(reader, 'toy', WIDTH, 'abc'))
    folder = reader.root / 'features' / 'toy'
    os.replace(folder / '00001.safetensors', folder / '00000.safetensors')
    path = folder / '00002.safetensors'
    (folder / '00001.safetensors').write_bytes(path.read_bytes()[:200])
    features = ShardFeatures(reader, 'toy')
    with pytest.raises(ValueError, match='other objects than shard 00000'):
        features.image(0)
    with pytest.raises(ValueError, match=r'00001\.safetensors cannot be read .*run tools/cache_features\.py'):
        features.image(2)
    assert features.image(4).shape == (2, WIDTH)


@pytest.mark.parametrize('name, edit, message', [
    ('image', lambda x: x * np.float16('nan'), r'NaN or infinite features of o0; delete it and run tools/cache'),
    ('text', lambda x: np.full_like(x, np.inf), r'NaN or infinite features of o0; delete it and run tools/cache'),
    ('image', lambda x: x[:, :1], r'image is F16 of shape \[2, 1, 6\], expected F16 of \[2, 2, 6\]'),
    ('text', lambda x: x[:, :, :3], 'text is F16 of shape'), ('image', np.float32, 'image is F32'),
    ('text_counts', lambda x: x + 9, r'text_counts lie in 10\.\.11, expected 0\.\.2'),
    ('text_counts', lambda x: -x, r'text_counts lie in -2\.\.-1'),
    ('caption_ids', lambda x: x[0], 'caption_ids is I64 of shape'), ('image', None, 'cannot be read')])
def test_features_of_other_types_shapes_and_values_are_refused(reader, name, edit, message):
    fill(FeatureWriter(reader, 'toy', WIDTH, 'abc'))
    path = reader.root / 'features' / 'toy' / '00000.safetensors'
    with safetensors.safe_open(path, 'numpy') as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    tensors = {key: edit(value) if key == name else value for key, value in tensors.items() if edit or key != name}
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    features = ShardFeatures(reader, 'toy')
    with pytest.raises(ValueError, match=rf'00000\.safetensors.*{message}'):
        features.image(0), features.text(0)
    assert features.image(2).shape == (2, WIDTH)


@pytest.mark.parametrize('text, message', [
    ('[]', 'the document is a list'), ('{"name": "toy"}', 'width is missing'), ('', 'JSON'),
    ('{"name": "toy", "width": "6", "weights": "abc"}', 'width is')])
def test_a_teacher_of_other_types_is_refused(reader, text, message):
    fill(FeatureWriter(reader, 'toy', WIDTH, 'abc'))
    (reader.root / 'features' / 'toy' / 'teacher.json').write_text(text)
    with pytest.raises(ValueError, match=rf'teacher\.json: .*{message}'):
        ShardFeatures(reader, 'toy')
    with pytest.raises(ValueError, match=rf'teacher\.json: .*{message}'):
        FeatureWriter(reader, 'toy', WIDTH, 'abc')
