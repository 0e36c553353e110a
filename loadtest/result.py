"""Result files: what was measured, of what, with which command. JSON; small enough to be kept beside the sources."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import psutil
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from loadtest.arrivals import Load
from loadtest.bench import Bench
from loadtest.knee import Knee
from loadtest.scenarios import Scenario
from loadtest.summary import Run


class Conditions(BaseModel):
    """Of what and how. `load_average` is the machine's over the minute before, which says how quiet it was. `rate` is
    None in a closed loop and in the search for a knee, `users` in an open loop; `shard` is i/n of a run on several
    machines."""

    model_config = ConfigDict(frozen=True)

    label: str
    date: str
    command: str
    machine: str
    load_average: float
    scenario: Scenario
    load: Load
    rate: float | None
    users: int | None
    requests: int
    seed: int
    processes: int
    shard: str | None
    languages: list[str]
    model: str
    fields: dict[str, JsonValue]
    start_buffer_ms: float
    audible_rms: float
    timeout_s: float


class Result(BaseModel):
    """`runs` of the same conditions, one after the other; or the search for a `knee`."""

    model_config = ConfigDict(frozen=True)

    conditions: Conditions
    runs: list[Run] = []
    knee: Knee | None = None

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_result(file: Path) -> Result:
    """Raises click.ClickException."""
    try:
        return Result.model_validate_json(file.read_bytes())
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise click.ClickException(f"{file} is not a result file: {where or error.errors()[0]['msg']}") from None


def conditions_of(bench: Bench, label: str, rate: float | None) -> Conditions:
    share, shares = bench.shard
    return Conditions(
        label=label,
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(["python", "-m", "loadtest", *_without_key(sys.argv[1:])]),
        machine=machine(),
        load_average=round(os.getloadavg()[0], 2),
        scenario=bench.scenario,
        load=bench.load,
        rate=rate,
        users=bench.users,
        requests=bench.requests,
        seed=bench.seed,
        processes=bench.processes,
        shard=None if shares == 1 else f"{share}/{shares}",
        languages=list(bench.options.languages),
        model=bench.options.model,
        fields=dict(bench.options.fields),
        start_buffer_ms=1000 * bench.target.start_buffer_s,
        audible_rms=bench.target.audible_rms,
        timeout_s=bench.target.timeout_s,
    )


def machine() -> str:
    """Of the generator; the server's, too, where both are one."""
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].strip() if names else processor
    memory = round(psutil.virtual_memory().total / 2**30)
    return f"{processor}, {psutil.cpu_count()} hardware threads, {memory} GiB, Python {platform.python_version()}"


def _without_key(words: list[str]) -> list[str]:
    return ["..." if before == "--api-key" else word for before, word in zip(["", *words], words, strict=False)]
