"""`make manifests`: what is made of the settings and the metrics for the chart and docs/, and k8s/ from the chart.

`python -m k8s.render` writes and names the files that differ. With `--check` it writes nothing, and fails if a file
differs.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from k8s.render.alerts import alerts_page, alerts_text
from k8s.render.binaries import find_program
from k8s.render.dashboard import dashboard_text
from k8s.render.live_settings import live_settings_text
from k8s.render.schema import values_schema_text
from k8s.render.settings_page import settings_page
from k8s.render.values_page import commented, values_page

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "qwen-tts"
VALUES = CHART / "values.yaml"
VALUES_PAGE = CHART / "values.md"
SCHEMA = CHART / "values.schema.json"
LIVE_SETTINGS = CHART / "files" / "live-settings.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
ALERTS = CHART / "files" / "alerts.yaml"
ALERTS_PAGE = ROOT / "docs" / "alerts.md"
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
CACHE = ROOT / ".cache" / "programs"

RELEASE, NAMESPACE = "qwen-tts", "qwen-tts"
# The files of k8s/, each with the presets it is rendered from.
PLAIN = {
    "cpu-demo.yaml": ("cpu-demo",),
    "l4-one-model.yaml": ("l4", "one-model"),
}

_HEADER = """\
# Made of helm/qwen-tts by `make manifests` from {presets}; change those, not this file.
# kubectl create namespace {namespace} && kubectl apply --server-side -f {name}
"""


def preset(name: str) -> Path:
    """Return the values file of a preset."""
    file = CHART / f"values-{name}.yaml"
    assert file.is_file(), f"the chart has no preset {name}"
    return file


def helm_template(
    presets: tuple[str, ...], *options: str, release: str = RELEASE, helm: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `helm template` on the chart with the presets in their order, and with further options."""
    program = helm or find_program("helm", CACHE)
    values = [option for name in presets for option in ("-f", str(preset(name)))]
    command = [str(program), "template", release, str(CHART), "--namespace", NAMESPACE, *values, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # helm, found above


def plain_manifests() -> Iterator[tuple[Path, str]]:
    """Yield the path and the content of every file of k8s/. Raises SystemExit with helm's message."""
    for name, presets in PLAIN.items():
        rendered = helm_template(presets, "--skip-tests")
        if rendered.returncode != 0:
            raise SystemExit(rendered.stderr)
        used = ", ".join(preset(one).name for one in presets)
        header = _HEADER.format(presets=used, namespace=NAMESPACE, name=f"k8s/{name}")
        yield ROOT / "k8s" / name, header + rendered.stdout


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    stale = []
    for path, text in _files():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{path} {'differs: run `make manifests`' if check else 'written'}")
    sys.exit(1 if check and stale else 0)


def _files() -> Iterator[tuple[Path, str]]:
    """Yield first what helm reads to render the other files."""
    values = commented(VALUES.read_text(encoding="utf-8"))
    yield VALUES, values
    yield VALUES_PAGE, values_page(values)
    yield SCHEMA, values_schema_text()
    yield LIVE_SETTINGS, live_settings_text()
    yield SETTINGS_PAGE, settings_page()
    yield DASHBOARD, dashboard_text()
    yield ALERTS, alerts_text()
    yield ALERTS_PAGE, alerts_page()
    yield from plain_manifests()


if __name__ == "__main__":
    main()
