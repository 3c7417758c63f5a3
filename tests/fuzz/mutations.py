"""Seeded damage to the bytes of a file; archives and JSON are also damaged inside a valid container."""
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from functools import cache
from random import Random

NUMBER = re.compile(rb'[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?')
WORDS = [b'-1', b'0', b'1', b'7', b'2147483648', b'4294967295', b'9223372036854775807', b'18446744073709551616',
         b'1' + b'0' * 30, b'1e400', b'-1e38', b'nan', b'inf', b'ten', b'', b'0x10', b'1_0', '٣'.encode(), b'1' * 5000]
INTEGERS = [0, 1, 255, 2 ** 16, 2 ** 28, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 40, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1]
FLOATS = [float('nan'), float('inf'), float('-inf'), 3.4e38, -3.4e38, 1e30, 1e19, 1e-45, -0.0]
VALUES = [None, True, False, 0, -1, 1, 0.5, 2 ** 31, 2 ** 63, 10 ** 30, float('nan'), float('inf'), -float('inf'),
          1e308, '', 'x', '7', 'nan', '../secret', '/etc/passwd', 'a\0b', '\ud800', 'ä' * 300, [], {}, [[]], [None],
          {'a': []}, [1, 'x'], ['x'] * 3]
BOMB, BOMB_CRC = 2 ** 31, 0x4dbdf21c  # bytes that a bomb inflates to, zeros, and their CRC


# Any bytes

def truncate(data: bytes, rng: Random) -> bytes:
    return data[:rng.randrange(len(data))]


def extend(data: bytes, rng: Random) -> bytes:
    return data + rng.choice([b'\0', rng.randbytes(rng.randint(1, 64)), data[-rng.randint(1, 256):]])


