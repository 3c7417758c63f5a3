"""tools/convert_checkpoint.py."""
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from clipgs_plugin import load_point_cloud_checkpoint
from clipgs_plugin.models import GSEncoder, GSTokenizer, PointBERT
from clipgs_plugin.models.checkpoints import export_point_cloud_checkpoint
from clipgs_plugin.tools import convert_checkpoint


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'point-bert.pth'
    encoder = GSEncoder(GSTokenizer(channels=32, point_attributes=('xyz',)), PointBERT(64, 2, 1, 32), 8)
    export_point_cloud_checkpoint(encoder, path, 'point_bert')
    return path


def test_a_file_is_converted_and_described(source, tmp_path, capsys):
    target = tmp_path / 'point-bert.safetensors'
    assert convert_checkpoint.main([str(source), str(target)]) == 0
    printed = capsys.readouterr().out
    assert "PointBERT(embed_dims=64, depth=2, num_heads=1, in_channels=32)" in printed
    assert '1,024 points, y up' in printed and f'written to {target}' in printed
    with safe_open(target, 'pt') as file:
        assert file.metadata()['family'] == 'point_bert'
    assert load_point_cloud_checkpoint(target).report.complete
    assert convert_checkpoint.main([str(source), str(target), '--overwrite', '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['family'] == 'point_bert' and result['contract']['num_points'] == 1024
    assert result['used'] == len(torch.load(source)['base_model']) and result['unused'] == {}


def test_wrong_arguments_are_refused(source, tmp_path, capsys):
    target = tmp_path / 'existing.safetensors'
    target.write_bytes(b'mine')
    with pytest.raises(SystemExit) as exit_:
        convert_checkpoint.main([str(source), str(target)])
    assert exit_.value.code == 2 and '--overwrite' in capsys.readouterr().err and target.read_bytes() == b'mine'
    with pytest.raises(FileNotFoundError, match='file not found'):
        convert_checkpoint.main([str(tmp_path / 'absent.pth'), str(tmp_path / 'a.safetensors')])
    with pytest.raises(ValueError, match="not of family 'uni3d' but of 'point_bert'"):
        convert_checkpoint.main([str(source), str(tmp_path / 'a.safetensors'), '--family', 'uni3d'])
    with pytest.raises(ValueError, match='not point-bert; embed_dims of the backbone: 64 in the file, 384'):
        convert_checkpoint.main([str(source), str(tmp_path / 'a.safetensors'), '--name', 'point-bert'])
    assert not (tmp_path / 'a.safetensors').exists()


@pytest.mark.parametrize('name', ['weights.safetensors', 'text.safetensors', 'new.pth', 'input.safetensors'])
def test_only_a_converted_file_is_ever_replaced(source, tmp_path, capsys, name):
    save_file({'a': torch.zeros(2)}, tmp_path / 'weights.safetensors')
    (tmp_path / 'text.safetensors').write_text('mine')
    (tmp_path / 'input.safetensors').symlink_to(source)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as exit_:
        convert_checkpoint.main([str(source), str(tmp_path / name), '--overwrite'])
    assert exit_.value.code == 2 and name in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
