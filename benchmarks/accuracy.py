"""The accuracy of bfloat16 and int8: a talker beside its float32 form, both fed the codes that float32 draws.

python -m benchmarks.accuracy DIRECTORY TEXTS
"""

from pathlib import Path

import click
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.ours import load
from qwen_tts.engine.engine import Engine
from qwen_tts.request import CustomVoice, SpeechRequest

_DTYPES = ("bfloat16", "int8")


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False))
@click.argument("texts", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--limit", default=20, show_default=True)
def main(checkpoint: str, texts: Path, limit: int) -> None:
    """Measure for group 0 the error of the logits relative to their spread, and the probability that moves; for all
    codes the share that float32 draws too, with the same random numbers."""
    lines = [line for line in texts.read_text(encoding="utf-8").splitlines() if line.strip()][:limit]
    click.echo("| | logits, RMS error | probability moved | group 0 the same | all groups the same | frames |")
    click.echo("|---|---|---|---|---|---|")
    for dtype in _DTYPES:
        exact, other = (load(checkpoint, name, slots=1).engine for name in ("float32", dtype))
        compared = [_compare(exact, other, line, seed) for seed, line in enumerate(tqdm(lines, dtype))]
        error, moved, first, every = (torch.cat(column).mean() for column in zip(*compared, strict=True))
        frames = sum(len(row[0]) for row in compared)
        click.echo(f"| {dtype} | {error:.4f} | {moved:.4f} | {first:.3f} | {every:.3f} | {frames} |")


def _compare(exact: Engine, other: Engine, text: str, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return per frame [F]: error of the logits, probability moved, whether group 0 is equal, share of equal groups."""
    request = SpeechRequest(text, CustomVoice(exact.config.speakers[0]), seed=seed)
    logits: list[Tensor] = []
    hooks = [
        engine._runner.talker.codec_head.register_forward_hook(lambda *call: logits.append(call[2][0].float()))
        for engine in (exact, other)
    ]
    rows: list[tuple[Tensor, ...]] = []
    sequences = [engine.add(request) for engine in (exact, other)]
    while not sequences[0].finished:
        logits.clear()
        exact.step()
        other.step()
        if logits and not sequences[0].finished:
            right, found = logits
            here, there = (engine._runner.pools.codes[0].clone() for engine in (exact, other))
            moved = 0.5 * (right.softmax(0) - found.softmax(0)).abs().sum()
            same = (here == there).float()
            rows.append(((found - right).square().mean().sqrt() / right.std(), moved, same[0], same.mean()))
            other._runner.pools.codes[0] = here
            other._runner.pools.seen[0] = exact._runner.pools.seen[0]
        if sequences[1].finished:  # it drew the end of speech where float32 did not
            break
    other.cancel(sequences[1])
    exact.cancel(sequences[0])
    while not (exact.idle and other.idle):
        exact.step()
        other.step()
    for hook in hooks:
        hook.remove()
    error, moved, first, every = (torch.stack(column) for column in zip(*rows, strict=True))
    return error, moved, first, every


if __name__ == "__main__":
    main()
