"""A hand strikes exactly one replica of the kind, and reports what it cannot do."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import click
import psutil
import pytest

from loadtest.faults.hands import CommandHand, FaultFailed, LocalHand
from loadtest.faults.schedule import Action, Fault, Kind


def _fault(kind: Kind, action: Action = "kill", share: float = 0.0) -> Fault:
    return Fault(0.0, kind, action, share)


@contextmanager
def _replicas(*deployments: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Processes that sleep, with the titles that Ray gives to replicas."""
    sleep = shutil.which("sleep")
    started = [subprocess.Popen([f"ray::ServeReplica:app:{name}", "60"], executable=sleep) for name in deployments]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def _local(lasts_s: float = 60.0) -> LocalHand:
    return LocalHand(lasts_s, raylet=os.getpid())  # other replicas may run on this machine


async def _until(process: "subprocess.Popen[bytes]", *, stopped: bool) -> None:
    while (psutil.Process(process.pid).status() == psutil.STATUS_STOPPED) != stopped:  # noqa: ASYNC110  # of another process
        await asyncio.sleep(0.001)


def _signal(process: "subprocess.Popen[bytes]") -> int:
    """Wait until a process was killed, and return the signal. The process remains, as a zombie."""
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status


async def test_one_replica_of_the_kind_is_killed_at_a_time() -> None:
    hand = _local()
    with _replicas("talker-a", "talker-b.c", "codec-decoder", "ingress", "talkers") as replicas:
        hand.check(["talker", "codec-decoder", "ingress"], ["kill"])
        talkers = sorted(replicas[:2], key=lambda process: process.pid)
        struck = await hand.strike(_fault("talker", share=0.99))
        assert struck == f"process {talkers[1].pid}, one of 2"
        assert _signal(talkers[1]) == 9
        assert [process.poll() for process in (talkers[0], *replicas[2:])] == [None] * 4
        await hand.strike(_fault("talker", share=0.99))
        assert _signal(talkers[0]) == 9
        with pytest.raises(FaultFailed, match="no replica of the kind talker was there"):
            await hand.strike(_fault("talker"))
        assert [process.poll() for process in replicas[2:]] == [None] * 3


async def test_a_replica_that_was_stopped_goes_on_even_if_the_run_is_cancelled() -> None:
    with _replicas("codec-decoder") as (decoder,):
        striking = asyncio.create_task(_local().strike(_fault("codec-decoder", "stop")))
        await _until(decoder, stopped=True)
        striking.cancel()
        await asyncio.gather(striking, return_exceptions=True)
        await _until(decoder, stopped=False)
        await _local(0.01).strike(_fault("codec-decoder", "stop"))
        await _until(decoder, stopped=False)
        assert decoder.poll() is None


async def test_a_replica_that_was_slowed_is_stopped_again_and_again() -> None:
    with _replicas("ingress") as (ingress,):
        striking = asyncio.create_task(_local().strike(_fault("ingress", "slow")))
        for stopped in (True, False) * 2:
            await _until(ingress, stopped=stopped)
        ingress.kill()
        ingress.wait()
        with pytest.raises(FaultFailed, match=f"process {ingress.pid}"):
            await striking


def test_what_a_local_hand_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(click.ClickException, match="no replica of the kind codec-encoder runs on this machine"):
        _local().check(["codec-encoder"], ["kill"])
    with pytest.raises(click.ClickException, match="cannot be drained by a signal; give --hand"):
        _local().check(["talker"], ["kill", "drain"])
    info = {"cmdline": ["ray::ServeReplica:app:talker-a.handle_request"]}
    two = [SimpleNamespace(pid=pid, ppid=lambda pid=pid: pid - 1, info={**info, "ppid": pid - 1}) for pid in (11, 21)]
    monkeypatch.setattr(psutil, "process_iter", lambda _: iter(two))
    with pytest.raises(click.ClickException, match="give --raylet one of 10, 20"):
        LocalHand(1.0).check(["talker"], ["kill"])
    LocalHand(1.0, raylet=20).check(["talker"], ["kill"])


async def test_a_command_gets_kind_and_action_and_keeps_its_other_braces(tmp_path: Path) -> None:
    hand = CommandHand(f"echo '{{kind}} {{action}} {{.items[0]}}' | tee -a {tmp_path / 'said'}")
    hand.check(["codec-encoder"], ["drain"])
    assert await hand.strike(_fault("codec-encoder", "drain")) == "codec-encoder drain {.items[0]}"
    await hand.strike(_fault("talker"))
    assert (tmp_path / "said").read_text() == "codec-encoder drain {.items[0]}\ntalker kill {.items[0]}\n"


async def test_a_command_that_fails_is_no_fault() -> None:
    with pytest.raises(FaultFailed, match="`echo no talker pod; exit 3` ended with 3: no talker pod"):
        await CommandHand("echo no {kind} pod; exit 3").strike(_fault("talker"))
