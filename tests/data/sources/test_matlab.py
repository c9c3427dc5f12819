"""Lists of numbers in MAT-files, as SciPy writes them and as no program should."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from hpcule.config.errors import DataError
from hpcule.data.sources.matlab import read_lists

TYPES = {np.uint8: 2, np.int16: 3, np.uint16: 4, np.int32: 5, np.float64: 9, np.uint64: 13}


def element(order, kind, content):
    """An element; up to four bytes go into its tag."""
    if len(content) <= 4:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(f"{order}2I", kind, len(content)) + content + bytes(-len(content) % 8)


def mat_file(order, *elements):
    mark = b"IM" if order == "<" else b"MI"
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + mark + b"".join(elements)


def matrix(order, name, values):
    """An array of doubles, which are stored in the smaller type of the values."""
    parts = [(6, np.array([6, 0])), (5, np.array([1, len(values)]))]
    heads = [element(order, kind, part.astype(f"{order}i4").tobytes()) for kind, part in parts]
    stored = values.astype(values.dtype.newbyteorder(order)).tobytes()
    rest = [element(order, 1, name.encode()), element(order, TYPES[values.dtype.type], stored)]
    return element(order, 14, b"".join([*heads, *rest]))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_what_scipy_writes(tmp_path, kind, compressed):
    lists = {"short": [3], "long_name": [*range(1, 120)], "column": [[7], [9]]}
    others = {"text": "words", "cells": np.array([{"a": 1}, "b"], object), "empty": np.zeros((0, 0))}
    arrays = {name: np.array(values, kind) for name, values in lists.items()}
    savemat(tmp_path / "x.mat", {**others, **arrays}, do_compression=compressed)
    found = read_lists(tmp_path / "x.mat", ["column", "short", "long_name"])
    assert [numbers.tolist() for numbers in found] == [[7, 9], [3], lists["long_name"]]
    assert {numbers.dtype for numbers in found} == {np.dtype(np.int64)}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_both_orders_of_bytes(tmp_path, order, kind, count):
    values = np.arange(1, count + 1).astype(kind)
    (tmp_path / "x.mat").write_bytes(mat_file(order, matrix(order, "a", values), matrix(order, "b", values[::-1])))
    first, second = read_lists(tmp_path / "x.mat", ["a", "b"])
    assert first.tolist() == second.tolist()[::-1] == [*range(1, count + 1)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([1.0, np.nan]), "other than the whole numbers from 1 to 1,000,000"),
        (np.array([1.0, np.inf]), "other than the whole numbers"),
        (np.array([1.0, 2.5]), "other than the whole numbers"),
        (np.array([0, 1]), "other than the whole numbers"),
        (np.array([-1, 1]), "other than the whole numbers"),
        (np.array([10**6 + 1]), "other than the whole numbers"),
        (np.array([1 + 2j]), "no array of real numbers"),
        ("text", "no array of real numbers"),
        (np.array([1, "a"], object), "no array of real numbers"),
        (np.zeros((0, 0)), "other than the whole numbers"),
    ],
)
def test_other_values_are_refused(tmp_path, values, said):
    savemat(tmp_path / "x.mat", {"a": values})
    with pytest.raises(DataError, match=rf"x\.mat cannot be read as a MAT-file \(a .*{said}"):
        read_lists(tmp_path / "x.mat", ["a"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not of version 5"),
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "not of version 5"),
        (mat_file("<"), "no array a"),
        (mat_file("<", struct.pack("<2I", 14, 2**32 - 1)), "ends too early"),
        (mat_file("<", struct.pack("<I", 200 << 16 | 14), bytes(300)), "ends too early"),
        (mat_file("<", element("<", 15, zlib.compress(bytes(2**21)))), "more than 1,048,576 bytes"),
        (mat_file("<", bytes(2**20)), "more than 1,048,576 bytes"),
    ],
)
def test_other_files_are_refused(tmp_path, content, said):
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.mat cannot be read as a MAT-file \(.*{said}.*\): fetch it again"):
        read_lists(tmp_path / "x.mat", ["a"])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_is_cut_off_anywhere(tmp_path, compressed):
    savemat(tmp_path / "whole.mat", {"a": np.arange(1, 200)}, do_compression=compressed)
    data = (tmp_path / "whole.mat").read_bytes()
    for size in range(0, len(data), 23):
        (tmp_path / "x.mat").write_bytes(data[:size])
        with pytest.raises(DataError):
            read_lists(tmp_path / "x.mat", ["a"])


def test_absent_file(tmp_path):
    with pytest.raises(DataError, match="no regular file"):
        read_lists(tmp_path / "x.mat", ["a"])
