"""The table says what was measured, and the limit it is held against is the model's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import _million_weights
from benchmarks.results import Measured, draw, table
from benchmarks.through_serve import _BARE, Spoken
from benchmarks.through_serve import _table as _served
from qwen_tts.config import read_model_config
from qwen_tts.layers import Block, sdpa
from qwen_tts.models.qwen3_tts import load_talker
from tests.unit.tiny import CPU, TINY


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
