import json

import pytest

from clipgs_plugin.io.checked_json import check_types, read_json

SCHEMA = {'count': int, 'mins': [float] * 3, 'files': [str], 'note?': (str, None), 'means': {'names?': [{'id': int}]}}
GOOD = {'count': 3, 'mins': [0, 0.5, 1], 'files': ['a', 'b'], 'means': {}, 'other': [True]}


def test_valid_documents_are_read_from_a_file_and_from_bytes(tmp_path):
    path = tmp_path / 'a.json'
    for data in (json.dumps(GOOD).encode(), b'\xef\xbb\xbf' + json.dumps(GOOD).encode()):
        path.write_bytes(data)
        assert read_json(path, schema=SCHEMA) == read_json(data, 'a.json', SCHEMA) == GOOD
    text = {'ä': 'ü \U0001f600', 'b': [-2 ** 63, 2 ** 64 - 1, 1 - 2 ** 64, 1e308, None]}
    assert read_json(json.dumps(text).encode(), 'a') == read_json(json.dumps(text, ensure_ascii=False).encode(), 'a') \
        == text


@pytest.mark.parametrize('data, message', [
    (b'{', 'not valid JSON'), (b'', 'not valid JSON'), (b'\xff', 'not valid JSON'), (b'{"a": NaN}', 'NaN is not'),
    (b'[-Infinity]', '-Infinity is not'), (b'[1e999]', '1e999 is too large'),
    (b'[18446744073709551616]', 'beyond 64 bits'), (b'[' + b'1' * 5000 + b']', '5000 digits'),
    (b'["\\ud800"]', 'surrogate'), (b'{"\\udc00a": 1}', 'surrogate'),
    (b'[' * 65 + b']' * 65, None), (b'[' * 66 + b']' * 66, 'nested deeper than 64'),
    (b'[' * 100_000, 'nested deeper than 64'), (b'{"a":' * 100_000, 'nested deeper than 64'),
    (b'[' * 900 + b']' * 900, 'nested deeper than 64')])
def test_what_is_no_json_or_harmful_is_refused_by_name(tmp_path, data, message):
    (tmp_path / 'bad.json').write_bytes(data)
    if message is None:
        read_json(tmp_path / 'bad.json')
        return
    with pytest.raises(ValueError, match=rf'^{tmp_path}/bad\.json: .*{message}.*; it is damaged, ') as caught:
        read_json(tmp_path / 'bad.json')
    assert type(caught.value) is ValueError and len(str(caught.value)) < 400


@pytest.mark.parametrize('change, message', [
    (dict(count='3'), "count is '3', expected an integer"), (dict(count=3.5), 'count is 3.5, expected an integer'),
    (dict(count=True), 'count is True, expected an integer'), (dict(count=None), 'count is None'),
    (dict(mins=[0, 1]), 'mins has 2 entries, expected 3'),
    (dict(mins=[0, 1, 'x']), r"mins\[2\] is 'x', expected a number"),
    (dict(mins=5), 'mins is 5, expected a list of 3 times a number'), (dict(files={}), 'files is an object of 0'),
    (dict(files=[None]), r'files\[0\] is None, expected a string'),
    (dict(note=1), 'note is 1, expected a string or null'),
    (dict(means=[]), 'means is a list of 0, expected an object'),
    (dict(means={'names': [{'id': 1}, {}]}), r'means\.names\[1\]\.id is missing, expected an integer')])
def test_the_place_of_a_wrong_type_is_named(change, message):
    with pytest.raises(ValueError, match=rf'^a\.json: {message}'):
        check_types({**GOOD, **change}, SCHEMA, 'a.json')


def test_a_missing_key_and_another_root_are_named():
    with pytest.raises(ValueError, match=r'a\.json: count is missing, expected an integer; '):
        read_json(b'{}', 'a.json', SCHEMA)
    with pytest.raises(ValueError, match=r'a\.json: the document is a list of 1, expected an object with count, mins'):
        read_json(b'[3]', 'a.json', SCHEMA)
    check_types({**GOOD, 'note': None}, SCHEMA, 'a.json')
