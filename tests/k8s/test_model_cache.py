"""The scripts of the model cache are run against a mirror of the hub on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k8s.render.__main__ import ROOT
from qwen_tts.checkpoint import resolve_checkpoint
from tests.k8s.charts import Combination, Object, Refused, at, items, mapping, of_kind, render, templates

HUB_ID = "someone/voice"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "speech_tokenizer/config.json": b"{ }"}
MODELS: Object = {"models": [{"name": "voice", "checkpoint": HUB_ID, "type": "base"}]}


@dataclass
class Mirror:
    url: str
    answers: dict[str, bytes]
    paths: list[str] = field(default_factory=list)


@contextmanager
def mirror() -> Iterator[Mirror]:
    """Serve one repository as the hub does. Record the path of every request."""
    listing = [
        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        for name, content in FILES.items()
    ]
    answers = {
        f"/api/models/{HUB_ID}/revision/main": json.dumps({"id": HUB_ID, "sha": COMMIT}).encode(),
        f"/api/models/{HUB_ID}/tree/{COMMIT}": json.dumps(listing).encode(),
        **{f"/{HUB_ID}/resolve/{COMMIT}/{name}": content for name, content in FILES.items()},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.paths.append(self.path)
            body = made.answers.get(self.path.partition("?")[0])
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body or b"").hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Mirror(f"http://127.0.0.1:{server.server_address[1]}", answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def rendered(helm: Path, **values: Object) -> tuple[Object, ...]:
    options = {"app": MODELS, "models": {"claim": {"enabled": True}}, "modelCache": {"enabled": True}, **values}
    return render(Combination(options=json.dumps(options)), helm)


def job_container(objects: tuple[Object, ...]) -> Object:
    (job,) = of_kind(objects, "Job")
    (container,) = items(job, "spec", "template", "spec", "containers")
    return container


def worker(objects: tuple[Object, ...]) -> Object:
    return mapping(templates(objects)["speech"], "spec")


def environment(container: Object) -> dict[str, str]:
    return {str(one["name"]): str(one.get("value")) for one in items(container, "env")}


def download(container: Object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the container's command with its variables, and with /models in `home`."""
    command = [*map(str, items(container, "command")), *map(str, items(container, "args"))]
    assert command[0] == "python"
    command[0] = sys.executable
    given = {**os.environ, **environment(container), "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)


def wait(container: Object, home: Path) -> subprocess.Popen[str]:
    """Start the init container, with a shorter pause."""
    command = [*map(str, items(container, "command")), *map(str, items(container, "args"))]
    assert "sleep 5" in command[2]
    command[2] = command[2].replace("sleep 5", "sleep 0.1")
    return subprocess.Popen(command, env={**os.environ, "HF_HOME": str(home)}, stdout=subprocess.PIPE, text=True)


def entries(directory: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in [directory, *directory.rglob("*")]}


def test_the_job_downloads_and_workers_then_only_read(
    helm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mirror() as hub:
        objects = rendered(helm, models={"claim": {"enabled": True}, "endpoint": hub.url})
        said = download(job_container(objects), tmp_path)
    assert said.returncode == 0, said.stderr
    assert any(path.endswith("model.safetensors") for path in hub.paths)
    before = entries(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    directory = resolve_checkpoint(HUB_ID)
    assert said.stdout == f"{HUB_ID} is in {directory}\n"
    assert {name: (directory / name).read_bytes() for name in FILES} == FILES
    with wait(items(worker(objects), "initContainers")[0], tmp_path) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.read() == "", "the marks of the Job are not those that workers wait for"
    assert entries(tmp_path) == before, "something was written that workers mount read-only"


def test_a_failed_download_is_not_marked_and_a_mark_is_believed(helm: Path, tmp_path: Path) -> None:
    with mirror() as hub:
        del hub.answers[f"/{HUB_ID}/resolve/{COMMIT}/model.safetensors"]
        container = job_container(rendered(helm, models={"claim": {"enabled": True}, "endpoint": hub.url}))
        assert download(container, tmp_path).returncode != 0
        mark = tmp_path / "complete" / HUB_ID.replace("/", "--")
        assert not mark.exists()
        mark.parent.mkdir()
        mark.write_text("/models/there\n", encoding="utf-8")
        asked = len(hub.paths)
        assert download(container, tmp_path).stdout == f"{HUB_ID} is in /models/there\n"
        assert len(hub.paths) == asked


def test_workers_wait_until_every_checkpoint_is_marked(helm: Path, tmp_path: Path) -> None:
    (init,) = items(worker(rendered(helm)), "initContainers")
    with wait(init, tmp_path) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith(f"waiting for {HUB_ID};")
        (tmp_path / "complete").mkdir()
        (tmp_path / "complete" / HUB_ID.replace("/", "--")).touch()
    assert waiting.returncode == 0


def test_the_claim_is_read_only_for_all_but_the_job(helm: Path) -> None:
    objects = rendered(helm)
    spec = worker(objects)
    for container in (*items(spec, "initContainers"), *items(spec, "containers")):
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in items(container, "volumeMounts")
    (job,) = of_kind(objects, "Job")
    assert {"name": "models", "mountPath": "/models"} in items(job_container(objects), "volumeMounts")
    (claimed,) = [one for one in items(job, "spec", "template", "spec", "volumes") if one["name"] == "models"]
    assert claimed in items(spec, "volumes")


def test_a_claim_that_is_full_already_needs_no_download(helm: Path) -> None:
    """For example, a claim from a snapshot that many nodes mount read-only."""
    filled = {"download": False, "claim": {"enabled": True, "existing": "filled"}}
    spec = worker(rendered(helm, models=filled, modelCache={"enabled": False}))
    assert "initContainers" not in spec
    (container,) = items(spec, "containers")
    assert environment(container)["HF_HUB_OFFLINE"] == "1"
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in items(container, "volumeMounts")


def test_a_changed_pod_is_another_job(helm: Path) -> None:
    """Kubernetes refuses changes of a Job's pod."""
    names = set()
    for values in ({}, {"image": {"tag": "2"}}, {"modelCache": {"enabled": True, "nodeSelector": {"a": "b"}}}):
        (job,) = of_kind(rendered(helm, **values), "Job")
        names.add(str(at(job, "metadata", "name")))
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


def test_the_embedded_models_need_no_job(helm: Path) -> None:
    assert of_kind(rendered(helm, app={}), "Job") == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"models": {"claim": {"enabled": False}}}, "models.claim.enabled and models.download"),
        ({"models": {"claim": {"enabled": True}, "download": False}}, "models.claim.enabled and models.download"),
        ({"models": {"claim": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}}, "ReadWriteMany"),
        ({"models": {"download": False}, "modelCache": {"enabled": False}}, "or name directories"),
    ],
)
def test_what_cannot_work_is_refused(helm: Path, values: dict[str, Object], named: str) -> None:
    with pytest.raises(Refused, match=named):
        rendered(helm, **values)
