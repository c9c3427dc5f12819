"""What ranks need to meet and can know before they do, so that the lack of it is named and not waited for."""

from __future__ import annotations

import resource
import socket
from collections.abc import Sequence
from pathlib import Path

from hpcule.config.errors import UsageError
from hpcule.world.launcher import Place

DESCRIPTORS_OF_A_PEER = 2
"""Sockets that gloo opens for each other rank."""
SPARE_DESCRIPTORS = 32
"""What a rank opens besides: its samples, its log, its checkpoints."""


def require_descriptors(size: int, host: str) -> None:
    """Raise the limit of open files as far as this system allows, and make sure that `size` ranks have enough.

    Raises:
        UsageError: the limit is too low.
    """
    try:
        open_now = len(list(Path("/proc/self/fd").iterdir()))
    except OSError:  # not Linux
        open_now = SPARE_DESCRIPTORS
    needed = open_now + DESCRIPTORS_OF_A_PEER * (size - 1) + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise UsageError(
                f"{host}: the limit of {hard} open files (ulimit -n) is too low for a run of {size} ranks: each "
                f"opens about {needed}; raise it with `ulimit -n {needed}`, or let an administrator do so in "
                "/etc/security/limits.conf, or start fewer ranks"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else needed, hard))


def require_address(place: Place) -> None:
    """Make sure that the host of rank 0 is known here, and on rank 0 that it is this one.

    Raises:
        UsageError: its name cannot be resolved, or belongs to another machine.
    """
    try:
        found = socket.getaddrinfo(place.address, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(
            f"{place.host} cannot resolve {place.address}, by {place.launcher} the host of rank 0 "
            f"({error.strerror or error}): let the nodes know each other's names (DNS or /etc/hosts), or give "
            "torchrun an address"
        ) from None
    # torchrun's agent listens there, which may be in another container than its ranks.
    if place.rank == 0 and place.launcher != "torchrun" and not any(map(_is_own, found)):
        raise UsageError(
            f"rank 0 runs on {place.host}, but by {place.launcher} on {place.address}, which is another machine: leave "
            "the launcher's order of hosts as it is, or start torchrun on each node"
        )


def _is_own(found: tuple[int, int, int, str, tuple[object, ...]]) -> bool:
    """Whether an address is one of this machine: nobody can bind to another's."""
    family, kind, protocol, _, address = found
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.bind((address[0], 0, *address[2:]))
    except OSError:
        return False
    return True


def refuse_shared_devices(devices: Sequence[tuple[str, str]]) -> None:
    """Make sure that no two ranks compute on the same GPU, whatever number each of them knows it by.

    Args:
        devices: host, and UUID of the GPU, of each rank.

    Raises:
        UsageError: two do.
    """
    first: dict[str, int] = {}
    for rank, (host, uuid) in enumerate(devices):
        other = first.setdefault(uuid, rank)
        if other != rank:
            raise UsageError(
                f"ranks {other} and {rank} on {host} both compute on GPU {uuid}: start no more ranks on a node than it "
                "has GPUs, and let the launcher show each rank all of them, or one of its own (CUDA_VISIBLE_DEVICES)"
            )
