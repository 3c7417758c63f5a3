"""Conversion of published files to safetensors, and export of encoders to the format of a family."""
import json

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors import safe_open
from small_encoders import export_small, randomise, small_encoder

from clipgs_plugin import load_point_cloud_checkpoint
from clipgs_plugin.models import GSEncoder, GSTokenizer, PointBERT
from clipgs_plugin.models.checkpoints import (
    FAMILIES,
    Contract,
    convert_checkpoint,
    export_point_cloud_checkpoint,
    load_point_cloud_weights,
    open_point_cloud_checkpoint,
)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_converted_file_has_the_same_weights_and_its_metadata(tmp_path, family):
    source, target = tmp_path / 'a.pth', tmp_path / 'a.safetensors'
    export_small(source, family)
    convert_checkpoint(source, target)
    with safe_open(target, 'pt') as file:
        metadata = file.metadata()
    assert metadata['family'] == family and metadata['source'] == 'a.pth' and len(metadata['source_sha256']) == 64
    assert Contract.from_dict(json.loads(metadata['contract'])) == open_point_cloud_checkpoint(source).contract
    one, other = (load_point_cloud_checkpoint(path).model.state_dict() for path in (source, target))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_conversion_drops_unused_tensors(tmp_path):
    export_small(tmp_path / 'a.pth', 'uni3d')
    state = torch.load(tmp_path / 'a.pth')['module']
    torch.save({'module': {**state, 'module.point_encoder.visual.pos_embed': torch.ones(1, 5, 192)}},
               tmp_path / 'a.pth')
    convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors')
    report = load_point_cloud_checkpoint(tmp_path / 'a.safetensors').report
    assert not report.unused and 'image model' not in str(report)
    with pytest.raises(ValueError, match=r'expected the extension \.safetensors'):
        convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'b.pt')


def test_tied_tensors_are_written_under_each_of_their_names(tmp_path):
    export_small(tmp_path / 'a.pth', 'point_mae')
    state = torch.load(tmp_path / 'a.pth')['base_model']
    first, second = (f'module.MAE_encoder.blocks.blocks.{i}.norm1.weight' for i in (0, 1))
    state[second] = state[first]
    third = 'module.MAE_encoder.norm.weight'
    state[third] = torch.cat([state[third], state[third]])[:64]  # a view of a larger storage
    torch.save({'base_model': state}, tmp_path / 'a.pth')
    convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors')
    names = ('a.pth', 'a.safetensors')
    one, other = (load_point_cloud_checkpoint(tmp_path / name).model.state_dict() for name in names)
    assert all(torch.equal(one[key], other[key]) for key in one)


class Code:
    def __reduce__(self):
        return (MMLogger.get_instance, ('converted',))


def test_code_in_a_file_runs_only_if_trusted(tmp_path):
    export_small(tmp_path / 'a.pth', 'point_mae')
    torch.save({**torch.load(tmp_path / 'a.pth'), 'logger': Code()}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'could run code, .* --trust-pickle'):
        convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors')
    convert_checkpoint(tmp_path / 'a.pth', tmp_path / 'a.safetensors', trust_pickle=True)
    assert load_point_cloud_checkpoint(tmp_path / 'a.safetensors').report.family == 'point_mae'


def test_tensors_without_a_name_in_the_family_are_not_dropped_silently(tmp_path):
    with pytest.raises(ValueError, match=r'point_mae has no names for .* a PointBERT'):
        export_point_cloud_checkpoint(small_encoder('point_bert'), tmp_path / 'a.pth', 'point_mae')
    with pytest.raises(ValueError, match=r'projection\.bias is not zero, but ulip does not store it'):
        export_point_cloud_checkpoint(randomise(small_encoder('ulip')), tmp_path / 'a.pth', 'ulip', ('projection',))


def test_a_projection_without_bias_sets_the_bias_to_zero(tmp_path):
    encoder = randomise(small_encoder('ulip'))
    torch.nn.init.zeros_(encoder.projection.bias)
    parts = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')
    export_point_cloud_checkpoint(encoder, tmp_path / 'ulip.pt', 'ulip', parts)
    stored = torch.load(tmp_path / 'ulip.pt')['state_dict']['module.pc_projection']
    assert torch.equal(stored, encoder.projection.weight.T)
    target = small_encoder('ulip')
    load_point_cloud_weights(target, tmp_path / 'ulip.pt', parts=parts)
    assert torch.equal(target.projection.weight, encoder.projection.weight) and not target.projection.bias.any()


def test_another_number_of_heads_is_refused(tmp_path):
    export_small(tmp_path / 'a.pth', 'point_bert')
    encoder = GSEncoder(GSTokenizer(8, 6, 32, point_attributes=('xyz',)), PointBERT(64, 2, 2, 32), 24)
    with pytest.raises(ValueError, match=r'has 1 heads of width 64, .* the PointBERT has num_heads=2'):
        load_point_cloud_weights(encoder, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='this PointBERT of width 64 has num_heads=2'):
        export_point_cloud_checkpoint(encoder, tmp_path / 'b.pth', 'point_bert')
