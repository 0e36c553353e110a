"""A machine that makes streams in virtual time, and callers who want them."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from deployments.speech import admission as admission_module
from deployments.speech.admission import Admission
from deployments.speech.terms import Priority, Terms
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.playback import Playback
from qwen_tts.errors import Overloaded
from tests import virtual_time
from tests.virtual_time import in_virtual_time

MODEL = "any"


def simulated(test: Callable[..., object]) -> Callable[..., None]:
    """Run a test in virtual time. There are no sockets, so nothing is awaited in real time."""
    run = in_virtual_time(admission_module)(test)  # type: ignore[arg-type]

    def quick() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(virtual_time, "_DELIVERY_S", 0)
            random.seed(7)
            run()

    quick.__name__ = getattr(test, "__name__", "quick")
    return quick


class Machine:
    """Makes a frame for every stream in a step. A step of n streams takes `step_s(n)`."""

    def __init__(self, step_s: Callable[[int], float]) -> None:
        self.step_s = step_s
        self.streams = 0
        self.most = 0

    async def make(self, audio_s: float, made: Callable[[float, bool], None]) -> int:
        """Make a stream in chunks, call `made(audio_s, last)` for each, and return the listener's underruns."""
        loop = asyncio.get_running_loop()
        frames, sizes, playback = round(audio_s / FRAME_S), [8, 4, 2, 2], Playback(requested=loop.time())
        self.streams += 1
        self.most = max(self.most, self.streams)
        try:
            await asyncio.sleep(2 * self.step_s(self.streams))  # the prompt
            held = 0
            for frame in range(frames):
                await asyncio.sleep(self.step_s(self.streams) * random.uniform(0.8, 1.2))
                held += 1
                begun, last = playback.first_sent is not None, frame == frames - 1
                hurried = begun and playback.headroom(loop.time()) < 2 * FRAME_S
                if held >= sizes[-1] or hurried or last:
                    playback.send(held * FRAME_S, loop.time())
                    made(held * FRAME_S, last)
                    held = 0
                    sizes = sizes[:-1] or sizes
        finally:
            self.streams -= 1
        return playback.underruns


@dataclass
class Outcome:
    """What happened to one request."""

    at_s: float
    waited_s: float
    underruns: int | None  # None: it was refused
    retry_after_s: float = 0.0


@dataclass
class Service:
    """The admission before a machine."""

    machine: Machine
    max_wait_s: float = 2.0
    admission: Admission = field(default_factory=Admission)

    @property
    def limit(self) -> float:
        return self.admission._line(MODEL).limit.limit

    async def request(self, key: str, audio_s: float = 3.0, priority: Priority = "interactive") -> Outcome:
        loop = asyncio.get_running_loop()
        came_s = loop.time()
        terms = Terms(priority, self.max_wait_s, key.encode())
        try:
            async with self.admission.place(MODEL, terms) as place:
                began_s = loop.time()
                underruns = await self.machine.make(audio_s, lambda audio_s, last: place.made(audio_s, last=last))
                return Outcome(came_s, began_s - came_s, underruns)
        except Overloaded as refusal:
            return Outcome(came_s, loop.time() - came_s, None, refusal.retry_after_s)


@dataclass
class Load:
    """Callers who arrive at random, and the outcomes of their first and second tries."""

    service: Service
    first: list[Outcome] = field(default_factory=list)
    second: list[Outcome] = field(default_factory=list)

    async def run(self, per_s: float, seconds: float, *, retries: bool = False, name: str = "") -> None:
        """Send requests and wait for their ends. With `retries`, each refused one comes back once before the end."""
        random.seed(7)
        end_s = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            number = 0
            while asyncio.get_running_loop().time() < end_s:
                number += 1
                group.create_task(self._one(f"{name}{number}", end_s if retries else 0.0))
                await asyncio.sleep(random.expovariate(per_s))

    async def _one(self, key: str, end_s: float) -> None:
        audio_s = random.uniform(1.5, 5.0)
        outcome = await self.service.request(key, audio_s)
        self.first.append(outcome)
        loop = asyncio.get_running_loop()
        if outcome.underruns is None and loop.time() + outcome.retry_after_s < end_s:
            await asyncio.sleep(outcome.retry_after_s + random.uniform(0.0, 0.1))
            self.second.append(await self.service.request(key, audio_s))

    @property
    def spoken(self) -> list[Outcome]:
        return [one for one in (*self.first, *self.second) if one.underruns is not None]

    @property
    def refused(self) -> list[Outcome]:
        return [one for one in (*self.first, *self.second) if one.underruns is None]
