"""The reasons why a RayService is not ready, each with advice: from its status, its pods and the warnings about them.

Every cause is derived from one Snapshot. Whether a cause lasts is decided in waiting.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.errors import ClusterError
from deployments.commands.cluster.helm import release_name
from deployments.commands.cluster.objects import ContainerStatus, Event, Pod
from deployments.commands.cluster.rayservice import CLUSTER, HEAD, Snapshot, group_of, is_ready, last_seen

_IMAGE = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_RESTARTS = 3  # a container with this many restarts counts as crashing, even while it runs again
_LOG_LINES = 15
# Older warnings are ignored. A lasting failure repeats its warning: kubelets every two minutes, the operator more often
# at first. A warning that came once (for example, the dashboard was not up yet) expires before a wait gives up on it.
_EVENT_AGE = timedelta(minutes=3)
_HEAD_STARTS = timedelta(minutes=1)
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
# Part of Ray Serve's message about replicas that fit on no node (serve/_private/deployment_state.py, Ray 2.60).
_NO_ROOM = "to be scheduled"

_FIND_OPERATOR = "kubectl get pods --all-namespaces -l app.kubernetes.io/name=kuberay-operator"


@dataclass(frozen=True)
class Cause:
    """One reason. key: equal for the same trouble in later snapshots; log: (pod, container) whose last lines help."""

    key: str
    text: str
    advice: str = ""
    log: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        assert self.key, f"without a key, the age of a cause cannot be counted: {self.text}"
        assert self.text, f"the cause {self.key} has no text"

    def __str__(self) -> str:
        return self.text + (f"\n  {self.advice}" if self.advice else "")


def diagnose(snapshot: Snapshot, now: datetime) -> list[Cause]:
    """Return all causes, the most specific first. Pods of one group with the same trouble give one cause.

    now: a time with its time zone.
    """
    assert now.tzinfo is not None, "a time without a zone cannot be compared with the times of events"
    warnings = [
        event
        for event in snapshot.warnings
        if now - datetime.fromisoformat(last_seen(event)) < _EVENT_AGE and not _is_first_request(snapshot, event)
    ]
    found: dict[str, Cause] = {}
    for cause in (
        *_of_service(snapshot),
        *_of_pods(snapshot, warnings),
        *_of_job(snapshot),
        *_of_serve(snapshot),
        *_of_warnings(snapshot, warnings),
    ):
        found.setdefault(cause.key, cause)
    return list(found.values())


def explain(api: Api, causes: list[Cause]) -> str:
    """Return the causes as text, each with the last lines of its log if it has one."""
    parts = []
    for cause in causes:
        lines = _last_words(api, *cause.log) if cause.log else []
        parts.append("\n".join([f"- {cause}", *(f"  | {line}" for line in lines)]))
    return "\n".join(parts)


def _last_words(api: Api, pod: str, container: str) -> list[str]:
    """Return the last log lines of the container's previous run, or of the present run if there is no previous one."""
    for previous in (True, False):
        try:
            return list(api.pod_log(pod, container, _LOG_LINES, previous=previous))
        except ClusterError:  # there is no such log, or the pod has been replaced meanwhile
            continue
    return []


def _of_service(snapshot: Snapshot) -> Iterator[Cause]:
    ready = snapshot.condition("Ready")
    if snapshot.service["metadata"].get("deletionTimestamp"):
        yield Cause("deleted", "The RayService is being deleted.")
    elif snapshot.service.get("spec", {}).get("suspend"):
        yield Cause(
            "suspended", "The RayService is suspended (spec.suspend is true).", "Set spec.suspend to false and apply."
        )
    elif ready.get("reason") == "ValidationFailed":
        yield Cause("invalid", f"KubeRay refuses the RayService: {ready['message']}")
    elif ready.get("reason") == "InitializingTimeout":
        again = _again(snapshot, f"rayservice {snapshot.name}")
        yield Cause(
            "gave up",
            f"KubeRay has given up on the RayService: {ready['message']}",
            f"It acts on no later change. Correct the cause, and make the RayService again:\n  {again}",
        )
    elif not snapshot.is_observed:
        generation = snapshot.service["metadata"]["generation"]
        seen = snapshot.status.get("observedGeneration", 0)
        yield Cause(
            "operator",
            f"The KubeRay operator has not acted on the RayService yet "
            f"(generation {generation}, last seen {seen or 'none'}).",
            f"Check that the operator runs and watches this namespace: {_FIND_OPERATOR}",
        )


