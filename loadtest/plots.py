"""Parts of plots that several reports draw."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from loadtest.tries import ENDINGS, Ending, Try

COLOURS: dict[Ending, str] = {"admitted": "C0", "refused": "C1", "not ready": "C4", "failed": "C3"}


def draw_endings(
    axes: Axes,
    tries: Sequence[Try],
    edges: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    name: str,
    endings: Sequence[Ending] = ENDINGS,
) -> None:
    """Draw how many tries were due in each bin, by their ending."""
    for ending in endings:
        counts, _ = np.histogram([one.due_s for one in tries if one.ending == ending], edges)
        axes.stairs(counts, edges, color=COLOURS[ending], label=ending)
    axes.set(ylabel=f"{name} in {edges[1] - edges[0]:.1f} s")
