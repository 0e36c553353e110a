"""Checks of the Dockerfile's text, because Docker is not available here. The chart's README lists other checks."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

from k8s.render.__main__ import ROOT
from tests.k8s.charts import Combination, at, pods, render

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = {name: body for _, name, body in re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM|\Z)", TEXT, re.M | re.S)}


def test_hadolint_finds_nothing() -> None:
    said = subprocess.run(
        [str(Path(sys.executable).parent / "hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stdout


def test_bases_are_versions_or_stages() -> None:
    assert set(STAGES) == {"base", "wheel", "cpu", "cuda"}
    bases = re.findall(r"^FROM (\S+) AS", TEXT, re.M)
    outside = [base for base in bases if base not in STAGES]
    assert outside
    for base in outside:
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+[-a-z0-9]*", base), base


def test_targets_run_as_the_user_of_the_chart(helm: Path) -> None:
    (user,) = {at(pod, "securityContext", "runAsUser") for pod in pods(render(Combination(), helm))}
    for target in ("cpu", "cuda"):
        assert re.findall(r"^USER (\S+)$", STAGES[target], re.M) == [f"{user}:{user}"]
    assert f"useradd --uid {user} " in STAGES["base"]


def test_probes_and_compilers_find_their_programs() -> None:
    (installed,) = re.findall(r"apt-get install .*?recommends (.*?) \\\n", STAGES["base"])
    assert set(installed.split()) == {"bash", "g++", "wget"}


def test_the_driver_is_found_where_gke_puts_it() -> None:
    """GKE's device plugin mounts the driver's files, and no runtime tells the dynamic linker about them."""
    (variables,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", STAGES["cuda"], re.M)
    given = dict(one.split("=", 1) for one in variables.replace("\\", "").split())
    assert set(given["LD_LIBRARY_PATH"].split(":")) == {"/usr/local/nvidia/lib", "/usr/local/nvidia/lib64"}
    assert given["PATH"] == "/usr/local/nvidia/bin:$PATH"


def test_what_is_copied_is_there_and_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = [line for line in lines if line and not line.startswith(("#", "!"))]
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {path for line in re.findall(r"^COPY (.*) \S+$", TEXT, re.M) for path in line.split()}
    assert copied == kept
    for path in copied:
        assert (ROOT / path).exists(), path
    assert any(fnmatch(".venv", pattern) for pattern in ignored), "what is not named stays out"


def test_the_torch_is_that_of_the_tests() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (tested,) = set(re.findall(r"torch==([\d.]+)", makefile))
    assert set(re.findall(r"torch==([\d.]+)", TEXT)) == {tested}


def test_tags_that_it_names_are_those_of_the_chart(helm: Path) -> None:
    built = set(re.findall(r"-t (\S+) \.$", TEXT, re.M))
    presets = (Combination(("cpu-demo",)), Combination(("l4",)))
    assert built == {str(at(pod, "containers", 0, "image")) for one in presets for pod in pods(render(one, helm))}
