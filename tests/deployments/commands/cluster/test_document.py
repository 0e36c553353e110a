"""The commands of docs/cluster.md are run in their order, and must print what the page shows."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.conftest import Run
from tests.deployments.commands.cluster.manifests import ray_service, settings, text_of
from tests.deployments.commands.cluster.operator import Operator
from tests.deployments.commands.cluster.starts import Start

DOCUMENT = Path(__file__).parents[4] / "docs" / "cluster.md"
PARTS = re.compile(r"^<!-- from here on: (\w+) -->$|^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRESS = re.compile(r"^qwen-tts: (no )?cluster .*\n", re.MULTILINE)


def test_every_command_says_what_the_document_says(
    run: Run, server: ApiServer, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("service.yaml").write_text(text_of(ray_service(), settings()), encoding="utf-8")
    Path("changed.yaml").write_text(text_of(settings(text="other")), encoding="utf-8")
    told = 0
    for start, block in PARTS.findall(DOCUMENT.read_text(encoding="utf-8")):
        if start:
            operator.start = Start[start]
        for command, expected in re.findall(r"^\$ qwen-tts cluster (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            if "changed.yaml" in command:
                server.replace(settings(text="edited"), "kubectl-edit")
            said = PROGRESS.sub("", run(*shlex.split(command)).output)
            same = doctest.OutputChecker().check_output(expected.rstrip() + "\n", said, doctest.ELLIPSIS)
            assert same, f"{command}\n--- says\n{said}--- instead of\n{expected}"
            told += 1
    assert told == 6