def flip_bits(data: bytes, rng: Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        damaged[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(data: bytes, rng: Random) -> bytes:
    start, size = _place(data, rng), rng.choice([1, 2, 4, 8, 64, 512, 4096])
    run = rng.choice([bytes(size), b'\xff' * size, rng.randbytes(size), b' ' * size])
    return data[:start] + run[:len(data) - start] + data[start + size:]


def replace_number(data: bytes, rng: Random) -> bytes:
    """Write an extreme integer or float over 1 to 8 aligned bytes."""
    size = rng.choice([1, 2, 4, 4, 8])
    if size >= 4 and rng.random() < 0.3:
        value = struct.pack('<d' if size == 8 else '<f', rng.choice(FLOATS))
    else:
        value = (rng.choice(INTEGERS) % 256 ** size).to_bytes(size, 'little')
    start = _place(data, rng) // size * size
    return data[:start] + value + data[start + size:]


def replace_text_number(data: bytes, rng: Random) -> bytes:
    """Replace a number in ASCII by a huge, negative or senseless one; most often one near the start."""
    found = list(NUMBER.finditer(data, 0, 65536))
    if not found:
        return replace_number(data, rng)
    number = rng.choice(found[:16] if rng.random() < 0.5 else found)
    return data[:number.start()] + rng.choice(WORDS) + data[number.end():]


def remove_chunk(data: bytes, rng: Random) -> bytes:
    start, size = _place(data, rng), rng.choice([1, 2, 4, 16, 100, 1000])
    return data[:start] + data[start + size:]


def duplicate_chunk(data: bytes, rng: Random) -> bytes:
    start, size = _place(data, rng), rng.choice([1, 2, 4, 16, 100, 1000])
    return data[:start + size] + data[start:]


def swap_words(data: bytes, rng: Random) -> bytes:
    """Exchange two runs of equal length."""
    size = rng.choice([1, 2, 4, 8, 32])
    if len(data) < 2 * size:
        return flip_bits(data, rng)
    first, second = sorted(rng.sample(range(0, len(data) - size + 1, size), 2)) if len(data) >= 3 * size else (0, size)
    return b''.join([data[:first], data[second:second + size], data[first + size:second], data[first:first + size],
                     data[second + size:]])


def replace_all(data: bytes, rng: Random) -> bytes:
    return rng.choice([b'', b'\0' * len(data), rng.randbytes(len(data)), b'<html>404 Not Found</html>', data[:1],
                       b'\xff\xfe' + data, b'\xef\xbb\xbf' + data])


def _place(data: bytes, rng: Random) -> int:
    """Return an offset, in half of the cases within the first 128 bytes."""
    return rng.randrange(min(len(data), 128) if rng.random() < 0.5 else len(data))


ANY = [truncate, truncate, extend, flip_bits, flip_bits, overwrite, overwrite, replace_number, replace_number,
       replace_number, replace_text_number, replace_text_number, remove_chunk, duplicate_chunk, swap_words, replace_all]


# JSON

def damage_json(data: bytes, rng: Random) -> bytes:
    """Change the structure of a JSON document: types, nesting, numbers, strings and keys."""
    document = json.loads(data)
    if rng.random() < 0.15:
        depth = rng.choice([50, 900, 100_000])
        opening, closing = rng.choice([('[', ']'), ('{"a":', '}')])
        return _put(document, rng, opening * depth + '1' + closing * depth)
    if rng.random() < 0.15:
        return _put(document, rng, rng.choice(['1' * 5000, '-' + '9' * 400, '1e999', 'NaN', '-Infinity', '"\\ud800"']))
    places = list(_places(document))
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    for holder, key in rng.choices(places, k=rng.choice([1, 1, 2, 5])):
        action = rng.choice(['replace', 'replace', 'replace', 'remove', 'scale', 'repeat'])
        try:
            value = holder[key]
        except LookupError:  # an earlier action removed it
            continue
        if action == 'replace':
            holder[key] = rng.choice(VALUES)
        elif action == 'remove':
            del holder[key]
        elif action == 'scale' and isinstance(value, (int, float)):
            holder[key] = value * rng.choice([-1, 0, 2, 10 ** 6, 10 ** 20, 0.5])
        elif action == 'repeat' and isinstance(value, (list, str)):
            holder[key] = value * rng.choice([0, 2, 100])
    return json.dumps(document).encode()


def _places(value):
    """Yield every (container, key) of a document."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    for key, child in items:
        yield value, key
        yield from _places(child)


def _put(document, rng: Random, text: str) -> bytes:
    """Return a document with literal text at a random place."""
    places = list(_places(document))
    if not places or rng.random() < 0.1:
        return text.encode()
    holder, key = rng.choice(places)
    holder[key] = '@here@'
    return json.dumps(document).replace('"@here@"', text).encode()


# Archives

@cache
def _bomb() -> tuple[bytes, int]:
    """Return a deflate stream of zeros and their CRC."""
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = deflate.compress(bytes(2 ** 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return block * (BOMB >> 20) + deflate.flush(), BOMB_CRC


def damage_gzip(data: bytes, rng: Random) -> bytes:
    """Damage the content and compress it again, or replace it by zeros without end."""
    content = gzip.decompress(data)
    if rng.random() < 0.05:
        stream, crc = _bomb()
        return b'\x1f\x8b\x08\0\0\0\0\0\0\xff' + stream + struct.pack('<II', crc, BOMB % 2 ** 32)
    if rng.random() < 0.05:
        return gzip.compress(content + bytes(2 ** 26), mtime=0)
    return gzip.compress(damage(content, rng), mtime=0)


def damage_zip(data: bytes, rng: Random) -> bytes:
    """Damage members and build a valid archive around them, or replace, rename, drop or duplicate one."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    entries = [[name.encode(), 0, content, zlib.crc32(content), len(content)] for name, content in members]
    entry = rng.choice(entries)
    action = rng.choice(['damage'] * 8 + ['bomb', 'drop', 'rename', 'repeat', 'method', 'size', 'crc', 'empty'])
    if action == 'damage':
        entry[2] = damage(entry[2], rng) if entry[2] else b'\0'
        entry[3:] = zlib.crc32(entry[2]), len(entry[2])
    elif action == 'bomb':
        entry[1:] = 8, *_bomb(), BOMB
    elif action == 'drop':
        entries.remove(entry)
    elif action == 'rename':
        entry[0] = rng.choice([b'../up', b'/etc/x', b'', b'\xff\xfe', entries[0][0], entry[0] + b'x'])
    elif action == 'repeat':
        entries.append(list(entry))
    elif action == 'method':
        entry[1] = rng.choice([1, 8, 9, 12, 14, 99])
    elif action == 'size':
        entry[4] = rng.choice([0, 1, entry[4] + 1, 2 ** 31, 2 ** 32 - 1])
    elif action == 'crc':
        entry[3] ^= 1
    elif action == 'empty':
        entry[2:] = b'', 0, 0
    return build_zip(entries)


def build_zip(entries) -> bytes:
    """Return an archive of (name, method, stored bytes, CRC, declared size), consistent or not."""
    body, directory = b'', b''
    for name, method, stored, crc, size in entries:
        common = struct.pack('<HHHIIIIHH', 20, 0, method, 0, crc, len(stored), size, len(name), 0)
        directory += (b'PK\1\2' + struct.pack('<H', 20) + common + struct.pack('<HHHII', 0, 0, 0, 0, len(body)) + name)
        body += b'PK\3\4' + common + name + stored
    end = struct.pack('<HHHHIIH', 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return body + directory + b'PK\5\6' + end


def damage(data: bytes, rng: Random) -> bytes:
    """Return damaged bytes: three times in four by the structure of the content, if it has a known one."""
    if not data:
        return rng.randbytes(rng.randrange(8))
    if rng.random() < 0.75:
        if data.startswith(b'PK\3\4'):
            return damage_zip(data, rng)
        if data.startswith(b'\x1f\x8b'):
            return damage_gzip(data, rng)
        if data.lstrip()[:1] in (b'{', b'[') and _is_json(data):
            return damage_json(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        data = rng.choice(ANY)(data, rng) or b'\0'
    return data


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True
