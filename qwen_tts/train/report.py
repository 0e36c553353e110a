"""Draws the loss curves of a run."""

import json
from pathlib import Path

from matplotlib.figure import Figure


def draw_report(history: Path, picture: Path, title: str) -> None:
    """Draw one panel per figure of history.jsonl, with training and held-out values together."""
    with history.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                kind, _, panel = name.rpartition("/")
                curves.setdefault(panel, {}).setdefault(kind or "training", []).append((row["step"], value))
    columns = min(4, len(curves))
    lines_of_panels = -(-len(curves) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * lines_of_panels), layout="constrained")
    for index, (panel, kinds) in enumerate(sorted(curves.items()), start=1):
        axes = figure.add_subplot(lines_of_panels, columns, index)
        for kind, points in kinds.items():
            axes.plot(*zip(*points, strict=True), label=kind, marker="." if len(points) < 40 else None)
        axes.set_title(panel, fontsize=9)
        axes.grid(alpha=0.3)
        if len(kinds) > 1:
            axes.legend(fontsize=7)
    figure.suptitle(title)
    figure.savefig(picture, dpi=80)
