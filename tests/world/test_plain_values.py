import os
import pickle

import numpy as np
import pytest
import torch

from hpcule.config.run import WorldConfig
from hpcule.world.plain_values import dumps, loads


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**80,
        0.1,
        1j,
        "ä",
        b"\0",
        bytearray(b"x"),
        [1, (2, {3: {4, 5}}), frozenset({6})],
        {"name": {1: "x"}, (1, 2): [None]},
        np.float64(0.5),
        np.int64(3),
    ],
)
def test_plain_values_come_back(value):
    found = loads(dumps(value))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, "U3"])
def test_arrays_come_back(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    found = loads(dumps({1: array, 2: array[:, ::2]}))
    assert found[1].dtype == array.dtype
    assert np.array_equal(found[1], array)
    assert np.array_equal(found[2], array[:, ::2])


class Call:
    """A pickle that makes a folder when it is read."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, __import__, torch.load, np.load, type])
def test_bytes_that_name_anything_else_are_refused_and_nothing_runs(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argument = "__import__('os').mkdir('ran')" if function is eval else "ran"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(RuntimeError, match="no plain value"):
            loads(pickle.dumps([Call(function, argument)], protocol))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [WorldConfig(), torch.zeros(2), np.array([Call(os.mkdir, "ran")], object)])
def test_objects_are_refused(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError):
        loads(dumps(value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.timedelta64(3), np.array(["2026-01-01"], "M8[D]"), np.zeros(2, "V4")])
def test_types_that_are_neither_numbers_nor_texts_are_refused(value):
    with pytest.raises(RuntimeError, match="neither numbers nor texts"):
        loads(dumps(value))


@pytest.mark.parametrize("data", [b"", b"\x80", b"x", dumps([1, 2])[:-3], b"\x80\x04cos\nsystem\n."])
def test_damaged_bytes_are_refused(data):
    with pytest.raises(RuntimeError):
        loads(data)
