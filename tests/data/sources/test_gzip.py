import gzip
import random
import zlib

import pytest

from regraft.data.sources import _gzip


@pytest.mark.parametrize("level", [0, 1, 9])
def test_reading_a_gzip_file_anywhere_gives_the_bytes_of_its_whole_content(tmp_path, level, monkeypatch):
    monkeypatch.setattr(_gzip, "STEP", 50_000)
    rng = random.Random(level)
    whole = b"".join(rng.choice([bytes(5000), rng.randbytes(5000)]) for _ in range(200))
    half = len(whole) // 2
    packed = gzip.compress(whole[:half], level) + gzip.compress(whole[half:], level)  # as `cat a.gz b.gz` does
    (tmp_path / "a.gz").write_bytes(packed)
    reader = _gzip.GzipReader(tmp_path / "a.gz")
    for _ in range(300):
        offset = rng.randrange(len(whole))
        size = rng.randrange(min(20_000, len(whole) - offset) + 1)
        assert reader.read(offset, size) == whole[offset : offset + size]
    with pytest.raises(EOFError):
        reader.read(len(whole) - 1, 2)


def test_reading_on_in_a_gzip_file_does_not_start_from_its_beginning(tmp_path, monkeypatch):
    sizes = []

    class Counting:
        def __init__(self, inner=None):
            self._inner = inner or zlib.decompressobj(31)

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def copy(self):
            return Counting(self._inner.copy())

        def decompress(self, data, limit):
            content = self._inner.decompress(data, limit)
            sizes.append(len(content))
            return content

    monkeypatch.setattr(_gzip, "_decompressor", Counting)
    whole = random.Random(0).randbytes(10**6)
    (tmp_path / "a.gz").write_bytes(gzip.compress(whole))
    reader = _gzip.GzipReader(tmp_path / "a.gz")
    reader._saved[0].decompressor = Counting()
    for offset in range(0, 10**6, 10**4):
        reader.read(offset, 10**4)
    assert sum(sizes) == 10**6


def test_a_damaged_gzip_file_fails_when_read(tmp_path):
    packed = bytearray(gzip.compress(random.Random(0).randbytes(10**5)))
    packed[50_000:50_100] = bytes(100)
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(zlib.error):
        _gzip.GzipReader(tmp_path / "a.gz").read(0, 10**5)


def test_a_file_that_changed_has_a_new_reader(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"old content"))
    assert _gzip.reader(path).read(0, 3) == b"old"
    assert _gzip.reader(path) is _gzip.reader(path)
    path.write_bytes(gzip.compress(b"new content, longer"))
    assert _gzip.reader(path).read(0, 3) == b"new"
