"""Invented records of requests that were never sent."""

from loadtest.record import Record


def record(
    index: int, *, heard_s: float = 0.2, error: str | None = None, underruns: int = 0, scheduled_s: float = 0.0,
    chunk_s: float = 0.1, late_s: float = 0.0, scenario: str = "custom_voice",
) -> Record:  # fmt: skip
    """Return a record with 2 s of audio in eleven chunks; the first arrives 20 ms before it is heard."""
    first = scheduled_s + heard_s - 0.02
    return Record(
        index=index, scenario=scenario, language="english", characters=20, scheduled_s=scheduled_s,
        sent_s=scheduled_s + late_s, end_s=first + 10 * chunk_s,
        chunks=[(first + number * chunk_s, 100) for number in range(11)], audible_s=scheduled_s + heard_s - 0.01,
        heard_s=scheduled_s + heard_s, audio_s=2.0, silences=[(first, 0.3)] * underruns, error=error,
        finish_reason="stop",
    )  # fmt: skip
