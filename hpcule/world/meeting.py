"""How ranks find each other: in a private folder where `--workers` started them, else at the address of rank 0.

gloo's sockets take the first connection for the peer that they wait for, so that any user of the machine could come
first. Ranks of one machine therefore listen on the loopback interface alone, and those that share a private folder
prove to each other, before anything else is sent, that they have read the secret in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import stat
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcule.config.errors import PeerLostError, UsageError
from hpcule.world.launcher import Place
from hpcule.world.preconditions import require_address, require_descriptors

SECRET, MEETING_FILE = "secret", "meeting"
PROOF_BYTES = 32
OTHER_INTERFACE = "name the one by which nodes reach each other (in a site file: network_interface)"
MEETING_SECONDS = 300
"""How long ranks wait for each other at the start: a wrong address must not cost the time-out of a long step."""


def patience(timeout: timedelta) -> timedelta:
    """How long a rank waits for the others to come, in a run whose collectives have this time-out."""
    return min(timedelta(seconds=MEETING_SECONDS), timeout)


def meet(place: Place, backend: str, timeout: timedelta) -> None:
    """Join the other ranks in torch's default process group.

    Raises:
        UsageError: the folder of the ranks is open to others; the network interface that they are to use is not there;
            the host of rank 0 is unknown; or the limit of open files is too low.
        PeerLostError: another program listens at rank 0's port.
        RuntimeError: a rank did not come, or somebody else came in its place.
    """
    require_descriptors(place.size, place.host)
    if not place.folder:
        require_address(place)
    if place.on_one_machine:
        stay_on_loopback(at_any_rate=bool(place.folder))
    require_interfaces(place.host, os.environ, [name for _, name in socket.if_nameindex()], nccl="nccl" in backend)
    try:
        _join(place, backend, timeout)
    except RuntimeError as error:
        if place.rank == 0 and "EADDRINUSE" in str(error):
            raise PeerLostError(
                f"cannot listen at {place.meeting}, where another program does: start the run again, "
                "with another MASTER_PORT if you have set it"
            ) from None
        if "Unable to find address for" in str(error):
            raise UsageError(
                f"GLOO_SOCKET_IFNAME={os.environ.get('GLOO_SOCKET_IFNAME', '')}: this interface of {place.host} has no "
                f"address; {OTHER_INTERFACE}"
            ) from None
        raise
    prove(place, None)


def prove(place: Place, group: dist.ProcessGroup | None) -> None:
    """Make sure that at the other end of every connection of a group is the rank that should be; a collective.

    Ranks without a common folder have no secret: they trust the network between them.

    Raises:
        RuntimeError: somebody else is, or nobody answers.
    """
    if not place.folder:
        return
    secret = (_checked(Path(place.folder)) / SECRET).read_bytes()
    rank, size, pending = dist.get_rank(group), dist.get_world_size(group), []
    expected = {peer: _proof(secret, peer, rank) for peer in range(size) if peer != rank}
    received = {peer: torch.zeros(PROOF_BYTES, dtype=torch.uint8) for peer in expected}
    for peer, buffer in received.items():
        pending.append(dist.isend(_proof(secret, rank, peer), group=group, group_dst=peer))
        pending.append(dist.irecv(buffer, group=group, group_src=peer))
    for work in pending:
        assert work is not None
        work.wait(timedelta(seconds=MEETING_SECONDS))
    for peer, buffer in received.items():
        if not torch.equal(buffer, expected[peer]):
            raise RuntimeError(f"what answered in place of rank {peer} of {size} does not belong to this run")


def prepare(folder: Path) -> None:
    """Make a private folder, mode 0700, the meeting place of ranks that this process will start.

    Raises:
        UsageError: its file system has no locks on files, which the ranks need.
    """
    try:
        for name, content in ((SECRET, secrets.token_bytes(32)), (MEETING_FILE, b"")):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise UsageError(
            f"the workers cannot meet in {folder.parent} ({error.strerror}): set TMPDIR to a folder on a local disk"
        ) from None


def stay_on_loopback(*, at_any_rate: bool = False) -> None:
    """Let gloo and NCCL listen on the loopback interface, at any rate or unless the environment names another."""
    names = {name for _, name in socket.if_nameindex()}
    own = next((name for name in ("lo", "lo0") if name in names), None)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if own and (at_any_rate or not os.environ.get(variable)):
            os.environ[variable] = own


def require_interfaces(host: str, environ: Mapping[str, str], names: Sequence[str], *, nccl: bool) -> None:
    """Make sure that the network interfaces exist which the environment names for gloo and NCCL.

    gloo takes names, NCCL beginnings of names, or what is not to be used after "^", or whole names after "=".

    Raises:
        UsageError: one of them does not.
    """
    wanted = [("GLOO_SOCKET_IFNAME", name, name in names) for name in environ.get("GLOO_SOCKET_IFNAME", "").split(",")]
    listed = environ.get("NCCL_SOCKET_IFNAME", "")
    if nccl and not listed.startswith("^"):
        exact, beginnings = listed.startswith("="), tuple(listed.removeprefix("=").split(","))
        found = any(name in beginnings if exact else name.startswith(beginnings) for name in names)
        wanted.append(("NCCL_SOCKET_IFNAME", listed, found))
    for variable, name, there in wanted:
        if name and not there:
            raise UsageError(
                f"{variable}={name}: {host} has no such network interface, but {', '.join(names)}; {OTHER_INTERFACE}"
            )


def _proof(secret: bytes, sender: int, receiver: int) -> torch.Tensor:
    digest = hashlib.blake2b(f"{sender} {receiver}".encode(), key=secret, digest_size=PROOF_BYTES).digest()
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)


def _join(place: Place, backend: str, timeout: timedelta) -> None:
    if place.launcher == "torchrun":  # whose agent already keeps a store at that address
        dist.init_process_group(backend, "env://", timeout, place.size, place.rank)
        return
    store: Any
    if place.folder:
        file = _checked(Path(place.folder)) / MEETING_FILE
        store = dist.FileStore(str(file), place.size)  # type: ignore[attr-defined]
        store.set_timeout(patience(timeout))
    else:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            place.address, place.port, place.size, place.rank == 0, patience(timeout)
        )
    dist.init_process_group(backend, None, timeout, place.size, place.rank, store)


def _checked(folder: Path) -> Path:
    """The folder, which nobody else may enter."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise UsageError(f"{folder}: others can enter the folder in which the workers meet; it must be ours, mode 0700")
    return folder
