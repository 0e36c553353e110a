"""Everything that the chart can render, in one file for linters: `python -m k8s.render.lint FILE`.

They do not know a RayService, so its pods stand in the file as Pods, with the labels that KubeRay gives them.
"""

import sys
from pathlib import Path

import yaml

from k8s.render.__main__ import NAMESPACE, ROOT, helm_template

EVERYTHING = ROOT / "tests" / "manifests" / "everything.yaml"


def lintable() -> list[dict[str, object]]:
    said = helm_template(("h100", "three-families"), "-f", str(EVERYTHING))
    if said.returncode != 0:
        raise SystemExit(said.stderr)
    found = []
    for one in filter(None, yaml.safe_load_all(said.stdout)):
        if one["kind"] != "RayService":
            found.append(one)
            continue
        cluster = one["spec"]["rayClusterConfig"]
        found.append(_pod("head", "head", cluster["headGroupSpec"]["template"]))
        found += [_pod(group["groupName"], "worker", group["template"]) for group in cluster["workerGroupSpecs"]]
    return found


def _pod(name: str, node_type: str, template: dict[str, dict[str, object]]) -> dict[str, object]:
    labels = template["metadata"]["labels"]
    assert isinstance(labels, dict)
    given = {"ray.io/is-ray-node": "yes", "ray.io/node-type": node_type}
    metadata = {"name": f"ray-{name}", "namespace": NAMESPACE, "labels": labels | given}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def main() -> None:
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump_all(lintable()), encoding="utf-8")


if __name__ == "__main__":
    main()
