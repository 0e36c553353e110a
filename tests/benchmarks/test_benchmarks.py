"""The table says what was measured, and the limit it is held against is the model's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import _million_weights
from benchmarks.bare import Stream
from benchmarks.gpu import main as on_gpu
from benchmarks.published import RATES
from benchmarks.results import Measured, draw, table
from benchmarks.through_serve import _BARE, Spoken
from benchmarks.through_serve import _table as _served
from qwen_tts.config import read_model_config
from qwen_tts.layers import Block, sdpa
from qwen_tts.models.qwen3_tts import load_talker
from tests.qwen_tts.tiny import CPU, TINY, custom, tiny_engine


def test_weights_that_a_frame_reads(custom_voice: Path) -> None:
    talker = load_talker(custom_voice, read_model_config(custom_voice), sdpa, CPU, torch.float32)

    def matrices(part: torch.nn.Module) -> int:
        blocks = [block for block in part.modules() if isinstance(block, Block)]
        return sum(p.numel() for block in blocks for p in block.parameters() if p.dim() == 2)

    expected = matrices(talker.model) + (TINY.groups - 1) * matrices(talker.code_predictor)
    assert _million_weights(custom_voice) == pytest.approx(expected / 1e6)


def test_ratios_are_to_the_same_number_of_streams(tmp_path: Path) -> None:
    slow = [Measured("slow", batch, 200.0 * batch, 300.0, 30, 1000.0) for batch in (1, 4)]
    fast = [Measured("fast", batch, 50.0, 100.0, 30, 500.0) for batch in (1, 4, 16)]
    lines = table([*slow, *fast], "slow").splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[-1] for row in cells] == ["1.00", "1.00", "4.00", "16.00", ""]
    assert cells[3][2:6] == ["50.0", "100", "0.62", "6.40"]
    draw([*slow, *fast], "test", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_our_engine_is_timed_in_a_process_of_its_own(custom_voice: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.ours",
        str(custom_voice),
        "--frames",
        "6",
        "--batch",
        "1",
        "--batch",
        "2",
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [Measured(**json.loads(line)) for line in lines]
    assert [measured.batch for measured in found] == [1, 2, 1, 2], "the first two warm up"
    for measured in found:
        assert measured.frames == 6
        assert 0 < measured.ms_per_frame < measured.first_frame_ms + 1000
        assert measured.peak_mb > 50


def test_what_serving_adds_is_of_the_bare_time() -> None:
    bare = [Spoken(_BARE, 1, [0.1], total) for total in (2.0, 1.0, 9.0)]
    served = [Spoken("served", 1, [0.3], 2.5), Spoken("served", 1, [0.5], 2.5), Spoken("served", 1, [0.4], 3.0)]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in _served([*bare, *served], 10).splitlines()]
    assert cells[2] == [_BARE, "1", "200.0", "2.50", "100", "+0%"]
    assert cells[3] == ["served", "1", "250.0", "3.12", "400", "+25%"]


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(on_gpu, ["--work", str(tmp_path)])
    assert result.exit_code == 1
    assert "no GPU" in result.output
    assert not list(tmp_path.iterdir())


def test_tables_of_the_gpu_benchmark(custom_voice: Path) -> None:
    options = ["--device", "cpu", "--dtype", "float32", "--no-compile", "--frames", "20", "--seconds", "2"]
    options += ["--batch", "1", "--batch", "3", "--rate", "2", "--rate", "3"]
    result = CliRunner().invoke(on_gpu, [str(custom_voice), *options], catch_exceptions=False)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines() if "|" in line]
    assert [row[0] for row in rows if row[0].isdigit()] == ["1", "3", "2", "3"]
    batches, rates = rows[2:4], rows[6:8]
    for row in batches:
        frame_ms = float(row[2])
        assert frame_ms > 0
        assert float(row[3]) == pytest.approx(frame_ms / 80, abs=0.001)
        assert float(row[4]) == pytest.approx(int(row[0]) * 80 / frame_ms, rel=0.02, abs=0.06)
    assert rates[0][3].endswith(" of 4")
    assert rates[0][4:] == [str(RATES[peer][2]) for peer in RATES]
    assert rates[1][3].endswith(" of 6")
    assert rates[1][4:] == ["", "", ""]


def test_the_table_for_a_gpu_shows_what_was_published_and_nothing_of_ours() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    lines = page[page.index("| requests a second | ours") :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2 : 2 + len(RATES["Nari"])]]
    for row, rate in zip(rows, RATES["Nari"], strict=True):
        assert row == [str(rate), "", "", "", *(str(RATES[peer].get(rate, "")) for peer in RATES)]


def test_a_listener_who_waits_is_late_by_as_much(custom_voice: Path) -> None:
    stream = Stream(1.0, tiny_engine(custom_voice).prepare(custom()), iter((1, 2)), 1)
    for now, frames in ((1.5, 1), (1.57, 2), (1.8, 1), (1.82, 1), (2.0, 1)):
        stream.receive(now, frames)
    # At 1.5 he begins and has 3 frames until 1.74; from 1.8 on, 2 until 1.96.
    assert stream.late_s == pytest.approx(0.06 + 0.04)
    assert (stream.first_s, stream.last_s, stream.frames) == (1.5, 2.0, 6)
