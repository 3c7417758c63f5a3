import hashlib
import json

import numpy as np
import pytest
from conftest import random_cloud
from PIL import Image

from clipgs_plugin.tools.inspect_triplets import main
from clipgs_plugin.triplets import ShardWriter


@pytest.fixture
def triplets(tmp_path):
    with ShardWriter(tmp_path / 'set', objects_per_shard=2) as writer:
        for i in range(3):
            writer.write(f'uid-{i}', random_cloud(20, i), np.full((2, 8, 8, 3), 99, np.uint8), captions=[f'thing {i}'],
                         quality=dict(psnr=30.0 + i))
    return tmp_path / 'set'


def test_a_valid_dataset_gives_a_table_a_page_and_status_0(triplets, capsys):
    assert main([str(triplets)]) == 0
    out = capsys.readouterr().out
    assert '3 objects, 2 shards' in out and '0 problems found' in out
    line = next(line for line in out.splitlines() if line.startswith('PSNR (dB)'))
    assert line.split()[-2:] == ['31', '30']
    # As printed by sha256sum *.tar | sha256sum.
    lines = ''.join(f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n'
                    for path in sorted((triplets / 'shards').iterdir()))
    assert hashlib.sha256(lines.encode()).hexdigest() in out
    assert 'thing 0' in (triplets / 'inspection.html').read_text()


def test_damage_is_named_and_gives_status_1(triplets, tmp_path, capsys):
    path = triplets / 'shards' / '00001.tar'
    path.write_bytes(path.read_bytes()[:1500])
    page = tmp_path / 'page.html'
    assert main([str(triplets), '-o', str(page), '--worst', '1', '--random', '1']) == 1
    assert 'problem: shard 00001' in capsys.readouterr().out and page.is_file()
    assert main([str(triplets), '-o', str(page), '--json']) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed['problems'][0]['shard'] == 1 and 'not a complete tar' in printed['problems'][0]['reason']
    assert [shard['shard'] for shard in printed['shards']] == [0, 1] and printed['page'] == str(page)


@pytest.mark.parametrize('suffix, kind', [('.webp', 'WEBP'), ('.PNG', 'PNG')])
def test_a_contact_sheet_has_the_named_format(triplets, tmp_path, capsys, suffix, kind):
    path = tmp_path / f'sheet{suffix}'
    assert main([str(triplets), '--contact-sheet', str(path), '--objects', '2']) == 0
    assert f'contact sheet in {path}' in capsys.readouterr().out
    with Image.open(path) as image:
        assert image.format == kind and image.width == 1600


def test_a_dataset_with_problems_gives_no_contact_sheet(triplets, tmp_path, capsys):
    (triplets / 'index.parquet').unlink()
    assert main([str(triplets), '--contact-sheet', str(tmp_path / 'sheet.webp')]) == 1
    printed = capsys.readouterr()
    assert 'has no contact sheet' in printed.err and 'sheet.webp' not in printed.out
    assert not (tmp_path / 'sheet.webp').exists()


def test_a_dataset_without_objects_and_index_is_reported(triplets, capsys):
    (triplets / 'index.parquet').unlink()
    for path in (triplets / 'shards').iterdir():
        path.unlink()
    assert main([str(triplets)]) == 1
    out = capsys.readouterr().out
    assert 'problem: no shards' in out and 'problem: index.parquet is missing' in out and '0 objects, 0 shards' in out


@pytest.mark.parametrize('options', [('--worst', '-1'), ('--random', '-1'), ('--seed', '-1'), ('--objects', '0'),
                                     ('--contact-sheet', 'sheet.jpg')])
def test_wrong_use_gives_status_2(triplets, options):
    with pytest.raises(SystemExit) as exit_:
        main([str(triplets), *options])
    assert exit_.value.code == 2
