"""The admission before simulated machines of several kinds, in virtual time."""

import asyncio
import random
from contextlib import suppress

import pytest

from deployments.speech.terms import Priority, Terms
from qwen_tts.errors import Overloaded
from tests.deployments.speech.simulated import MODEL, Load, Machine, Outcome, Service, simulated


def small(streams: int) -> float:
    """Ten streams are just in time."""
    return 0.006 + 0.0065 * streams


def gpu(streams: int) -> float:
    """Over a hundred streams are in time."""
    return 0.016 + 0.0003 * streams


async def burst(service: Service, count: int, name: str) -> list[Outcome]:
    return await asyncio.gather(*(service.request(f"{name} {number}") for number in range(count)))


def admitted(outcomes: list[Outcome]) -> int:
    return sum(one.underruns is not None for one in outcomes)


async def hold(service: Service, terms: Terms, audio_s: float = 3.0, before_s: float = 0.0) -> float | None:
    """Speak in a place, `before_s` after it is given. Return the wait for the place, None after a refusal."""
    loop = asyncio.get_running_loop()
    came_s = loop.time()
    with suppress(Overloaded):
        async with service.admission.place(MODEL, terms) as place:
            waited_s = loop.time() - came_s
            await asyncio.sleep(before_s)
            await service.machine.make(audio_s, lambda audio_s, last: place.made(audio_s, last=last))
            return waited_s
    return None


@pytest.mark.parametrize(("step_ms", "least"), [(16, 60), (25, 55), (35, 45)])
def test_a_new_service_admits_a_burst_for_which_the_machine_is_big_enough(step_ms: int, least: int) -> None:
    @simulated
    async def run() -> None:
        outcomes = await burst(Service(Machine(lambda streams: step_ms / 1000 + 0.0002 * streams)), 64, "new")
        assert admitted(outcomes) >= least
        assert not any(one.underruns for one in outcomes)

    run()


@simulated
async def test_one_request_and_an_idle_hour_do_not_end_the_fast_growth() -> None:
    service = Service(Machine(gpu))
    await service.request("early")
    await asyncio.sleep(3600.0)
    assert admitted(await burst(service, 64, "late")) >= 60


@simulated
async def test_a_start_of_a_replica_is_no_slow_machine() -> None:
    service = Service(Machine(gpu))
    starting = (Terms("interactive", 2.0, str(number).encode()) for number in range(2))
    await asyncio.gather(*(hold(service, terms, before_s=20.0) for terms in starting))
    assert admitted(await burst(service, 64, "new")) >= 60


@pytest.mark.parametrize("step_ms", [28, 40, 45])
def test_a_low_limit_is_no_trap(step_ms: int) -> None:
    """One stream has a pace below 3, but more streams are hardly slower."""

    @simulated
    async def run() -> None:
        service = Service(Machine(lambda streams: step_ms / 1000 + 0.0001 * streams))
        limit = service.admission._line(MODEL).limit
        limit.limit, limit.growing_fast = 1.0, False
        await Load(service).run(10.0, 30.0)
        assert limit.limit >= 10.0

    run()


@simulated
async def test_two_services_on_one_machine_share_it() -> None:
    machine = Machine(small)
    services = [Service(machine), Service(machine)]
    for service, value in zip(services, (8.0, 1.0), strict=True):
        limit = service.admission._line(MODEL).limit
        limit.limit, limit.growing_fast = value, False
    outcomes: tuple[list[Outcome], list[Outcome]] = [], []
    began_s = asyncio.get_running_loop().time()

    async def one(number: int) -> None:
        outcomes[number % 2].append(await services[number % 2].request(str(number), random.uniform(1.5, 5.0)))

    async with asyncio.TaskGroup() as group:
        for number in range(2880):  # 16 a second for three minutes
            group.create_task(one(number))
            await asyncio.sleep(random.expovariate(16.0))
    spoken = sorted(admitted([one for one in of_line if one.at_s > began_s + 120.0]) for of_line in outcomes)
    assert spoken[1] <= 5 * spoken[0]
    assert not any(one.underruns for of_line in outcomes for one in of_line)


