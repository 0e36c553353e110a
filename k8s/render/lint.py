"""Everything that the chart can render, in one file for linters: `python -m k8s.render.lint FILE`.

Linters do not know RayServices. The file therefore contains the pods of a RayService as Pods, with KubeRay's labels.
"""

import sys
from pathlib import Path

import yaml

from k8s.render.__main__ import NAMESPACE, ROOT, helm_template

EVERYTHING = ROOT / "tests" / "k8s" / "everything.yaml"


def lintable() -> list[dict[str, object]]:
    """Return the rendered objects, with Pods in place of the RayService. Raises SystemExit with helm's message."""
    rendered = helm_template(("h100", "three-families"), "-f", str(EVERYTHING))
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


def _pod(name: str, node_type: str, template: dict[str, dict[str, object]]) -> dict[str, object]:
    labels = template["metadata"]["labels"]
    assert isinstance(labels, dict), f"the pods of group {name} have no labels"
    given = {"ray.io/is-ray-node": "yes", "ray.io/node-type": node_type}
    metadata = {"name": f"ray-{name}", "namespace": NAMESPACE, "labels": labels | given}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def main() -> None:
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump_all(lintable()), encoding="utf-8")


if __name__ == "__main__":
    main()
