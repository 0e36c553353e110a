"""The merge of the shards of one run from several machines into one result: every request counts once."""

from collections.abc import Sequence
from pathlib import Path

import click
from pydantic import BaseModel, ValidationError

from loadtest.record import Record
from loadtest.result import Conditions, Result
from loadtest.summary import summarise


class Samples(BaseModel):
    """All measurements of one run, for merging. Their summary is a Result. lags_ms: of the event loops."""

    conditions: Conditions
    records: list[Record]
    lags_ms: list[float]
    cpu_share: float


def write_samples(samples: Samples, file: Path) -> None:
    file.write_text(samples.model_dump_json() + "\n", encoding="utf-8")


def read_samples(file: Path) -> Samples:
    """Read a samples.json file. Raises click.ClickException if it is not one."""
    try:
        return Samples.model_validate_json(file.read_bytes())
    except ValidationError:
        raise click.ClickException(f"{file} is not a samples.json file of a run") from None


def _of_the_run(conditions: Conditions) -> dict[str, object]:
    """Return the conditions that all shards must share, without those that differ between machines."""
    return conditions.model_dump(exclude={"shard", "machine", "load_average", "command", "date", "label", "processes"})


def merge(shards: Sequence[Samples], allowed_ms: float) -> tuple[Result, list[Record]]:
    """Return the result and the records of all shards. Raises click.ClickException if they are not all of one run."""
    first = shards[0].conditions
    for shard in shards:
        if _of_the_run(shard.conditions) != _of_the_run(first):
            raise click.ClickException("the files are not shards of one run: their conditions differ")
    given = sorted(str(shard.conditions.shard) for shard in shards)
    wanted = sorted(f"{index}/{len(shards)}" for index in range(len(shards)))
    if given != wanted:
        raise click.ClickException(
            f"{len(shards)} shards must be {', '.join(wanted)}; the files are {', '.join(given)}"
        )
    records = sorted((record for shard in shards for record in shard.records), key=lambda record: record.index)
    lags = [lag for shard in shards for lag in shard.lags_ms]
    run = summarise(records, lags, max(shard.cpu_share for shard in shards), allowed_ms)
    machines = "; ".join(dict.fromkeys(shard.conditions.machine for shard in shards))
    conditions = first.model_copy(update={"shard": None, "machine": machines})
    return Result(conditions=conditions, runs=[run]), records
