"""Everything that the chart can render, in files for linters: `python -m k8s.render.lint DIRECTORY`.

There is one file for each combination of presets, one with every optional object, and one for a cluster without the
internet. Helm lints the same values first. Linters do not know RayServices, so a file contains the pods of a RayService
as Pods, with KubeRay's labels.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from k8s.render.__main__ import CACHE, CHART, NAMESPACE, ROOT, helm_template, preset
from k8s.render.binaries import find_program

# Presets that are passed after a preset of hardware, in this order; the second only after one with a GPU.
MODELS = ("one-model", "three-families")
REDUNDANT = "redundant"
EVERYTHING = ROOT / "tests" / "k8s" / "everything.yaml"
AIR_GAPPED = ROOT / "helm" / "examples" / "values-air-gapped.yaml"


def combinations() -> Iterator[tuple[str, ...]]:
    """Yield the names of presets that are used together."""
    yield ()
    names = {file.stem.removeprefix("values-") for file in CHART.glob("values-*.yaml")}
    for hardware in sorted(names - {*MODELS, REDUNDANT}):
        yield (hardware,)
        for models in MODELS:
            yield (hardware, models)
            if hardware != "cpu-demo":
                yield (hardware, models, REDUNDANT)


def files() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Yield the name and the objects of each file. Raises SystemExit with helm's message."""
    for presets in combinations():
        yield "-".join(presets) or "defaults", _lintable(presets)
    for values in (EVERYTHING, AIR_GAPPED):
        yield values.stem, _lintable(("h100", "three-families"), values)


def _lintable(presets: tuple[str, ...], *values: Path) -> list[dict[str, object]]:
    """Return the rendered objects, with Pods in place of the RayService."""
    _helm_lint([*map(preset, presets), *values])
    rendered = helm_template(presets, *(option for file in values for option in ("-f", str(file))))
    if rendered.returncode != 0:
        raise SystemExit(rendered.stderr)
    found = []
    for one in filter(None, yaml.safe_load_all(rendered.stdout)):
        if one["kind"] != "RayService":
            found.append(one)
            continue
        cluster = one["spec"]["rayClusterConfig"]
        found.append(_pod("head", "head", cluster["headGroupSpec"]["template"]))
        found += [_pod(group["groupName"], "worker", group["template"]) for group in cluster["workerGroupSpecs"]]
    kinds = {one["kind"] for one in found}
    assert "Pod" in kinds, "nothing of the RayService is in the file, so its pods would not be linted"
    return found


def _helm_lint(values: list[Path]) -> None:
    command = [str(find_program("helm", CACHE)), "lint", "--strict", "--quiet", str(CHART)]
    command += [option for file in values for option in ("-f", str(file))]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # helm
    if linted.returncode != 0:
        raise SystemExit(linted.stdout + linted.stderr)


def _pod(name: str, node_type: str, template: dict[str, dict[str, object]]) -> dict[str, object]:
    labels = template["metadata"]["labels"]
    assert isinstance(labels, dict), f"the pods of group {name} have no labels"
    given = {"ray.io/is-ray-node": "yes", "ray.io/node-type": node_type}
    metadata = {"name": f"ray-{name}", "namespace": NAMESPACE, "labels": labels | given}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, objects in files():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump_all(objects), encoding="utf-8")


if __name__ == "__main__":
    main()
