"""A double of KubeRay's operator, of Serve and of the kubelets: it writes status, pods and events to the API server.

It writes the same objects as KubeRay 1.7 (controllers/ray/rayservice_controller.go), and makes new clusters by the same
rules. The test decides how a start goes.
"""

import asyncio
import copy
import random
from typing import Literal

from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.specifications import as_go_writes, without_muted
from tests.deployments.commands.cluster.starts import NO_DASHBOARD, POD_TROUBLE, Start, now, running, serve_status
from tests.deployments.commands.cluster.store import Refused

_WRITER = ("kuberay-operator", "Update", "")
_STATUS_WRITER = ("kuberay-operator", "Update", "status")
_FINALIZER = "ray.io/rayservice-finalizer"
_TIMEOUT = "ray.io/initializing-timeout"
_SERVES = (Start.WELL, Start.DEPLOYMENT_FAILS, Start.DEPLOYMENT_RECOVERS)
_STEP_S = 0.02
_GRACE = "kubelet/grace-period"  # a finalizer in the place of the kubelet, which removes a head after its grace period


class Operator:
    """A context manager that runs beside an ApiServer.

    start: how the next start goes; a test may change it at any time. stopped: the operator does nothing. replaces:
    whether it creates a new cluster for a changed specification.
    """

    def __init__(self, server: ApiServer, start: Start = Start.WELL) -> None:
        self.start = start
        self.stopped = False
        self.replaces = True
        self._server = server
        self.headless_s = 0  # how long clusters had no head, because the old one was given time to end
        self._settled_at = -1  # the store's version after which there was nothing to do
        self._made_from: dict[str, str] = {}  # cluster -> the specification it was made from

    def __enter__(self) -> "Operator":
        self._task = self._server.start_task(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        if self._task.done():  # the task never ends by itself, so it has failed: raise its exception
            self._task.result()
        self._task.cancel()

    def settled(self) -> int | None:
        """The store's version, if nothing is left to do about it."""
        version = self._server.store.version
        return version if version == self._settled_at else None

    async def _run(self) -> None:
        store, kind = self._server.store, self._server.kind("RayService")
        while True:
            before = store.version
            for service in [] if self.stopped else store.find(kind, ""):
                try:
                    await self._reconcile(service["metadata"]["namespace"], service["metadata"]["name"])
                except Refused as refused:
                    if refused.status != 404:  # 404: the object was deleted meanwhile
                        raise
            for cluster in [] if self.stopped else store.find(self._server.kind("RayCluster"), ""):
                await self._replace_head(cluster)
            if store.version == before:
                self._settled_at = before
            await store.next_change(0 if store.version > before else 0.2)

    async def _reconcile(self, namespace: str, name: str) -> None:
        service = self._get("RayService", namespace, name)
        metadata, status = service["metadata"], service.get("status", {})
        active, pending = (
            status.get(which, {}).get("rayClusterName") for which in ("activeServiceStatus", "pendingServiceStatus")
        )
        if "deletionTimestamp" in metadata:
            self._clear(service, [cluster for cluster in (active, pending) if cluster])
            self._write(service | {"metadata": metadata | {"finalizers": []}}, _WRITER)
            return
        if _FINALIZER not in metadata.get("finalizers", []):
            self._adopt(service)
            return
        reasons = [condition["reason"] for condition in status.get("conditions", [])]
        if "InitializingTimeout" in reasons or status.get("observedGeneration") == metadata["generation"]:
            return
        if self.start is Start.INVALID:
            if "ValidationFailed" not in reasons:
                self._condition(
                    service, "Ready", "False", "ValidationFailed", "The RayService spec is invalid: headGroupSpec"
                )
            return
        wanted = without_muted(service["spec"]["rayClusterConfig"])
        newest = pending or active
        replaces = self.replaces and service["spec"].get("upgradeStrategy", {}).get("type") != "None"
        if newest and (self._made_from[newest] == wanted or not replaces):
            await self._update_in_place(service, pending)
            return
        if pending:
            self._clear(service, [pending])
        await self._new_cluster(service, wanted, active)

    def _adopt(self, service: Json) -> None:
        """Add the finalizer with a plain update of the whole object."""
        cluster = service["spec"]["rayClusterConfig"]
        groups = [as_go_writes(group) for group in cluster.get("workerGroupSpecs", [])]
        spec = service["spec"] | {"rayClusterConfig": cluster | {"workerGroupSpecs": groups}}
        self._write(service | {"metadata": service["metadata"] | {"finalizers": [_FINALIZER]}, "spec": spec}, _WRITER)

    async def _update_in_place(self, service: Json, pending: str | None) -> None:
        """Send the Serve config to the newest cluster. Nothing of the RayCluster changes."""
        if pending:
            self._set_status(service, "pendingServiceStatus", service["status"]["pendingServiceStatus"])
            return
        for application in ("DEPLOYING", "RUNNING"):
            service = self._set_status(
                service, "activeServiceStatus", {"applicationStatuses": serve_status(application)}
            )
            await asyncio.sleep(_STEP_S)

    async def _new_cluster(self, service: Json, wanted: str, active: str | None) -> None:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        cluster = f"{name}-{random.randrange(16**5):05x}"
        self._made_from[cluster] = wanted
        service = self._set_status(service, "pendingServiceStatus", {"rayClusterName": cluster})
        if active is None:
            service = self._condition(service, "Ready", "False", "Initializing", "RayService is initializing")
        else:
            service = self._condition(
                service, "UpgradeInProgress", "True", "BothActivePendingClustersExist", "Both exist"
            )
        spec = copy.deepcopy(service["spec"]["rayClusterConfig"])
        self._make(
            {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": cluster}, "spec": spec}, namespace
        )
        await asyncio.sleep(_STEP_S)
        if self.start is Start.QUOTA:
            message = 'Failed to create head Pod: pods "h" is forbidden: exceeded quota: gpus, requested: 4, limited: 2'
            self._warn(namespace, "RayCluster", cluster, "FailedToCreateHeadPod", message)
            return
        self._make_pod(service, cluster, "headgroup", "head", spec["headGroupSpec"]["template"], 0)
        for group in spec.get("workerGroupSpecs", []):
            for index in range(group.get("replicas", 0)):
                self._make_pod(service, cluster, group["groupName"], "worker", group["template"], index)
        await asyncio.sleep(_STEP_S)
        if self.start in _SERVES:
            await self._serve(service, cluster, active)
        elif active is None and _TIMEOUT in service["metadata"].get("annotations", {}):
            self._give_up(service, cluster)

    def _give_up(self, service: Json, cluster: str) -> None:
        """For ever: KubeRay acts on no later change of this RayService."""
        service = self._set_status(service, "pendingServiceStatus", {})
        message = "RayService failed to become ready within the configured timeout of 1s"
        self._condition(service, "Ready", "False", "InitializingTimeout", message)
        self._clear(service, [cluster])

    async def _serve(self, service: Json, cluster: str, active: str | None) -> None:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        # The client of the operator waits for 2 s, and the first request to a new dashboard takes longer.
        self._warn(namespace, "RayService", name, "FailedToUpdateServeApplications", NO_DASHBOARD)
        for application in ("DEPLOYING", "DEPLOY_FAILED", "RUNNING"):
            if application == "DEPLOY_FAILED" and self.start is Start.WELL:
                continue
            part = {"rayClusterName": cluster, "applicationStatuses": serve_status(application)}
            service = self._set_status(service, "pendingServiceStatus", part)
            await asyncio.sleep(_STEP_S)
            if application == "DEPLOY_FAILED" and self.start is Start.DEPLOYMENT_FAILS:
                return
        ports = [{"name": "serve", "port": 8000}]
        with_owner = {"name": f"{name}-serve-svc", "ownerReferences": [{"kind": "RayService", "name": name}]}
        self._make({"apiVersion": "v1", "kind": "Service", "metadata": with_owner, "spec": {"ports": ports}}, namespace)
        running = {"rayClusterName": cluster, "applicationStatuses": serve_status("RUNNING")}
        service = self._set_status(service, "activeServiceStatus", running)
        service = self._set_status(service, "pendingServiceStatus", {})
        service = self._set_status(service, "numServeEndpoints", 2)
        service = self._condition(service, "UpgradeInProgress", "False", "NoPendingCluster", "No pending Ray cluster")
        service = self._condition(
            service, "Ready", "True", "NonZeroServeEndpoints", "Number of serve endpoints is above 0"
        )
        if active:
            self._clear(service, [active])

    def _make_pod(self, service: Json, cluster: str, group: str, node_type: str, template: Json, index: int) -> None:
        name = f"{cluster}-{group}-{index}"
        labels = {"ray.io/cluster": cluster, "ray.io/group": group, "ray.io/node-type": node_type}
        labels |= template.get("metadata", {}).get("labels", {})
        owner = [{"kind": "RayCluster", "name": cluster}]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "ownerReferences": owner}
            | ({"finalizers": [_GRACE]} if node_type == "head" else {}),
        }
        namespace = service["metadata"]["namespace"]
        pod = self._make(body | {"spec": template["spec"]}, namespace)
        container = template["spec"]["containers"][0]
        healthy = node_type == "head" or self.start not in POD_TROUBLE
        status = running(container) if healthy else POD_TROUBLE[self.start](container)
        self._server.logs[name, container["name"], False] = [f"ray start: {group} of {cluster}"]
        if not healthy and self.start is Start.CRASH:
            self._server.logs[name, container["name"], True] = ["loading ...", "ValueError: no such checkpoint"]
        if not healthy and self.start is Start.NO_SECRET:
            self._warn(namespace, "Pod", name, "FailedMount", 'MountVolume.SetUp failed: secret "keys" not found')
        self._write(pod | {"status": status}, _STATUS_WRITER)

    def _clear(self, service: Json, clusters: list[str]) -> None:
        namespace, store = service["metadata"]["namespace"], self._server.store
        for pod in store.find(self._server.kind("Pod"), namespace):
            if pod["metadata"].get("labels", {}).get("ray.io/cluster") in clusters:
                self._write(pod | {"metadata": pod["metadata"] | {"finalizers": []}}, _WRITER)
                store.delete(self._server.kind("Pod"), namespace, pod["metadata"]["name"])
        for cluster in clusters:
            store.delete(self._server.kind("RayCluster"), namespace, cluster)

    def _get(self, kind: str, namespace: str, name: str) -> Json:
        return copy.deepcopy(self._server.store.get(self._server.kind(kind), namespace, name))

    def _make(self, body: Json, namespace: str) -> Json:
        kind = self._server.kind(body["kind"])
        if kind.key(namespace, body["metadata"]["name"]) in self._server.store:
            return self._get(body["kind"], namespace, body["metadata"]["name"])
        return copy.deepcopy(self._server.store.create(kind, namespace, body, _WRITER, False, False))

    def _write(self, body: Json, writer: tuple[str, str, str]) -> Json:
        """Write the object, even if it has changed since it was read."""
        metadata = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
        kind = self._server.kind(body["kind"])
        now = self._server.store.replace(
            kind, metadata["namespace"], metadata["name"], body | {"metadata": metadata}, writer
        )
        return copy.deepcopy(now)

    async def _replace_head(self, cluster: Json) -> None:
        """Make a head where one has gone. A head counts until its grace period is over (raycluster_controller.go)."""
        namespace, name = cluster["metadata"]["namespace"], cluster["metadata"]["name"]
        selector = f"ray.io/cluster={name},ray.io/node-type=head"
        for head in self._server.store.find(self._server.kind("Pod"), namespace, selector):
            if "deletionTimestamp" in head["metadata"]:
                await asyncio.sleep(_STEP_S)
                self.headless_s += head["spec"]["terminationGracePeriodSeconds"]
                self._write(head | {"metadata": head["metadata"] | {"finalizers": []}}, _WRITER)
                template = cluster["spec"]["headGroupSpec"]["template"]
                self._make_pod(cluster, name, "headgroup", "head", template, 0)

    def _set_status(self, service: Json, field: str, value: object) -> Json:
        """Write the status with one field replaced (merged, if it is the active cluster's), and the generation."""
        generation = service["metadata"]["generation"]
        newest = self._get("RayService", service["metadata"]["namespace"], service["metadata"]["name"])
        status = newest.get("status", {})
        if field == "activeServiceStatus" and isinstance(value, dict):
            value = status.get(field, {}) | value
        written = self._write(
            newest | {"status": status | {field: value, "observedGeneration": generation}}, _STATUS_WRITER
        )
        written["metadata"]["generation"] = generation
        return written

    def _condition(self, service: Json, kind: str, value: Literal["True", "False"], reason: str, message: str) -> Json:
        status = service.get("status", {})
        others = [condition for condition in status.get("conditions", []) if condition["type"] != kind]
        new = {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": now()}
        return self._write(service | {"status": status | {"conditions": [*others, new]}}, _STATUS_WRITER)

    def _warn(self, namespace: str, kind: str, name: str, reason: str, message: str) -> None:
        """Create a warning as the events.k8s.io API shows it in core/v1: without lastTimestamp."""
        body: Json = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{name}.{reason.lower()}"}}
        body |= {"type": "Warning", "reason": reason, "message": message, "eventTime": now(), "lastTimestamp": None}
        self._make(body | {"involvedObject": {"kind": kind, "name": name}}, namespace)
