"""The plot of a timeline: panels with one time axis. A panel without data is left out."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loadtest.plots import draw_endings
from loadtest.summary import distribution
from loadtest.timeline.result import TimelineResult
from loadtest.timeline.watch import ModelState, ServiceState
from loadtest.tries import ENDINGS

_BINS = 120
# At most this many windows of first audio, whose lengths are round numbers.
_WINDOWS = 30
_WINDOWS_S = (5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600)
# Processes with a line of their own, beside that of all.
_MOST_PROCESSES = 6
_NAME_CHARACTERS = 30
# The beginning of the titles of Serve's replicas: ServeReplica:APPLICATION:DEPLOYMENT.
_REPLICA = "ServeReplica:"
_PANEL_INCHES = 2.1
# Lines of deployments with equal numbers would cover each other.
_APART = 0.05
_UNKNOWN = math.nan


def draw(result: TimelineResult) -> Figure:
    panels: list[Callable[[Axes, TimelineResult], None]] = [_arrivals, _endings, _first_audio]
    if result.has_status:
        panels += [_streams, _waits, _replicas]
    if result.memory:
        panels.append(_memory)
    figure = Figure(figsize=(12, _PANEL_INCHES * len(panels) + 1), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(column, panels, strict=True):
        panel(axes, result)
        for phase in result.phases[1:]:
            axes.axvline(phase.begin_s, color="grey", linestyle=":", linewidth=1)
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlim(0.0, _last_s(result))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    column[0].set_title(result.conditions.label)
    column[-1].set(xlabel="seconds from the beginning (dotted: a phase begins)")
    return figure


def _last_s(result: TimelineResult) -> float:
    return max(result.end_s, *(one.end_s for one in result.tries))


def _edges(result: TimelineResult, width_s: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array([number * width_s for number in range(math.ceil(result.end_s / width_s) + 1)], np.float64)


def _bins(result: TimelineResult) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return _edges(result, max(1.0, math.ceil(result.end_s / _BINS)))


def _arrivals(axes: Axes, result: TimelineResult) -> None:
    edges = _bins(result)
    counts, _ = np.histogram([one.due_s for one in result.tries], edges)
    axes.stairs(counts / np.diff(edges), edges, fill=True, color="C7", alpha=0.5, label="arrivals")
    rates = [phase.rate for phase in result.phases]
    axes.stairs(rates, [0.0, *(phase.begin_s + phase.for_s for phase in result.phases)], color="black", label="planned")
    axes.set(ylabel="requests a second")


def _endings(axes: Axes, result: TimelineResult) -> None:
    """Draw the answers that are no streams, without endings that no request had."""
    had = {one.ending for one in result.tries}
    endings = [ending for ending in ENDINGS if ending in had and ending != "admitted"]
    draw_endings(axes, result.tries, _bins(result), "requests", endings)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0.0)
    if not endings:
        axes.text(0.5, 0.5, "every request was admitted", transform=axes.transAxes, ha="center", va="center")


def _first_audio(axes: Axes, result: TimelineResult) -> None:
    heard = [(one.due_s, one.first_audio_ms) for one in result.tries if one.first_audio_ms is not None]
    axes.set(ylabel="first audio, ms", yscale="log")
    if not heard:
        return
    axes.scatter([at for at, _ in heard], [value for _, value in heard], 8, color="C0", alpha=0.5, label="a stream")
    width_s = next((one for one in _WINDOWS_S if one * _WINDOWS >= result.end_s), _WINDOWS_S[-1])
    edges = _edges(result, width_s)
    in_windows = [distribution(value for at, value in heard if begin <= at < end) for begin, end in pairwise(edges)]
    for name, colour in (("p50", "black"), ("p99", "C3")):
        values = [window.get(name) or _UNKNOWN for window in in_windows]
        axes.stairs(values, edges, baseline=None, color=colour, label=f"{name} in {width_s} s")


def _streams(axes: Axes, result: TimelineResult) -> None:
    for colour, model in enumerate(_used(result)):
        shown: list[tuple[str, str, Callable[[ModelState], float | None]]] = [
            ("in use", "-", lambda state: state.streams),
            ("limit", ":", lambda state: state.stream_limit),
            ("waiting", "--", lambda state: state.queue),
        ]
        for name, style, value in shown:
            _step(axes, result, _of(model, value), style, f"C{colour}", f"{model}: {name}")
    axes.set(ylabel="streams")


def _waits(axes: Axes, result: TimelineResult) -> None:
    for colour, model in enumerate(_used(result)):
        _step(axes, result, _of(model, lambda state: state.expected_wait_s), "-", f"C{colour}", model)
    axes.set(ylabel="expected wait, s")


def _used(result: TimelineResult) -> list[str]:
    """Return the models that had a stream or a request that waited; all models if none had."""
    models = dict[str, bool]()
    for sample in result.samples:
        for name, state in ({} if sample.state is None else sample.state.models).items():
            models[name] = models.get(name, False) or state.streams + state.queue > 0
    return [name for name, used in models.items() if used] or list(models)


def _of(model: str, value: Callable[[ModelState], float | None]) -> Callable[[ServiceState], float | None]:
    def of(state: ServiceState) -> float | None:
        return value(state.models[model]) if model in state.models else None

    return of


def _replicas(axes: Axes, result: TimelineResult) -> None:
    """Draw the running replicas of each deployment, and a thin line of those in all states."""
    names = dict.fromkeys(name for one in result.samples if one.state is not None for name in one.state.replicas)
    for number, name in enumerate(names):

        def running(state: ServiceState, name: str = name, apart: float = number * _APART) -> float | None:
            replicas = state.running(name)
            return None if replicas is None else replicas + apart

        def known(state: ServiceState, name: str = name, apart: float = number * _APART) -> float | None:
            replicas = state.replicas.get(name)
            return None if replicas is None else sum(replicas.values()) + apart

        _step(axes, result, running, "-", f"C{number}", name)
        _step(axes, result, known, ":", f"C{number}", None)
    axes.plot([], [], "k:", label="with starting, stopping")
    axes.set(ylabel="running replicas")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(-0.2, axes.get_ylim()[1] + 0.2)


def _step(
    axes: Axes,
    result: TimelineResult,
    value: Callable[[ServiceState], float | None],
    style: str,
    colour: str,
    label: str | None,
) -> None:
    """Draw a value of the service's states. An unknown value is a gap."""
    values = [None if sample.state is None else value(sample.state) for sample in result.samples]
    moments = [sample.at_s for sample in result.samples]
    shown = [_UNKNOWN if one is None else one for one in values]
    axes.step(moments, shown, style, where="post", color=colour, label=label, linewidth=1.3)


def _memory(axes: Axes, result: TimelineResult) -> None:
    seen = [(sample.at_s, sample.memory_mib) for sample in result.samples if sample.memory_mib]
    moments = [at_s for at_s, _ in seen]
    axes.plot(moments, [sum(memory.values()) for _, memory in seen], color="black", label="all processes")
    alive = set().union(*(memory for _, memory in seen))
    most = {pid: max(memory.get(pid, 0.0) for _, memory in seen) for pid in alive}
    for pid in sorted(most, key=lambda pid: -most[pid])[:_MOST_PROCESSES]:
        line = [memory.get(pid, _UNKNOWN) for _, memory in seen]
        axes.plot(moments, line, linewidth=1, label=_short(result.processes[pid], pid))
    axes.set(ylabel="resident memory, MiB")
    axes.set_ylim(bottom=0.0)


def _short(name: str, pid: int) -> str:
    """Return the name of a process for the legend. A replica has the name of its deployment."""
    shown = name.rsplit(":", 1)[-1] if name.startswith(_REPLICA) else name
    return f"{shown[:_NAME_CHARACTERS]} ({pid})"
