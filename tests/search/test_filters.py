import numpy as np
import pyarrow as pa
import pytest

from clipgs_plugin.search import Filter, parse_filter

COLUMNS = dict(category=pa.array(['chair', 'Sofa', None, 'armchair']), gaussians=pa.array([10, None, 5000, 70000]),
               half=pa.array(np.array([1.5, 2, 0, 3], np.float16)), hash=pa.array([2 ** 64 - 1, 5, 0, 7], pa.uint64()),
               quality=pa.array([31.5, 30.0, None, 28.25]), clean=pa.array([True, False, None, True]))


@pytest.mark.parametrize('text, expected', [
    ('category=chair', [0]), ('category!=chair', [1, 2, 3]), ('category~CHAIR', [0, 3]), ('category~(', []),
    ('category>b', [0]), ('category=', []), (' gaussians >= 5000 ', [2, 3]), ('gaussians<5000', [0]),
    ('gaussians=5000.0', [2]), ('gaussians!=10', [1, 2, 3]), ('gaussians<=4999.5', [0]), ('quality>30', [0]),
    ('quality=30', [1]), ('quality<inf', [0, 1, 3]), ('clean=true', [0, 3]), ('clean!=True', [1, 2]),
    ('half>=2', [1, 3]), ('hash=5', [1]), ('hash>7', [0]), ('hash!=-1', [0, 1, 2, 3])])
def test_conditions_hold_where_they_should(text, expected):
    condition = parse_filter(text)
    mask = condition.mask(pa.chunked_array([COLUMNS[condition.column]])).to_pylist()
    assert [i for i, held in enumerate(mask) if held] == expected


def test_a_condition_is_parsed_at_its_first_relation():
    assert parse_filter('path~a=b') == Filter('path', '~', 'a=b')
    assert parse_filter('caption=a >= b') == Filter('caption', '=', 'a >= b')
    assert str(parse_filter('gaussians >= 5')) == 'gaussians>=5'


@pytest.mark.parametrize('text', ['', 'chair', '=chair', '5>3', 'a b=c', 'category==', '!=3', 'path=\udcff'])
def test_what_is_no_condition_is_refused(text):
    if text == 'category==':
        assert parse_filter(text).value == '='
        return
    with pytest.raises(ValueError, match=r"is no condition; expected COLUMN .*'category=chair'"):
        parse_filter(text)


@pytest.mark.parametrize('text, message', [
    ('gaussians=many', "gaussians holds int64, which 'many' cannot be compared with"),
    ('gaussians~5', 'holds int64, and ~ is of text'), ('clean>true', 'holds bool'), ('quality=high', 'holds double')])
def test_values_of_another_type_are_refused(text, message):
    condition = parse_filter(text)
    with pytest.raises(ValueError, match=message):
        condition.mask(pa.chunked_array([COLUMNS[condition.column]]))
