"""Writes an evaluation as a table, a JSON file and a plot."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from qwen_tts.evaluation.score import Heard, Summary, summarise

_COLUMNS = {
    "speaker": "speaker", "cases": "cases", "wer": "WER", "perfect": "all words right", "ended": "ended by itself",
    "cut_short": "ended early", "right_voice": "right voice", "similarity": "similarity", "mos": "MOS", "rtf": "RTF",
    "words_per_s": "words/s",
}  # fmt: skip
_PLOTTED = {"wer": "word error rate", "mos": "DistillMOS", "rtf": "real-time factor"}


def write_report(directory: Path, heard: Mapping[str, Sequence[Heard]], about: Mapping[str, object]) -> str:
    """Write results.json, table.md and plot.png; return the table."""
    directory.mkdir(parents=True, exist_ok=True)
    summaries = [summarise(speaker, rows) for speaker, rows in heard.items()]
    table = _table(summaries)
    results = {
        "about": dict(about),
        "speakers": [dataclasses.asdict(summary) for summary in summaries],
        "utterances": {speaker: [dataclasses.asdict(row) for row in rows] for speaker, rows in heard.items()},
    }
    (directory / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / "table.md").write_text(table + "\n", encoding="utf-8")
    _plot(summaries, directory / "plot.png")
    return table


def _table(summaries: Sequence[Summary]) -> str:
    rows = [list(_COLUMNS.values()), ["---"] * len(_COLUMNS)]
    rows += [[_cell(getattr(summary, name)) for name in _COLUMNS] for summary in summaries]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plot(summaries: Sequence[Summary], file: Path) -> None:
    figure = Figure(figsize=(4 * len(_PLOTTED), 1.2 + 0.35 * len(summaries)), layout="constrained")
    names = [summary.speaker for summary in summaries]
    for index, (figure_name, title) in enumerate(_PLOTTED.items(), start=1):
        axes = figure.add_subplot(1, len(_PLOTTED), index)
        values = [getattr(summary, figure_name) or 0.0 for summary in summaries]
        bars = axes.barh(names, values)
        axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
        axes.set_title(title, fontsize=10)
        axes.invert_yaxis()
        axes.margins(x=0.2)
    figure.savefig(file, dpi=100)
