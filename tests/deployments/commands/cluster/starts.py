"""The possible starts of a cluster, with the reports of Serve and the kubelets."""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum

from tests.deployments.commands.cluster.fields import Json

DEPLOYMENTS = ("Talker", "CodecDecoder")
BROKEN = "The deployment failed to start 3 times in a row: RuntimeError: CUDA out of memory"
NO_GPU = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: present}, 2 Insufficient nvidia.com/gpu."
)
NO_CLAIM = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
NO_DASHBOARD = (
    'Failed to update serve applications to the RayCluster: Put "http://head:8265/api/serve/applications/": '
    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
)
NO_IMAGE = 'Back-off pulling image "registry.example/qwen-tts:0.1": ErrImagePull: not found'


class Start(Enum):
    """The start of the next cluster."""

    WELL = "well"
    IMAGE_MISSING = "image missing"
    NO_GPU = "no GPU"
    NO_CLAIM = "claim not bound"
    CRASH = "crash"
    NO_SECRET = "secret missing"
    DEPLOYMENT_FAILS = "deployment fails"
    DEPLOYMENT_RECOVERS = "deployment fails, then is healthy"
    QUOTA = "quota exceeded"
    INVALID = "refused by the operator"


def serve_status(application: str) -> Json:
    """Return the status of one application. If it fails, one of its deployments has failed."""
    state = {"RUNNING": "HEALTHY", "DEPLOYING": "UPDATING", "DEPLOY_FAILED": "HEALTHY"}[application]
    deployments = {name: {"status": state} for name in DEPLOYMENTS}
    if application == "DEPLOY_FAILED":
        deployments["Talker"] = {"status": "DEPLOY_FAILED", "message": BROKEN}
    return {"qwen-tts": {"status": application, "serveDeploymentStatuses": deployments}}


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def running(container: Json) -> Json:
    ready = {"type": "Ready", "status": "True"}
    running = {"name": container["name"], "image": container["image"], "restartCount": 0}
    running["state"] = {"running": {"startedAt": now()}}
    return {"phase": "Running", "conditions": [ready], "containerStatuses": [running]}


def _waiting(container: Json, reason: str, message: str, **more: object) -> Json:
    state = {"waiting": {"reason": reason, "message": message}}
    of = {"name": container["name"], "image": container["image"], "restartCount": 0, "state": state} | more
    return {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [of]}


def _unschedulable(message: str) -> Json:
    blocked = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [blocked]}


POD_TROUBLE: dict[Start, Callable[[Json], Json]] = {
    Start.IMAGE_MISSING: lambda container: _waiting(container, "ImagePullBackOff", NO_IMAGE),
    Start.NO_GPU: lambda container: _unschedulable(NO_GPU),
    Start.NO_CLAIM: lambda container: _unschedulable(NO_CLAIM),
    Start.NO_SECRET: lambda container: _waiting(container, "ContainerCreating", ""),
    Start.CRASH: lambda container: _waiting(
        container,
        "CrashLoopBackOff",
        "back-off 40s restarting failed container",
        restartCount=4,
        lastState={"terminated": {"exitCode": 1, "reason": "Error"}},
    ),
}
