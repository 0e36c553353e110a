"""The lines of a replica's log that report the progress of its start. `qwen-tts serve` shows them."""

import logging
import re
from dataclasses import dataclass

log = logging.getLogger("ray.serve")

# The driver's form of a line, in Ray 2.60: (ServeReplica:APP:DEPLOYMENT pid=N) INFO DATE TIME APP_DEPLOYMENT ID -- TEXT
_LINE = re.compile(r"\(ServeReplica:[^:]+:(?P<deployment>\S+) pid=\d+\) INFO .*? -- (?P<text>.*)")
# The library logs the last two states.
_STATES = ("loading", "warming up", "compiling", "capturing")


@dataclass(frozen=True)
class StartState:
    """A deployment, and the state that one of its replicas has reached."""

    deployment: str
    state: str


def report_start(state: str) -> None:
    """Log `state`, from the constructor of a replica."""
    assert state.startswith(_STATES), f"{state!r} would not be recognised in the log"
    log.info(state)


def find_start_state(line: str) -> StartState | None:
    """Return the state that a line of the driver's output reports, or None if the line is of another kind."""
    found = _LINE.search(line)
    if found is None or not found["text"].startswith(_STATES):
        return None
    return StartState(found["deployment"], found["text"].strip())
