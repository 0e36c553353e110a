"""The kinds of the Kubernetes API that `qwen-tts cluster` uses, and the URL paths of their objects."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Resource:
    """A kind as the server offers it: `plural` in `api_version`."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of one object, or without `name` of the collection."""
        assert namespace or not self.namespaced, f"the path of {self.kind} {name} lacks its namespace"
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        scope = f"/namespaces/{quote(namespace)}" if self.namespaced else ""
        return f"{root}{scope}/{self.plural}" + (f"/{quote(name)}" if name else "")


RAY_SERVICES = Resource("ray.io/v1", "RayService", "rayservices")
RAY_CLUSTERS = Resource("ray.io/v1", "RayCluster", "rayclusters")
NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False)
PODS = Resource("v1", "Pod", "pods")
JOBS = Resource("batch/v1", "Job", "jobs")
EVENTS = Resource("v1", "Event", "events")
SECRETS = Resource("v1", "Secret", "secrets")
