"""Precision of matrix products."""

import pytest
import torch

from hpcule.world.precision import without_tf32


@pytest.fixture(params=[False, True])
def tf32(request):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_tf32 = before


def fail_within(seen):
    with without_tf32():
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        raise RuntimeError("torn")


def test_tf32_is_off_within_and_afterwards_as_it_was(tf32):
    seen = []
    with pytest.raises(RuntimeError, match="torn"):
        fail_within(seen)
    assert seen == [False]
    assert torch.backends.cuda.matmul.allow_tf32 == tf32
