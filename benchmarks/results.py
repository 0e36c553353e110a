"""The result of a measurement, as a table and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

FRAME_MS = 80.0


@dataclass(frozen=True)
class Measured:
    """`ms_per_frame` is the median time in which each of `batch` streams gets a frame, `first_frame_ms` the time to the
    first frame of any of them, `peak_mb` the peak memory of the process."""

    name: str
    batch: int
    ms_per_frame: float
    first_frame_ms: float
    frames: int
    peak_mb: float

    @property
    def times_real_time(self) -> float:
        """Seconds of audio of all streams together per second."""
        return self.batch * FRAME_MS / self.ms_per_frame


def table(results: Sequence[Measured], against: str) -> str:
    """Return a Markdown table whose last column compares with `against` at the same batch."""
    base = {result.batch: result.ms_per_frame for result in results if result.name == against}
    rows = [
        "| | batch | ms per frame | first frame ms | RTF | x real time, all streams | peak MB | x faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        ratio = f"{base[result.batch] / result.ms_per_frame:.2f}" if result.batch in base else ""
        rows.append(
            f"| {result.name} | {result.batch} | {result.ms_per_frame:.1f} | {result.first_frame_ms:.0f} "
            f"| {result.ms_per_frame / FRAME_MS:.2f} | {result.times_real_time:.2f} | {result.peak_mb:.0f} | {ratio} |"
        )
    return "\n".join(rows)


def draw(results: Sequence[Measured], title: str, picture: Path) -> None:
    """Plot milliseconds per frame over the batch, one line per name, and the limit for real time."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in dict.fromkeys(result.name for result in results):
        points = [(result.batch, result.ms_per_frame) for result in results if result.name == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.axhline(FRAME_MS, color="grey", linestyle=":", label="real time")
    axes.set(xscale="log", yscale="log", xlabel="streams", ylabel="ms per frame", title=title)
    axes.legend(fontsize=8)
    figure.savefig(picture, dpi=90)
