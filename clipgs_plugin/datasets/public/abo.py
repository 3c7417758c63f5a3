"""Listings of Amazon Berkeley Objects: the product type of each 3D model."""
from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from clipgs_plugin.datasets.public.base import match_all, readable
from clipgs_plugin.io.archives import Place, list_places
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.io.files import check_ratio

PARTS = '0123456789abcdef'  # listings_0.json.gz to listings_f.json.gz
MAX_LINE = 1 << 20  # bytes
_SCHEMA = {'3dmodel_id': str, 'product_type?': [{'value': str}]}


def read_abo_types(root: Path) -> dict[str, str]:
    """Read the product types of the models by ``3dmodel_id``, as a prompt has them: ``OFFICE_CHAIR`` is office chair.

    A model has a listing in each country that sells it. Its type is the most frequent one of them, and the first by the
    alphabet of several that are equally frequent.

    Args:
        root: ``abo-listings.tar``, or a folder that has it or ``listings_*.json.gz`` somewhere below.

    Raises:
        FileNotFoundError: One of the 16 files is absent, without which classes would have other labels.
        ValueError: A file is damaged.
    """
    match = match_all(r'listings_(?P<part>[0-9a-f])\.json\.gz')
    places = {match(place.name)['part']: place for place in list_places(root, match)}
    absent = [f'listings_{part}.json.gz' for part in PARTS if part not in places]
    if absent:
        others = f' and {len(absent) - 3} more' if len(absent) > 3 else ''
        raise FileNotFoundError(f'{root}: lacks {", ".join(absent[:3])}{others} of the 16 files listings_*.json.gz, '
                                'which name the classes; put abo-listings.tar there, packed or not, or name its folder '
                                'as listings=')
    types: dict[str, Counter] = defaultdict(Counter)
    for part in track(PARTS, 'Listings', console=Console(stderr=True), transient=True):
        for uid, names in _models(places[part]):
            types[uid].update(names)
    return {uid: min(names, key=lambda name: (-names[name], name)) for uid, names in types.items()}


def _models(place: Place) -> Iterator[tuple[str, set[str]]]:
    """Yield the id and the product types of the listings that have both."""
    data, read = place.read(), 0
    try:
        with gzip.open(io.BytesIO(data)) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE), b''), 1):
                read += len(line)
                check_ratio(Path(place.name), 'it holds', read, len(data))
                if len(line) == MAX_LINE:
                    raise ValueError(f'line {number} is longer than {MAX_LINE} bytes')
                if b'"3dmodel_id"' in line:
                    listing = read_json(line, f'line {number}', _SCHEMA)
                    types = {readable(item['value']).strip().lower() for item in listing.get('product_type', [])}
                    if types - {''}:
                        yield listing['3dmodel_id'], types - {''}
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f'{place.file}: {place.name} is damaged ({str(error)[:200]}); download it again') from None
