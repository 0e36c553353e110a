"""The hands that bring about faults: one for the processes of this machine, one that runs a command."""

import asyncio
import contextlib
import re
from collections.abc import Collection, Iterable
from typing import Protocol

import click
import psutil

from loadtest.faults.schedule import Action, Fault, Kind

# Ray gives the process of a replica this title; the name of its method may follow the deployment's.
_TITLE = re.compile(r"ray::ServeReplica:[^:]*:(?P<deployment>\S+)")
# `slow` lets a process run for a fifth of the time.
_HALTED_S = 0.08
_RUNNING_S = 0.02
# A command that takes longer does not end.
_COMMAND_WITHIN_S = 180.0


class FaultFailed(Exception):
    """The fault did not happen. The message is written for the user."""


class Hand(Protocol):
    """Brings about faults."""

    def check(self, kinds: Iterable[Kind], actions: Collection[Action]) -> None:
        """Raise click.ClickException if faults of these kinds cannot happen."""

    async def strike(self, fault: Fault) -> str:
        """Bring about `fault`, return after its end, and return what was struck. Raises FaultFailed."""


class LocalHand:
    """Sends signals to replicas that run on this machine.

    lasts_s: how long a process is stopped or slowed. raylet: the process that started the replicas; None if only one
    Ray runs here.
    """

    def __init__(self, lasts_s: float, raylet: int | None = None) -> None:
        self._lasts_s = lasts_s
        self._raylet = raylet

    def check(self, kinds: Iterable[Kind], actions: Collection[Action]) -> None:
        if "drain" in actions:
            raise click.ClickException(
                "a replica cannot be drained by a signal; give --hand a command that drains one on your cluster"
            )
        for kind in kinds:
            found = self._replicas(kind)
            if not found:
                raise click.ClickException(
                    f"no replica of the kind {kind} runs on this machine; start the service here, or give --hand a "
                    "command that reaches your cluster"
                )
            raylets = sorted({process.ppid() for process in found})
            if len(raylets) > 1:
                raise click.ClickException(
                    f"replicas of several Rays run on this machine; give --raylet one of {', '.join(map(str, raylets))}"
                )

    async def strike(self, fault: Fault) -> str:
        found = await asyncio.to_thread(self._replicas, fault.kind)
        if not found:
            raise FaultFailed(f"no replica of the kind {fault.kind} was there")
        process = found[int(fault.share * len(found))]
        try:
            await self._act(process, fault.action)
        except psutil.Error as error:
            raise FaultFailed(f"process {process.pid}: {error}") from None
        return f"process {process.pid}, one of {len(found)}"

    def _replicas(self, kind: Kind) -> list[psutil.Process]:
        """Return the processes that run replicas of a kind, in the order of their ids."""
        found = []
        for process in psutil.process_iter(["cmdline", "ppid"]):
            title = _TITLE.match(" ".join(process.info["cmdline"] or ()))
            if title is None or self._raylet not in (None, process.info["ppid"]):  # a zombie has no title
                continue
            if re.match(rf"{kind}(-|\.|$)", title["deployment"]):
                found.append(process)
        return sorted(found, key=lambda process: process.pid)

    async def _act(self, process: psutil.Process, action: Action) -> None:
        match action:
            case "kill":
                process.kill()
            case "stop":
                await _halt(process, self._lasts_s)
            case "slow":
                for _ in range(round(self._lasts_s / (_HALTED_S + _RUNNING_S))):
                    await _halt(process, _HALTED_S)
                    await asyncio.sleep(_RUNNING_S)
            case "drain":
                raise AssertionError("check refuses a drain")


async def _halt(process: psutil.Process, seconds: float) -> None:
    process.suspend()
    try:
        await asyncio.sleep(seconds)
    finally:  # also if the run is cancelled
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


class CommandHand:
    """Runs a command of the user for each fault, in a shell, with {kind} and {action} replaced."""

    def __init__(self, template: str) -> None:
        self._template = template

    def check(self, kinds: Iterable[Kind], actions: Collection[Action]) -> None:
        """Accept every fault: only the command knows what it can do."""

    async def strike(self, fault: Fault) -> str:
        command = self._template.replace("{kind}", fault.kind).replace("{action}", fault.action)
        process = await asyncio.create_subprocess_shell(
            command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(_COMMAND_WITHIN_S):
                said = (await process.communicate())[0].decode(errors="replace").strip()
        except TimeoutError:
            raise FaultFailed(f"`{command}` did not end within {_COMMAND_WITHIN_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode != 0:
            raise FaultFailed(f"`{command}` ended with {process.returncode}: {said[-300:]}")
        return said[-300:] or command
