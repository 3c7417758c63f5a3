import json

import numpy as np
import pytest
import torch

from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.models.teachers import OpenCLIPTeacher
from clipgs_plugin.tools import cache_features
from clipgs_plugin.triplets import ShardFeatures, ShardReader, ShardWriter


@pytest.fixture
def triplets(tmp_path, random_cloud):
    """Write seven objects of three views in shards of three, with one to three captions, some shared."""
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / 'triplets', objects_per_shard=3) as writer:
        for i in range(7):
            captions = ['a thing', f'thing number {i}', 'another thing'][:1 + i % 3]
            writer.write(f'o{i}', random_cloud(4, i), rng.integers(0, 256, (3, 32, 32, 3), np.uint8), captions=captions)
    return tmp_path / 'triplets'


def test_features_equal_the_output_of_the_teacher(triplets):
    assert cache_features.main([str(triplets), '--teacher', 'toy-clip', '--batch-size', '4']) == 0
    reader, teacher = ShardReader(triplets), OpenCLIPTeacher('toy-clip')
    features = ShardFeatures(reader, 'toy-clip')
    assert features.teacher['weights'] == teacher.fingerprint
    for i in range(7):
        pixels = torch.from_numpy(reader.read_views(i)).permute(0, 3, 1, 2)
        captions = [caption['text'] for caption in reader.read_record(i)['captions']]
        np.testing.assert_allclose(features.image(i), teacher.encode_image(pixels), atol=1e-3)
        np.testing.assert_allclose(features.text(i), teacher.encode_text(captions), atol=1e-3)


def test_a_second_run_encodes_the_missing_shards_only(triplets, monkeypatch):
    cache_features.main([str(triplets)])
    folder = triplets / 'features' / 'toy-clip'
    files = sorted(folder.glob('*.safetensors'))
    assert len(files) == 3
    whole = [file.read_bytes() for file in files]
    files[1].unlink()
    times = [file.stat().st_mtime_ns for file in (files[0], files[2])]
    cache_features.main([str(triplets)])
    assert [file.stat().st_mtime_ns for file in (files[0], files[2])] == times
    assert [file.read_bytes() for file in files] == whole

    def encode(self, pixels):
        raise AssertionError('nothing is left to encode')
    monkeypatch.setattr(OpenCLIPTeacher, 'encode_image', encode)
    assert cache_features.main([str(triplets)]) == 0


def test_features_of_other_weights_are_not_mixed_in(triplets):
    cache_features.main([str(triplets)])
    path = triplets / 'features' / 'toy-clip' / 'teacher.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'weights': '0123456789abcdef'}))
    with pytest.raises(ValueError, match='0123456789abcdef'):
        cache_features.main([str(triplets)])


def test_an_unknown_teacher_and_an_empty_folder_are_refused_by_name(triplets, tmp_path):
    with pytest.raises(ValueError, match='toy-clip'):
        cache_features.main([str(triplets), '--teacher', 'toy-clop'])
    with pytest.raises(FileNotFoundError, match='not a triplet dataset'):
        cache_features.main([str(tmp_path)])


def test_a_second_run_for_a_teacher_is_refused(triplets):
    cache_features.main([str(triplets)])
    with folder_lock(triplets / 'features' / 'toy-clip'), pytest.raises(OSError, match='toy-clip is in use'):
        cache_features.main([str(triplets)])
