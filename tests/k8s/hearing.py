"""The script of `helm test`, run as in its pod."""

import os
import subprocess
import sys
from pathlib import Path

from tests.k8s.charts import Combination, at, items, of_kind, render

DEMO = Combination(("cpu-demo",))


def run_test_pod(helm: Path, url: str, seconds: str = "60", key: str = "") -> subprocess.CompletedProcess[str]:
    """Run the pod's script on the service at `url`, which replaces the address of the Service; return the result."""
    (pod,) = of_kind(render(DEMO, helm), "Pod")
    (container,) = items(pod, "spec", "containers")
    assert at(container, "command") == ["python", "-c"]
    script, address, _ = map(str, at(container, "args"))  # type: ignore[call-overload]
    assert address == f"http://{str(at(pod, 'metadata', 'name')).removesuffix('-test')}-serve-svc:8000"
    command = [sys.executable, "-W", "error", "-c", script, url, seconds]
    environment = {**os.environ, "QWEN_TTS_API_KEY": key}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
