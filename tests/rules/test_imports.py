"""The direction of dependencies, read from the sources of every package."""

import ast
from pathlib import Path

import pytest

from tests.rules.import_rules import NO_TORCH, ROOMS, faults, imports

ROOT = Path(__file__).parents[2]
PACKAGES = ("qwen_tts", "deployments", "loadtest")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SOURCES = {module_name(path): path.read_text(encoding="utf-8") for path in PATHS}


@pytest.mark.parametrize("module", SOURCES)
def test_module_keeps_the_rules(module: str) -> None:
    assert faults(module, SOURCES[module]) == []


def test_every_package_was_read() -> None:
    assert {
        "qwen_tts",
        "qwen_tts.codec.state",
        "deployments.settings",
        "deployments.commands.cluster.api",
        "loadtest.probe",
    } <= SOURCES.keys()


def test_the_rooms_have_no_circle() -> None:
    left = dict(ROOMS)
    while left:
        floor = {room for room, needs in left.items() if not needs & left.keys()}
        assert floor, f"a circle among {sorted(left)}"
        left = {room: needs for room, needs in left.items() if room not in floor}


def test_every_room_has_a_place_and_says_what_belongs_there() -> None:
    found = {path.name.removesuffix(".py") for path in (ROOT / "deployments").iterdir() if path.name[0] != "_"}
    assert found == set(ROOMS)
    for path in (ROOT / "deployments").rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} says nothing"


def imported_by_way_of(module: str) -> set[str]:
    """What importing `module` imports, through our own modules: their top-level statements, and so on."""
    found: set[str] = set()
    todo = [module]
    while todo:
        statements = ast.parse(SOURCES.get(todo.pop(), "")).body
        top_level = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
        new = imports("\n".join(map(ast.unparse, top_level))) - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize("module", [*NO_TORCH, "qwen_tts", "qwen_tts.audio", "deployments.ingress"])
def test_torch_stays_out_by_way_of_others_too(module: str) -> None:
    """The scheduler runs without torch, and a process at the HTTP edge starts without it."""
    assert "torch" not in imported_by_way_of(module)


def test_torch_is_found_by_way_of_others() -> None:
    assert "torch" in imported_by_way_of("deployments.replicas.talker")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("qwen_tts.config", "from qwen_tts.request import SpeechRequest"),
        ("qwen_tts.request", "from qwen_tts import prompt"),
        ("qwen_tts.codec.state", "import qwen_tts.models.talker"),
        ("qwen_tts.models.talker", "def f() -> None:\n    from qwen_tts.codec import carry"),
        ("qwen_tts.codec.state", "from qwen_tts.engine.engine import Engine"),
        ("qwen_tts.engine.runner", "from qwen_tts.api import Qwen3TTSModel"),
        ("qwen_tts.seeded", "from qwen_tts.engine import sampling"),
        ("qwen_tts.engine.scheduler", "import torch.nn"),
        ("qwen_tts.engine.sequence", "from torch import Tensor"),
        ("qwen_tts.api", "import ray"),
        ("qwen_tts.text", "from fastapi.responses import Response"),
        ("qwen_tts.config", "from pydantic import BaseModel"),
        ("qwen_tts.api", "from deployments.settings import AppArgs"),
        ("qwen_tts.checkpoint", "import pickle"),
        ("qwen_tts.checkpoint", "from torch import load"),
        ("qwen_tts.checkpoint", "import torch\nweights = torch.load('x', weights_only=True)"),
        ("qwen_tts.api", "import os\nhome = os.environ['HOME']"),
        ("deployments.app", "import os\nport = os.environ.get('PORT')"),
        ("deployments.app", "import os\nport = os.getenv('PORT')"),
        ("deployments.app", "from os import environ"),
        ("loadtest.probe", "from qwen_tts import api"),
        ("deployments.commands.cluster.commands", "from deployments.settings import AppArgs"),
        ("deployments.commands.cluster.api", "import torch"),
        ("deployments.errors", "from deployments.wire.messages import Usage"),
        ("deployments.replicas.talker", "from deployments.http.errors import error_response"),
        ("deployments.replicas.talker", "from deployments.protocols.sockets import Turns"),
        ("deployments.replicas.talker", "from deployments.speech.encoding import AudioOutput"),
        ("deployments.replicas.talker", "from deployments.voices.library import VoiceLibrary"),
        ("deployments.replicas.talker", "from fastapi import Request"),
        ("deployments.voices.library", "from deployments.speech.service import SpeechService"),
        ("deployments.speech.service", "from starlette.requests import Request"),
        ("deployments.voices.library", "from fastapi import Request"),
        ("deployments.speech.service", "from deployments.http.bodies import JSON"),
        ("deployments.http.gate", "from deployments.protocols.speaker import Speaker"),
        ("deployments.protocols.nari.socket", "from deployments.protocols.omni import socket"),
        ("deployments.protocols.sockets", "from deployments.protocols.openai.answers import Model"),
        ("deployments.speech.service", "import torch"),
        ("deployments.wire.streams", "from deployments.ingress import Ingress"),
        ("deployments.app", "import os\nthreads = os.cpu_count()"),
    ],
)
def test_a_breach_is_found(module: str, source: str) -> None:
    assert faults(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("deployments.commands.main", "import os\nos.environ.setdefault('A', 'b')\nos.environ['C'] = 'd'"),
        ("deployments.settings", "import os\nport = os.environ.get('PORT')"),
        ("deployments.app", "from qwen_tts.engine.engine import Engine\nimport ray"),
        ("deployments.replicas.talker", "import torch\nfrom deployments.wire.messages import FrameChunk"),
        ("deployments.protocols.nari.socket", "from deployments.protocols.sockets import Turns"),
        ("deployments.protocols.openai.batch", "from deployments.protocols.openai.bodies import Utterance"),
        ("deployments.ingress", "from deployments.protocols.omni import socket\nfrom fastapi import FastAPI"),
        ("qwen_tts.engine.engine", "from qwen_tts.models.talker import Talker\nfrom qwen_tts.engine import runner"),
        ("qwen_tts.prompt", "from qwen_tts.text import TextTokenizer"),
        ("qwen_tts.seeded", "from qwen_tts.codec.decoder import CodecDecoder"),
        ("qwen_tts.api", "import torch\ndevice = torch.device('cpu')"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert faults(module, source) == []
