"""Spectrograms of one sentence side by side: source, codec's copy, synthesis."""

from collections.abc import Mapping
from pathlib import Path

import click
import librosa
from matplotlib.figure import Figure

from qwen_tts.train.clips import RATE_HZ


def draw_spectrograms(recordings: Mapping[str, Path], title: str, picture: Path) -> None:
    """Draw one panel per recording, with a common time axis and colour scale."""
    samples = {name: librosa.load(file, sr=RATE_HZ)[0] for name, file in recordings.items()}
    longest_s = max(len(wave) for wave in samples.values()) / RATE_HZ
    figure = Figure(figsize=(9, 2.4 * len(samples)), layout="constrained")
    for index, (name, wave) in enumerate(samples.items(), start=1):
        mel = librosa.feature.melspectrogram(y=wave, sr=RATE_HZ, n_fft=1024, hop_length=240, n_mels=80, fmax=8000)
        axes = figure.add_subplot(len(samples), 1, index)
        axes.imshow(
            librosa.power_to_db(mel, ref=1.0), origin="lower", aspect="auto", vmin=-60, vmax=20, cmap="magma",
            extent=(0, len(wave) / RATE_HZ, 0, 80),
        )  # fmt: skip
        axes.set_xlim(0, longest_s)
        axes.set_title(name, fontsize=9)
        axes.set_ylabel("mel band")
    axes.set_xlabel("s")
    figure.suptitle(title)
    figure.savefig(picture, dpi=90)


@click.command()
@click.argument("title")
@click.argument("recordings", nargs=-1, metavar="NAME=WAV ...")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(title: str, recordings: tuple[str, ...], output: Path) -> None:
    """Draw spectrograms of recordings of one sentence."""
    draw_spectrograms({name: Path(file) for name, file in (r.split("=", 1) for r in recordings)}, title, output)


if __name__ == "__main__":
    main()
