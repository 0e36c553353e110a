"""Result files: the figures, the conditions and the command. JSON, small enough to be kept beside the sources."""

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
    """The conditions of a measurement.

    load_average: of the machine over the last minute before it, which shows how quiet the machine was. rate: None in a
    closed loop and in the search for a knee. users: None in an open loop. shard: i/n of a run on several machines.
    """

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
    """The runs of the same conditions, one after the other, or the search for a knee."""

    model_config = ConfigDict(frozen=True)

    conditions: Conditions
    runs: list[Run] = []
    knee: Knee | None = None

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_result(file: Path) -> Result:
    """Read a result file. Raises click.ClickException if it is not one."""
    try:
        return Result.model_validate_json(file.read_bytes())
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise click.ClickException(f"{file} is not a result file: {where or error.errors()[0]['msg']}") from None


def conditions_of(bench: Bench, label: str, rate: float | None) -> Conditions:
    """Return the conditions of a measurement that begins now on this machine."""
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
    """Describe the machine of the generator, which is often the server's too."""
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].strip() if names else processor
    memory = round(psutil.virtual_memory().total / 2**30)
    return f"{processor}, {psutil.cpu_count()} hardware threads, {memory} GiB, Python {platform.python_version()}"


def _without_key(words: list[str]) -> list[str]:
    return ["..." if before == "--api-key" else word for before, word in zip(["", *words], words, strict=False)]