def _again(snapshot: Snapshot, named: str) -> str:
    """Return the command that deletes the object of this kind and name and makes it again."""
    namespace = snapshot.service["metadata"]["namespace"]
    release = release_name(snapshot.service)
    made = f"helm upgrade {release} helm/qwen-tts --namespace {namespace} --reset-then-reuse-values"
    applied = f"qwen-tts cluster apply FILE --namespace {namespace}"
    return f"kubectl --namespace {namespace} delete {named} && {made if release else applied}"


def _of_pods(snapshot: Snapshot, warnings: list[Event]) -> Iterator[Cause]:
    for pod in [*snapshot.pods, *snapshot.downloads]:
        if pod["metadata"].get("deletionTimestamp"):  # Kubernetes is deleting the pod, so its end is no failure
            continue
        causes = [*_scheduling(snapshot, pod), *_containers(pod)]
        status = pod.get("status", {})
        if not causes and status.get("phase") == "Failed" and status.get("reason"):
            text = f"{_title(pod)} failed: {status['reason']}: {status.get('message', '')}"
            causes.append(Cause(f"failed {group_of(pod)}", text))
        if not causes and status.get("phase") == "Pending":
            named = [e for e in warnings if e["involvedObject"].get("name") == pod["metadata"]["name"]]
            causes += [_warning(event, _title(pod), group_of(pod)) for event in named[-1:]]
        yield from causes


def _of_job(snapshot: Snapshot) -> Iterator[Cause]:
    """Yield the failure of the Job for whose checkpoints the workers wait."""
    if snapshot.job is None or snapshot.is_ready:
        return
    named = f"job {snapshot.job['metadata']['name']}"
    for condition in snapshot.job.get("status", {}).get("conditions") or []:
        if condition["type"] == "Failed" and condition["status"] == "True":
            yield Cause(
                named,
                f"The {named}, which downloads the models, has failed: {condition.get('message', '')}",
                f"It is not tried again. Correct the cause, and make it again:\n  {_again(snapshot, named)}",
            )


def _scheduling(snapshot: Snapshot, pod: Pod) -> Iterator[Cause]:
    conditions = pod.get("status", {}).get("conditions") or []
    blocked = next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)
    if blocked is None or blocked.get("reason") != "Unschedulable":
        return
    message = blocked.get("message", "")
    advice: list[str] = []
    if "nvidia.com/gpu" in message and "Insufficient" in message:
        advice.append(
            "No node has a GPU free for this pod: add GPU nodes, or request fewer replicas. (A node offers "
            "nvidia.com/gpu only if NVIDIA's device plugin runs on it: kubectl describe nodes.)"
        )
        if snapshot.active and pod["metadata"].get("labels", {}).get("ray.io/cluster") == snapshot.pending:
            advice.append(
                "The new cluster runs beside the old one until traffic moves, so the service needs its GPUs twice."
            )
    if taints := sorted(set(re.findall(r"untolerated taint(?:\(s\))? \{([^}]*)\}", message))):
        advice.append(
            f"Give the group a toleration for the taint {', '.join(taints)}, or other nodes. Only a new cluster gets a "
            "toleration: `helm upgrade` of the chart makes one; after `apply`, run `qwen-tts cluster rollout`."
        )
    if "persistentvolumeclaim" in message.lower():
        volumes = pod.get("spec", {}).get("volumes") or []
        claims = sorted(claim for v in volumes if (claim := v.get("persistentVolumeClaim", {}).get("claimName")))
        advice.append(f"Find out why the claim is not bound: kubectl describe pvc {' '.join(claims)}")
    yield Cause(f"unschedulable {group_of(pod)}", f"{_title(pod)} fits on no node: {message}", "\n  ".join(advice))


