"""Our engine beside the reference: the same weights, one machine, one run. `make bench` runs it.

The reference has its own environment (.venv-reference), which the first run creates.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from tqdm import tqdm

from benchmarks.results import Measured, draw, table
from loadtest.peer.environment import reference_environment
from qwen_tts.cpus import limit_torch_threads
from qwen_tts.seeded import SHAPES, write_checkpoint

_BASE = "reference bfloat16"
_OURS = (
    ("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True), ("int8", False), ("int8", True),
)  # fmt: skip


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="0.6B", show_default=True)
@click.option("--work", default="bench-work", type=click.Path(file_okay=False, path_type=Path), show_default=True)
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 4, 16), show_default=True)
@click.option("--frames", default=30, show_default=True)
@click.option("--reference/--no-reference", default=True, show_default=True)
@click.option("--reference-python", type=click.Path(exists=True), help="Python with qwen-tts 0.1.1.")
def main(
    shape: str, work: Path, batches: tuple[int, ...], frames: int, reference: bool, reference_python: str | None
) -> None:
    """Measure milliseconds per frame of talker and code predictor, by precision and number of streams."""
    limit_torch_threads()
    checkpoint = work / f"custom-voice-{shape}"
    if not checkpoint.exists():
        write_checkpoint(checkpoint, SHAPES[shape], "custom_voice", progress=True)
    commands = [
        [
            sys.executable, "-m", "benchmarks.ours", str(checkpoint), "--dtype", dtype, "--frames", str(frames),
            "--name", f"{dtype}{', compiled' if compiled else ''}", *(["--compile"] if compiled else []),
            *(word for batch in batches for word in ("--batch", str(batch))),
        ]
        for dtype, compiled in _OURS
    ]  # fmt: skip
    if reference:
        python = reference_python or reference_environment()
        script = str(Path(__file__).with_name("reference.py"))
        commands.insert(0, [python, script, str(checkpoint), "bfloat16", str(frames), *map(str, batches)])
    read_gb_s = memory_gb_s()
    results: list[Measured] = []
    for command in tqdm(commands, "measuring"):
        results += _run(command, batches)
    lines = [
        f"{shape} shape, {torch.get_num_threads()} threads, {read_gb_s:.0f} GB/s of memory read; reading the weights "
        f"takes at least {_million_weights(checkpoint) * 2 / read_gb_s:.0f} ms a frame in bfloat16, half in int8",
        table(results, _BASE),
    ]
    (work / "results.json").write_text(json.dumps([vars(result) for result in results], indent=1) + "\n")
    draw(results, f"talker and code predictor, {shape} shape", work / "results.png")
    click.echo("\n".join(lines))


def memory_gb_s() -> float:
    """Return the memory bandwidth of all threads: the best of five sums over a gigabyte, which no cache holds."""
    numbers = torch.ones(2**28)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.nbytes / (time.perf_counter() - started) / 1e9)
    return best


def _million_weights(checkpoint: Path) -> float:
    """Return the millions of weights read per frame: the talker's layers once, the code predictor's for every group."""
    config = json.loads((checkpoint / "config.json").read_text())["talker_config"]
    predictor = config["code_predictor_config"]

    def layers(part: dict[str, int]) -> int:
        heads = (2 * part["num_attention_heads"] + 2 * part["num_key_value_heads"]) * part["head_dim"]
        return part["num_hidden_layers"] * part["hidden_size"] * (heads + 3 * part["intermediate_size"])

    groups: int = config["num_code_groups"]
    return (layers(config) + (groups - 1) * layers(predictor)) / 1e6


def _run(command: Sequence[str], batches: tuple[int, ...]) -> list[Measured]:
    """Return the last result of each batch; the earlier ones are warm-up."""
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = [Measured(**json.loads(line)) for line in finished.stdout.splitlines() if line.startswith("{")]
    return found[-len(batches) :]


if __name__ == "__main__":
    main()
