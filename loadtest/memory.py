"""The memory of the processes that serve a URL, if they run on this machine."""

import contextlib
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, ConfigDict

from loadtest.tables import Row

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# Ray gives its workers titles with this beginning. All workers of one Ray have its raylet as their parent.
_RAY = "ray::"
_NAME_CHARACTERS = 60


class Memory(BaseModel):
    """The resident memory of one process, with the memory that it shares.

    begin_mib, end_mib: at two moments of a run; None if there was no such process.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    process: str
    begin_mib: float | None
    end_mib: float | None


def processes_of(url: str) -> list[psutil.Process]:
    """Return the processes that serve `url`, in the order of their ids; none if they are not on this machine.

    They are the process that listens on the port, and all workers of its Ray, or its children if it is no such worker.
    """
    address = urlsplit(url)
    if address.hostname not in _LOCAL_HOSTS:
        return []
    found = dict[int, psutil.Process]()
    for pid in _listening(address.port or 80):
        with contextlib.suppress(psutil.NoSuchProcess):
            listener = psutil.Process(pid)
            is_worker = _title(listener).startswith(_RAY)
            family = _workers(listener.ppid()) if is_worker else listener.children(recursive=True)
            found |= {process.pid: process for process in [listener, *family]}
    return [found[pid] for pid in sorted(found)]


def _listening(port: int) -> set[int]:
    """Return the processes that listen on a port. Those of other users are not known; on macOS no process is."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return set()
    return {
        one.pid
        for one in connections
        if one.pid is not None and one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
    }


def _workers(raylet: int) -> list[psutil.Process]:
    children = psutil.Process(raylet).children()
    return [process for process in children if _title(process).startswith(_RAY)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:  # it has ended
        return ""


def resident_mib(processes: Sequence[psutil.Process]) -> dict[int, tuple[str, float]]:
    """Return the name and the resident memory of each process that is still there, by its id."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            name = _title(process).removeprefix(_RAY)[:_NAME_CHARACTERS]
            found[process.pid] = name, round(process.memory_info().rss / 2**20, 1)
    return found


def compared(begin: Mapping[int, tuple[str, float]], end: Mapping[int, tuple[str, float]]) -> list[Memory]:
    """Return the memory of each process at the begin and at the end."""
    compared = []
    for pid, (name, _) in sorted({**end, **begin}.items()):
        begin_mib, end_mib = (seen[pid][1] if pid in seen else None for seen in (begin, end))
        compared.append(Memory(pid=pid, process=name, begin_mib=begin_mib, end_mib=end_mib))
    return compared


def sums_mib(memory: Sequence[Memory]) -> tuple[float, float]:
    """Return the memory of all processes at the begin and at the end. A process that was not there is nothing."""
    return sum(one.begin_mib or 0.0 for one in memory), sum(one.end_mib or 0.0 for one in memory)


def memory_rows(memory: Sequence[Memory]) -> list[Row]:
    """Return a row per process, and one of their sums."""
    rows = [
        [f"{one.process.replace('|', ' ')} ({one.pid})", *(_shown(value) for value in (one.begin_mib, one.end_mib))]
        for one in memory
    ]
    return [*rows, ["all", *map(_shown, sums_mib(memory))]]


def _shown(mib: float | None) -> str:
    return "-" if mib is None else f"{mib:.0f}"