@simulated
async def test_some_long_prompts_do_not_lower_the_limit() -> None:
    """The first audio of 2 % of the requests takes over a second."""
    service = Service(Machine(gpu))
    waited: list[float | None] = []

    async def one(number: int) -> None:
        terms = Terms("interactive", 2.0, str(number).encode())
        waited.append(await hold(service, terms, before_s=1.1 if number % 50 == 0 else 0.0))

    async with asyncio.TaskGroup() as group:
        for number in range(1600):
            group.create_task(one(number))
            await asyncio.sleep(0.025)
    assert waited.count(None) <= 16


@simulated
async def test_a_caller_that_never_comes_back_does_not_delay_others_by_minutes() -> None:
    service = Service(Machine(small))
    await Load(service).run(2.0, 20.0)
    service.admission._line(MODEL).limit.growing_fast = False
    async with asyncio.TaskGroup() as group:
        for number in range(2000):
            group.create_task(hold(service, Terms("interactive", 0.0, str(number).encode(), "a caller")))
            await asyncio.sleep(0.001)
    assert len(service.admission._line(MODEL)._promises) <= 100
    outcomes = await burst(service, 30, "others")
    assert max(one.retry_after_s for one in outcomes) <= 60.0


@simulated
async def test_equal_requests_of_one_caller_have_times_of_their_own() -> None:
    service, second = Service(Machine(small)), []

    async def one() -> None:
        outcome = await service.request("the same text")
        if outcome.underruns is None:
            await asyncio.sleep(outcome.retry_after_s)
            second.append(await service.request("the same text"))

    async with asyncio.TaskGroup() as group:
        for _ in range(600):
            group.create_task(one())
            await asyncio.sleep(random.expovariate(10.0))
    assert len(second) > 300
    assert admitted(second) >= 0.6 * len(second)


@simulated
async def test_the_time_in_which_a_text_is_written_is_no_time_of_a_place() -> None:
    service = Service(Machine(small))
    async with service.admission.place(MODEL, Terms("interactive", 2.0, b"live"), counts=lambda: False) as place:
        await asyncio.sleep(600.0)
        place.made(0.08)
    assert service.admission._line(MODEL)._hold_s <= 3.0


@simulated
async def test_a_patient_caller_is_not_behind_later_callers() -> None:
    service, waits = Service(Machine(small)), []

    async def patient() -> None:
        await asyncio.sleep(20.0)
        for number in range(8):
            waits.append(await hold(service, Terms("interactive", 60.0, f"patient {number}".encode())))

    await asyncio.gather(Load(service).run(8.0, 60.0), patient())
    assert all(wait is not None and wait < 5.0 for wait in waits), waits


@simulated
async def test_few_requests_wait_in_vain() -> None:
    """Under a steady overload nearly all refusals come at once, although the lengths of the texts vary much."""
    service, outcomes = Service(Machine(lambda streams: 0.02 + 0.01 * streams)), []
    random.seed(3)

    async def one(number: int) -> None:
        outcomes.append(await service.request(str(number), max(0.4, min(20.0, random.expovariate(1 / 3)))))

    began_s = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for number in range(2400):
            group.create_task(one(number))
            await asyncio.sleep(random.expovariate(16.0))
    refused = [one for one in outcomes if one.underruns is None and one.at_s > began_s + 15.0]
    assert sum(one.waited_s > 0.1 for one in refused) <= len(refused) / 100
    assert admitted(outcomes) >= 200


@simulated
async def test_a_batch_request_at_its_promised_time_goes_before_other_batch_requests() -> None:
    service, order = Service(Machine(small)), []
    limit = service.admission._line(MODEL).limit
    limit.limit, limit.growing_fast = 1.0, False

    async def speak(name: str, priority: Priority, wait_s: float) -> float:
        try:
            async with service.admission.place(MODEL, Terms(priority, wait_s, name.encode())):
                order.append(name)
                await asyncio.sleep(8.0)
            return 0.0
        except Overloaded as refusal:
            return refusal.retry_after_s

    async with asyncio.TaskGroup() as group:
        group.create_task(speak("first", "interactive", 0.0))
        await asyncio.sleep(0)
        told_s = await speak("returning", "batch", 0.0)
        group.create_task(speak("other", "batch", 100.0))
        await asyncio.sleep(told_s)
        group.create_task(speak("returning", "batch", 100.0))
        await asyncio.sleep(0)
        group.create_task(speak("new", "interactive", 100.0))
    assert order == ["first", "new", "returning", "other"]
