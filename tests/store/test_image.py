from __future__ import annotations

import io
import os

import numpy as np
import pytest

from hpcule.store.image import Image


def test_it_does_what_a_file_in_memory_does():
    rng = np.random.default_rng(0)
    ours = Image()
    for _ in range(20):
        ours.reset()
        theirs = io.BytesIO()
        for _ in range(30):
            place, data = int(rng.integers(0, 3000)), rng.bytes(int(rng.integers(0, 500)))
            whence = [os.SEEK_SET, os.SEEK_CUR, os.SEEK_END][int(rng.integers(3))]
            assert ours.seek(place, whence) == theirs.seek(place, whence)
            assert ours.write(data) == theirs.write(data)
            for file in (ours, theirs):
                file.seek(place)
            first, second = bytearray(400), bytearray(400)
            assert ours.readinto(first) == theirs.readinto(second)
            assert (first, ours.tell()) == (second, theirs.tell())
        assert ours.view() == theirs.getvalue()


def test_nothing_of_an_earlier_file_shows():
    image = Image()
    image.write(b"x" * 1000)
    image.reset()
    assert bytes(image.view()) == b""
    image.truncate(10)
    image.seek(20)
    image.write(b"y")
    assert bytes(image.view()) == bytes(20) + b"y"
    image.truncate(5)
    image.truncate(30)
    assert bytes(image.view()) == bytes(30)


def test_what_is_in_use_is_not_written_over_unseen():
    image = Image()
    image.write(b"first")
    with image.view() as view:
        with pytest.raises(TypeError):
            view[0] = 0
        image.seek(0)
        with pytest.raises(BufferError):
            image.write(bytes(4 << 20))
