"""Files with an object a line: what a kill cut off is removed, and what is damaged is named."""
import pytest

from clipgs_plugin.io.json_lines import JsonLines


def test_a_line_that_was_cut_off_is_removed(tmp_path):
    path = tmp_path / 'log.jsonl'
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a":')
    with JsonLines(path) as log:
        log.add(b'{"a": 3}\n')
        assert list(log.entries({'a': int})) == [{'a': 1}, {'a': 2}, {'a': 3}]
        log.clear()
        assert not path.read_bytes()


@pytest.mark.parametrize('line, reason', [
    (b'{"a": "x"}', 'a is .x., expected an integer'), (b'{', 'not valid JSON'), (b'\xff', 'not valid JSON'),
    (b'[' * 100 + b']' * 100, 'nested deeper')])
def test_a_damaged_line_is_named(tmp_path, line, reason):
    path = tmp_path / 'log.jsonl'
    path.write_bytes(b'{"a": 1}\n' + line + b'\n')
    with JsonLines(path) as log, pytest.raises(ValueError, match=rf'log\.jsonl: line 2.*{reason}'):
        list(log.entries({'a': int}))


def test_a_line_that_the_disk_takes_in_part_is_removed(tmp_path):
    resource = pytest.importorskip('resource')
    path, limits = tmp_path / 'log.jsonl', resource.getrlimit(resource.RLIMIT_FSIZE)
    with JsonLines(path) as log:
        log.add(b'{"a": 1}\n')
        resource.setrlimit(resource.RLIMIT_FSIZE, (14, limits[1]))
        try:
            with pytest.raises(OSError) as refused:
                log.add(b'{"a": 2}\n')
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert refused.value.filename == str(path)
        log.add(b'{"a": 3}\n')
        assert path.read_bytes() == b'{"a": 1}\n{"a": 3}\n'
