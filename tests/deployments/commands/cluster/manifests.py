"""A service as KubeRay wants it, small."""

import yaml

from tests.deployments.commands.cluster.fields import Json

LABELS = {
    "app.kubernetes.io/name": "qwen-tts",
    "app.kubernetes.io/instance": "speech",
    "app.kubernetes.io/component": "x",
}

SERVE_CONFIG = """\
proxy_location: EveryNode
applications:
  - name: qwen-tts
    route_prefix: /
    import_path: deployments.app:build_app
"""


def ray_service(
    name: str = "qwen-tts", replicas: int = 2, image: str = "registry.example/qwen-tts:0.1", most: int = 4
) -> Json:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name, "labels": dict(LABELS)},
        "spec": {
            "serveConfigV2": SERVE_CONFIG,
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": "2.60.0",
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": _template("ray-head", image)},
                "workerGroupSpecs": [
                    {
                        "groupName": "talker",
                        "replicas": replicas,
                        "minReplicas": 1,
                        "maxReplicas": most,
                        "scaleStrategy": {},
                        "rayStartParams": {},
                        "template": _template("ray-worker", image, {"nvidia.com/gpu": "1"}),
                    }
                ],
            },
        },
    }


def settings(name: str = "qwen-tts-settings", text: str = "a") -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": dict(LABELS)},
        "data": {"settings.yaml": text},
    }


def namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def text_of(*objects: Json) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False)


def _template(container: str, image: str, limits: Json | None = None) -> Json:
    running = {"name": container, "image": image, "resources": {"limits": limits or {"cpu": "1"}}}
    volumes = [{"name": "voices", "persistentVolumeClaim": {"claimName": "voices"}}]
    return {"metadata": {"labels": dict(LABELS)}, "spec": {"containers": [running], "volumes": volumes}}
