"""Converted copies of published files: content, ties to the source, places, damage."""
import json
import os
import shutil

import pytest
import torch
from loopback_hub import publish_small_uni3d
from safetensors import safe_open

from clipgs_plugin import load_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints import Contract, converted, open_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints import open as opening
from clipgs_plugin.models.checkpoints.load import build_point_cloud_model, load_point_cloud_weights
from clipgs_plugin.registry.catalogue import load_catalogue


@pytest.fixture
def source(tmp_path, monkeypatch):
    """File of ``uni3d-ti`` in the user's folder of checkpoints."""
    published = publish_small_uni3d(tmp_path / 'served', load_catalogue('checkpoints'), monkeypatch)
    (tmp_path / 'own').mkdir()
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path / 'own'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return published.rename(tmp_path / 'own' / 'uni3d-ti.pt')


@pytest.fixture
def copy(source):
    return source.with_name('uni3d-ti.pt.safetensors')


@pytest.fixture
def no_unpickler(monkeypatch):
    def refuse(*args):
        raise AssertionError('the published file was read again')
    monkeypatch.setattr(opening, 'read_checkpoint', refuse)


def change(source, value):
    """Replace the temperature in a file, whose size remains."""
    content = torch.load(source)
    content['module']['module.logit_scale'] = torch.tensor(value)
    torch.save(content, source)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_second_opening_reads_the_copy_and_equals_the_first(source, copy, request):
    first = open_point_cloud_checkpoint('uni3d-ti')
    model, report, contract = load_point_cloud_checkpoint('uni3d-ti')
    with safe_open(copy, 'pt') as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names == {*first.sources.values(), 'logit_scale'}
    assert metadata['family'] == 'uni3d' and metadata['source'] == 'uni3d-ti.pt'
    assert Contract.from_dict(json.loads(metadata['contract'])) == first.contract

    request.getfixturevalue('no_unpickler')
    second = open_point_cloud_checkpoint('uni3d-ti')
    assert second.state['logit_scale'] == 4.25 and same(first.tensors, second.tensors)
    assert (first.path, first.sources, first.unused, first.architecture, first.contract) == (
        second.path, second.sources, second.unused, second.architecture, second.contract)
    again = load_point_cloud_checkpoint('uni3d-ti')
    assert same(model.state_dict(), again.model.state_dict()) and str(report) == str(again.report)
    assert contract == again.contract


def test_the_path_of_a_file_that_stands_for_a_name_has_a_copy_too(source, copy):
    open_point_cloud_checkpoint(source, name='uni3d-ti')
    assert copy.is_file()


@pytest.mark.parametrize('change_time', [True, False])
def test_a_replaced_source_is_converted_anew(source, copy, change_time):
    change(source, 4.5)
    assert open_point_cloud_checkpoint('uni3d-ti').state['logit_scale'] == 4.5
    before = source.stat()
    change(source, 2.5)
    if change_time:
        assert source.stat().st_size == before.st_size
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        torch.save({**torch.load(source), 'more': torch.zeros(500)}, source)
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_point_cloud_checkpoint('uni3d-ti').state['logit_scale'] == 2.5
    with safe_open(copy, 'pt') as file:
        assert file.get_tensor('logit_scale') == 2.5


def test_a_copy_of_another_version_or_with_damage_is_replaced(source, copy, monkeypatch):
    monkeypatch.setattr(converted, '__version__', '0.0.1')
    open_point_cloud_checkpoint('uni3d-ti')
    monkeypatch.undo()
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(source.parent))
    other = copy.read_bytes()
    copy.write_bytes(other[:len(other) // 2])
    assert converted.read_converted(source) is None
    copy.write_bytes(other)
    assert converted.read_converted(source) is None


def test_a_folder_that_cannot_be_written_has_its_copy_in_the_users_cache(source, copy, tmp_path, request, monkeypatch):
    write, refused = converted.write_whole, []

    def write_whole(path, parts):
        if path.parent == source.parent:
            refused.append(path)
            raise PermissionError(f'{path}: read-only')
        write(path, parts)
    monkeypatch.setattr(converted, 'write_whole', write_whole)
    first = open_point_cloud_checkpoint('uni3d-ti')
    assert refused == [copy] and not copy.exists()
    assert [path.name[:9] for path in (tmp_path / 'cache').rglob('*.safetensors')] == ['uni3d-ti-']
    request.getfixturevalue('no_unpickler')
    assert same(open_point_cloud_checkpoint('uni3d-ti').tensors, first.tensors)


def test_a_full_disk_does_not_stop_the_loading(source, copy, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(converted, 'print_log', lambda message, **options: logged.append(message))

    def full(path, parts):
        raise OSError(28, 'No space left on device', str(path))
    monkeypatch.setattr(converted, 'write_whole', full)
    assert open_point_cloud_checkpoint('uni3d-ti').state['logit_scale'] == 4.25
    assert len(logged) == 1 and 'cannot be kept' in logged[0] and logged[0].count('No space left') == 2


def test_paths_fine_tuned_files_and_files_of_another_model_have_no_copy(source, copy, tmp_path):
    other = source.rename(source.with_name('other.pt'))
    open_point_cloud_checkpoint(other)
    open_point_cloud_checkpoint(other, name='uni3d-ti')
    other.rename(source)
    content = torch.load(source)
    content['module']['cls_head_finetune.0.weight'] = torch.zeros(4, 4)
    torch.save(content, source)
    for _ in range(2):
        open_point_cloud_checkpoint('uni3d-ti', finetuned=True)
        with pytest.raises(ValueError, match='was fine-tuned for classification'):
            open_point_cloud_checkpoint('uni3d-ti')
    shutil.copy(source, source.with_name('uni3d-s.pt'))
    with pytest.raises(ValueError, match='is not uni3d-s'):
        open_point_cloud_checkpoint('uni3d-s', finetuned=True)
    assert not list(tmp_path.rglob('*.safetensors'))


def test_a_model_built_without_random_weights_equals_one_with_them(source):
    found = open_point_cloud_checkpoint('uni3d-ti')
    quick, plain = load_point_cloud_checkpoint('uni3d-ti').model, build_point_cloud_model(found)
    load_point_cloud_weights(plain, found)
    assert same(quick.state_dict(), plain.state_dict())
    assert same(dict(quick.named_buffers()), dict(plain.named_buffers()))
    for model in (quick, plain):
        model.tokenizer.num_groups, model.tokenizer.group_size = 8, 6
    points, colors = torch.rand(1, 600, 3), torch.rand(1, 600, 3)
    assert torch.equal(quick.eval()(points, colors).embedding, plain.eval()(points, colors).embedding)
