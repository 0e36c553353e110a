"""The display of a wait: progress bars on a terminal, one line per change elsewhere. All output goes to stderr."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deployments.commands.cluster.diagnosis import Cause
from deployments.commands.cluster.rayservice import Snapshot
from deployments.commands.cluster.report import awaited_groups, deployments, progress_line


class WaitDisplay:
    """A context manager that shows Snapshots. Each cause is printed once, when it first appears."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._line = ""
        self._shown: set[str] = set()

    def __enter__(self) -> Self:
        assert self._bars is None, "the display is entered twice"
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bars = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
            self._pods = self._bars.add_task("pods ready", total=None)
            self._deployments = self._bars.add_task("deployments healthy", total=None)
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()

    def show(self, snapshot: Snapshot, causes: list[Cause]) -> None:
        """Update the bars, and print the progress line and the causes that are new."""
        line = progress_line(snapshot)
        if line != self._line:
            self._console.print(line)
        self._line = line
        if self._bars:
            groups = awaited_groups(snapshot)
            desired = sum(group.desired or 0 for group in groups)
            self._bars.update(self._pods, completed=sum(group.ready for group in groups), total=desired or None)
            states = [s for name in snapshot.applications for s in deployments(snapshot, name).values()]
            healthy = sum(state.get("status") == "HEALTHY" for state in states)
            self._bars.update(self._deployments, completed=healthy, total=len(states) or None)
        for cause in causes:
            if cause.key not in self._shown:
                self._shown.add(cause.key)
                self._console.print(f"- {cause}")
