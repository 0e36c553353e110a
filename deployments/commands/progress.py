"""The progress of each deployment's start, on the terminal."""

import shutil
import time
from collections.abc import Mapping
from typing import TextIO

_WAITING = "starting a process"
_UP_AND_CLEAR = "\x1b[{lines}F\x1b[J"


class Progress:
    """A line per deployment, rewritten in place on a terminal. Elsewhere every state is a line of its own.

    `names` maps each deployment to its name on the screen.
    """

    def __init__(self, screen: TextIO, names: Mapping[str, str], in_place: bool) -> None:
        self._screen = screen
        self._names = names
        self._in_place = in_place and len(names) < shutil.get_terminal_size().lines
        self._states = dict.fromkeys(names, _WAITING)
        self._ready: set[str] = set()
        self._width = max(map(len, names.values()), default=0)
        self._started = time.monotonic()
        if self._in_place:
            self._draw()

    def show(self, deployment: str, state: str) -> None:
        """Replace the state of a deployment, unless it is ready already or not one of `names`."""
        if deployment in self._ready or self._states.get(deployment, state) == state:
            return
        self._states[deployment] = state
        assert self._states.keys() == self._names.keys(), "the lines on the screen are those of `names`"
        if self._in_place:
            self._screen.write(_UP_AND_CLEAR.format(lines=len(self._names)))
            self._draw()
        else:
            self._screen.write(self._line(deployment))
        self._screen.flush()

    def ready(self, deployment: str) -> None:
        """Show that every replica of a deployment has started, if it is one of `names`."""
        if deployment in self._names:
            self.show(deployment, f"ready after {time.monotonic() - self._started:.0f} s")
            self._ready.add(deployment)

    def _draw(self) -> None:
        self._screen.write("".join(map(self._line, self._names)))

    def _line(self, deployment: str) -> str:
        line = f"  {self._names[deployment]:<{self._width}}  {self._states[deployment]}"
        # A line that wraps would be two lines, of which only one is rewritten.
        return f"{line[: shutil.get_terminal_size().columns - 1] if self._in_place else line}\n"
