import dataclasses
import stat
import tempfile
from pathlib import Path

import pytest

from hpcule.config.errors import UsageError
from hpcule.world.meeting import prepare, prove, require_interfaces


def prove_by(world, folders):
    """What comes of a proof by the secret in this rank's folder."""
    try:
        prove(dataclasses.replace(world.place, folder=folders[world.rank]), None)
    except RuntimeError as error:
        return str(error)
    return "proved"


@pytest.fixture
def folders(tmp_path):
    made = [Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(3)]
    for folder in made:
        prepare(folder)
    return [str(folder) for folder in made]


def test_ranks_that_know_the_secret_believe_each_other(pool, trio, folders):
    assert pool.run(prove_by, folders[:1] * 2) == ["proved"] * 2
    assert trio.run(prove_by, folders[:1] * 3) == ["proved"] * 3


def test_a_rank_with_another_secret_is_found_out(trio, folders):
    first, second, third = trio.run(prove_by, [folders[0], folders[0], folders[1]])
    assert first == second == "what answered in place of rank 2 of 3 does not belong to this run"
    assert third == "what answered in place of rank 0 of 3 does not belong to this run"


def test_what_lies_in_the_folder_is_private(folders):
    for path in [Path(folders[0]), *Path(folders[0]).iterdir()]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_secrets_differ(folders):
    assert len({(Path(folder) / "secret").read_bytes() for folder in folders}) == 3


def refused(world, folder):
    try:
        prove(dataclasses.replace(world.place, folder=folder), None)
    except UsageError as error:
        return str(error)
    return ""


def test_a_folder_that_others_may_enter_is_refused(pool, folders, tmp_path):
    Path(folders[0]).chmod(0o711)
    (tmp_path / "link").symlink_to(folders[1])
    for folder in (folders[0], str(tmp_path / "link")):
        assert all("must be ours, mode 0700" in found for found in pool.run(refused, folder))


def test_a_folder_that_takes_no_files_is_named(tmp_path):
    with pytest.raises(UsageError, match="set TMPDIR to a folder on a local disk"):
        prepare(tmp_path / "missing")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"GLOO_SOCKET_IFNAME": ""},
        {"GLOO_SOCKET_IFNAME": "lo,hsn0"},
        {"NCCL_SOCKET_IFNAME": "hsn"},
        {"NCCL_SOCKET_IFNAME": "ib,hsn"},
        {"NCCL_SOCKET_IFNAME": "=hsn0"},
        {"NCCL_SOCKET_IFNAME": "^docker"},
    ],
)
def test_interfaces_that_exist_are_taken(environ):
    require_interfaces("node7", environ, ["lo", "hsn0"], nccl=True)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("GLOO_SOCKET_IFNAME", "hsn9", "hsn9"),
        ("GLOO_SOCKET_IFNAME", "lo,hsn", "hsn"),
        ("NCCL_SOCKET_IFNAME", "ib", "ib"),
        ("NCCL_SOCKET_IFNAME", "=hsn", "=hsn"),
    ],
)
def test_an_interface_that_is_not_there_is_named_with_its_variable(variable, value, named):
    expected = rf"{variable}={named}: node7 has no such network interface, but lo, hsn0; .* network_interface"
    with pytest.raises(UsageError, match=expected):
        require_interfaces("node7", {variable: value}, ["lo", "hsn0"], nccl=True)


def test_nccls_interface_is_of_no_interest_without_nccl():
    require_interfaces("node7", {"NCCL_SOCKET_IFNAME": "hsn9"}, ["lo"], nccl=False)
