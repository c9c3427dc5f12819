import numpy as np
import pytest

from hpcule.craft.cache import Cache


@pytest.fixture
def calls():
    return []


def counted(calls, value):
    def compute():
        calls.append(value)
        return np.full(3, value, np.float64)

    return compute


def test_the_second_asks_nobody(tmp_path, calls):
    for _ in range(2):
        assert Cache(tmp_path / "kept").get(("features", 64), counted(calls, 1.5)).tolist() == [1.5] * 3
    assert calls == [1.5]


def test_other_parts_are_another_array(tmp_path, calls):
    cache = Cache(tmp_path)
    cache.get(("features", 64), counted(calls, 1))
    assert cache.get(("features", 32), counted(calls, 2)).tolist() == [2] * 3


def test_without_a_folder_nothing_is_kept(calls):
    for _ in range(2):
        Cache().get(("a",), counted(calls, 1))
    assert calls == [1, 1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:90],
        lambda data: b"",
        lambda data: data.replace(b"(3,)", b"(9999999999999,)").replace(b" " * 12 + b"\n", b"\n"),
        lambda data: data.replace(b"{", b"("),
        lambda data: b"PK\5\6" + bytes(18),
    ],
    ids=["cut off", "empty", "a shape beyond memory", "no header", "a zip file"],
)
def test_a_damaged_file_is_made_again(tmp_path, calls, damage):
    cache = Cache(tmp_path)
    cache.get(("a",), counted(calls, 1))
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get(("a",), counted(calls, 2)).tolist() == [2] * 3


def test_only_its_owner_reads_it(tmp_path, calls):
    Cache(tmp_path / "kept").get(("a",), counted(calls, 1))
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