def _containers(pod: Pod) -> Iterator[Cause]:
    status = pod.get("status", {})
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        name = container["name"]
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "no message")
        if reason in _IMAGE:
            yield Cause(
                f"image {group_of(pod)} {name}",
                f"{_title(pod)} cannot get the image {container.get('image')} ({reason}): {message}",
                "Check the image's name and tag, and imagePullSecrets if its registry needs credentials.",
            )
        elif reason in _CONFIG:
            text = f"{_title(pod)} cannot start its container {name} ({reason}): {message}"
            yield Cause(f"start {group_of(pod)} {name}", text)
        elif ended := _crash(container, is_ready(pod)):
            text = f"{_title(pod)}: its container {name} {ended}"
            yield Cause(f"crash {group_of(pod)} {name}", text, log=(pod["metadata"]["name"], name))


def _crash(container: ContainerStatus, pod_is_ready: bool) -> str | None:
    """Return how the container ended, or None if it does not keep crashing."""
    state, restarts = container.get("state", {}), container.get("restartCount", 0)
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
    failed_now = bool(state.get("terminated")) and ended.get("exitCode") != 0
    looping = state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
    if not (failed_now or looping or (restarts >= _RESTARTS and not pod_is_ready)):
        return None
    cause = " because it ran out of memory" if ended.get("reason") == "OOMKilled" else ""
    return (
        f"ended with exit code {ended.get('exitCode', 'unknown')}{cause}, restarted {restarts} times; its last lines:"
    )


def _of_serve(snapshot: Snapshot) -> Iterator[Cause]:
    for name, application in snapshot.applications.items():
        reported = False
        for deployment, state in (application.get("serveDeploymentStatuses") or {}).items():
            status, message = state.get("status"), state.get("message", "")
            no_room = status == "UPDATING" and _NO_ROOM in message and _has_its_nodes(snapshot)
            if status in _FAILED or no_room:
                reported = True
                yield Cause(f"deployment {name} {deployment}", f"Deployment {deployment} is {status}: {message}")
        if application.get("status") in _FAILED and not reported:
            text = f"Application {name} is {application['status']}: {application.get('message') or 'no message'}"
            yield Cause(f"application {name}", text)


def _has_its_nodes(snapshot: Snapshot) -> bool:
    """Return whether all desired pods run. If they do, waiting for pods will not make room for more replicas."""
    desired = sum(group.desired or 0 for group in snapshot.groups)
    return len(snapshot.pods) >= desired and all(p.get("status", {}).get("phase") == "Running" for p in snapshot.pods)


def _of_warnings(snapshot: Snapshot, warnings: list[Event]) -> Iterator[Cause]:
    """Yield what the operator could not do, because of quotas, admission webhooks or pod security, for example."""
    for event in [] if snapshot.is_ready else reversed(warnings):
        kind = event["involvedObject"].get("kind", "")
        if kind in ("RayService", "RayCluster"):
            yield _warning(event, f"{kind} {event['involvedObject'].get('name')}", kind)


def _is_first_request(snapshot: Snapshot, event: Event) -> bool:
    """Return whether the operator only did not wait long enough for a new dashboard, as at every start."""
    if event.get("reason") != "FailedToUpdateServeApplications" or "deadline exceeded" not in event.get("message", ""):
        return False
    newest = snapshot.pending or snapshot.active
    heads = [p for p in snapshot.pods if group_of(p) == HEAD and p["metadata"]["labels"].get(CLUSTER) == newest]
    states = [c.get("state", {}) for head in heads for c in head.get("status", {}).get("containerStatuses") or []]
    started = [state["running"]["startedAt"] for state in states if "startedAt" in state.get("running", {})]
    seen = datetime.fromisoformat(last_seen(event))
    return all(seen - datetime.fromisoformat(start) < _HEAD_STARTS for start in started)


def _warning(event: Event, of: str, key: str) -> Cause:
    return Cause(f"{event.get('reason')} {key}", f"{of}: {event.get('reason')}: {event.get('message', '')}")


def _title(pod: Pod) -> str:
    return f"Pod {pod['metadata']['name']} (group {group_of(pod)})"
