"""The memory of the processes that serve a URL, if they run on this machine."""

import contextlib
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, ConfigDict

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# Ray gives its workers titles with this beginning. All workers of one Ray have its raylet as their parent.
_RAY = "ray::"
_NAME_CHARACTERS = 60


class Memory(BaseModel):
    """The resident memory of one process, with the memory that it shares.

    begin_mib, end_mib: before and after the overload; None if there was no such process.
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
    listening = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == (address.port or 80)
    }
    found = dict[int, psutil.Process]()
    for pid in listening - {None}:  # None: it belongs to another user
        with contextlib.suppress(psutil.NoSuchProcess):
            listener = psutil.Process(pid)
            family = _workers(listener.ppid()) if _title(listener).startswith(_RAY) else listener.children(True)
            found |= {process.pid: process for process in [listener, *family]}
    return [found[pid] for pid in sorted(found)]


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
