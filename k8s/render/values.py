"""The types of the chart's values.yaml. They are strict: a misspelt or missing key is an error.

values.schema.json is generated from these classes and, for `app`, from the application's settings (schema.py). The
string below a field is its description, from which values.md and the comments of values.yaml are rendered
(values_page.py). The default of a value is in values.yaml. Only fields of pods and of list items have
defaults here, because Helm does not fill list items in.
"""

from typing import Annotated, Literal

from pydantic import Field

from deployments.settings import Settings
from k8s.render.outside_values import Dashboard, HttpRoute, Ingress, PodMonitor, PrometheusRule
from k8s.render.pod_values import Placement, Pod, Resources, WorkerGroup
from k8s.render.value_types import Fragment, Name, NoName, Percent, Port, Quantity, Seconds, Variables


class Image(Settings):
    repository: Annotated[str, Field(min_length=1)]
    """The name of the image, with its registry."""
    target: Literal["cpu", "cuda"]
    """Target of the Dockerfile."""
    # "latest" is refused: it is the newest build, so two pods of one cluster may run different images.
    tag: Annotated[
        str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", json_schema_extra={"not": {"const": "latest"}})
    ]
    """Default: `<appVersion>-<target>`."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
    """`sha256:...`; used instead of the tag."""
    pullPolicy: Literal["IfNotPresent", "Always", "Never"]
    """When nodes pull the image."""
    pullSecrets: list[Name]
    """Names of Secrets with the credentials of the registry."""


class GpuNodes(Settings):
    cluster: Annotated[str, Field(pattern=r"^[-a-z0-9]*$")]
    """A key of `labels`. Every group with a GPU selects these nodes. With "" it runs on any GPU, also on one that is
    too small."""
    labels: dict[str, Annotated[dict[str, str], Field(min_length=1)]]
    """Labels of the nodes that have the GPU, by kind of cluster. The presets contain them."""


class SecretKey(Settings):
    name: NoName
    """The name of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]
    """The key within the Secret."""


class Claim(Settings):
    enabled: bool
    """Use a PersistentVolumeClaim."""
    existing: NoName
    """The name of an existing claim to use. Without it, the chart makes one."""
    size: Quantity
    """The size of the chart's claim."""
    storageClassName: NoName
    """The storage class of the chart's claim. Default: that of the cluster."""
    accessModes: Annotated[list[Literal["ReadWriteOnce", "ReadWriteMany"]], Field(min_length=1)]
    """The access modes of the chart's claim. Pods on several nodes need ReadWriteMany."""


class Models(Settings):
    download: bool
    """Download the checkpoints before Ray starts on a worker: in every pod, or by the model cache. Ray's processes
    never download. With false, the claim already holds the checkpoints."""
    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")]
    """The address of a mirror of the hub (HF_ENDPOINT)."""
    tokenSecret: SecretKey
    """A Secret with the hub's token."""
    emptyDirSize: Quantity
    """Without a claim, the size of a pod's own copy. A pod that downloads requests it as ephemeral storage."""
    claim: Claim
    """Where checkpoints are kept. Without a claim, every pod downloads its own copy. Without the model cache, pods that
    start together download the same checkpoints at the same time."""


class ModelCache(Settings):
    enabled: bool
    """Use the Job. It needs models.claim."""
    nodeSelector: dict[str, str]
    """Labels of the nodes that may run the Job."""
    tolerations: list[Fragment]
    """Taints of nodes that the Job tolerates."""


class Voices(Settings):
    claim: Claim
    """Where stored voices are kept, if not in a bucket (`app.voices.url`)."""


class ApiKeys(Settings):
    secretName: NoName
    """The name of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]
    """The key of the file within the Secret."""


class ServiceAccount(Settings):
    annotations: dict[str, str]
    """Annotations that name the identity."""


class Head(Pod):
    resources: Resources
    """The resources of the head's pod."""


class Autoscaler(Settings):
    enabled: bool
    """Add and remove workers. Without it, every group has `minReplicas` pods."""
    idleTimeoutSeconds: Seconds
    """A worker without replicas is removed after this time."""
    resources: Resources
    """The resources of the sidecar."""


class Redis(Placement):
    """The Redis that the chart runs."""

    image: Annotated[str, Field(min_length=1)]
    """Valkey or another image with `valkey-server`."""
    size: Quantity
    """The size of its claim. Its data survives its pod. Kubernetes refuses a later change."""
    storageClassName: NoName
    """The storage class of its claim. Default: that of the cluster. Kubernetes refuses a later change."""


class GcsFaultTolerance(Settings):
    enabled: bool
    """Keep the state of the cluster in a Redis. Recommended for everything but a trial."""
    redisAddress: Annotated[str, Field(pattern=r"^((rediss?://)?[^:/]+:[0-9]+)?$")]
    """host:port of an external Redis, or rediss://host:port for TLS. Without it, the chart runs one."""
    passwordSecret: SecretKey
    """A Secret with the password of Redis, also of the chart's."""
    redis: Redis
    """The chart's Redis, which runs if there is no `redisAddress`."""


class Auth(Settings):
    enabled: bool
    """Demand the token."""
    secretName: NoName
    """The name of the Secret with the token. Without a name, KubeRay creates the Secret."""


class IncrementalUpgrade(Settings):
    gatewayClassName: Name
    """The class of KubeRay's Gateway."""
    stepSizePercent: Percent
    """The share of the traffic that moves in one step."""
    intervalSeconds: Seconds
    """The time between two steps."""
    maxSurgePercent: Percent
    """The part of the new cluster's replicas that may start at a time."""


class NewClusterFor(Settings):
    app: bool
    """Settings that are not live. KubeRay alone would replace their replicas in the running cluster."""
    scaling: bool
    """minReplicas, maxReplicas and tolerations. KubeRay alone would ignore them."""


class UpgradeStrategy(Settings):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]
    """NewCluster: all traffic moves when the new cluster is ready. NewClusterWithIncrementalUpgrade: traffic moves step
    by step; KubeRay creates the Gateway and the route, so ingress and httpRoute must be off. None: changes of the
    cluster are not rolled out."""
    newClusterFor: NewClusterFor
    """Changes that make a new cluster although KubeRay would make none."""
    incremental: IncrementalUpgrade
    """Options of NewClusterWithIncrementalUpgrade."""


class PodDisruptionBudget(Settings):
    enabled: bool
    """Make the budgets."""
    blockSinglePods: bool
    """Make budgets for single pods too. Their nodes then cannot be drained."""


class NetworkPolicy(Settings):
    enabled: bool
    """Make the policies."""
    serveFrom: list[Fragment]
    """Peers that may connect to the service; an empty list allows everyone."""
    metricsFrom: list[Fragment]
    """Peers that may read metrics; an empty list allows nobody."""
    operatorNamespaceSelector: Fragment
    """The namespaces of the KubeRay operator, which needs the dashboard."""
    egressPorts: list[Port]
    """Ports of other pods and outside the cluster: for the hub, object stores and reference recordings
    (allow_http_urls)."""
    egressExcept: list[str]
    """The instance metadata of cloud providers; remove the entry if credentials come from there."""
    apiServerPorts: Annotated[list[Port], Field(min_length=1)]
    """Ports of the Kubernetes API, for the autoscaler."""


class Test(Pod):
    apiKeySecret: SecretKey
    """A Secret with an API key."""


class Values(Settings):
    """All values except `app`."""

    image: Image
    """The image of all containers."""
    longestStreamSeconds: Annotated[int, Field(ge=10)]
    """Upgrades, drained nodes and removed replicas wait this long, in seconds, for streams to end; longer streams are
    cut. These times are derived from it: graceful_shutdown_s of every deployment, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    (longer), terminationGracePeriodSeconds and rayClusterDeletionDelaySeconds (longer still)."""
    startupSeconds: Annotated[int, Field(ge=60)]
    """A worker on which Ray does not answer within this time, in seconds, is restarted. `helm test` waits this long for
    models."""
    initializingTimeoutSeconds: Annotated[int, Field(ge=60)] | None = None
    """KubeRay gives up on an installation that is not ready after this time, and then ignores every later change: the
    RayService must be deleted. By default it never gives up."""
    gpuNodes: GpuNodes
    """The nodes that have the GPU of a preset."""
    rayServiceLabels: dict[str, str]
    """Labels of the RayService, which KubeRay copies to each cluster that it makes: kueue.x-k8s.io/queue-name, ... A
    change of them alone makes no new cluster."""
    workerGroups: Annotated[list[WorkerGroup], Field(min_length=1)]
    """Groups of pods that run replicas. values.md has all keys of a group."""
    models: Models
    """Checkpoints named by hub ids, in HF_HOME."""
    modelCache: ModelCache
    """A Job downloads the checkpoints to models.claim, once. Workers wait for it, and mount the claim read-only."""
    voices: Voices
    """The voice library. Without a claim or app.voices.url (s3://..., gs://...), stored voices are lost with their
    pod."""
    apiKeys: ApiKeys
    """A Secret with the file that `qwen-tts api-key create` writes. Without it, everyone who can reach the service may
    use it."""
    env: Variables
    """Environment of the workers (AWS_ENDPOINT_URL, ...). The chart sets Ray's drain time, HOME and the hub's
    variables."""
    envFromSecrets: list[Name]
    """Secrets whose keys become variables of the workers (AWS_ACCESS_KEY_ID, ...)."""
    serviceAccount: ServiceAccount
    """The service account of the workers, for identities of cloud providers. Its token is not mounted."""
    head: Head
    """The head, which runs no replica. Its annotations keep the Cluster Autoscaler and Karpenter from moving it."""
    autoscaler: Autoscaler
    """The autoscaler, a sidecar of the head, adds and removes workers."""
    topologyKeys: list[str]
    """Workers are spread over these domains if the scheduler has a choice."""
    gcsFaultTolerance: GcsFaultTolerance
    """With a Redis, a new head continues with its cluster. Without one, the loss of the head is the loss of the cluster
    (README.md)."""
    auth: Auth
    """Ray's token for its dashboard and its internal calls."""
    upgradeStrategy: UpgradeStrategy
    """How a change of pods is rolled out (README.md)."""
    podDisruptionBudget: PodDisruptionBudget
    """Budgets for groups of two pods or more."""
    networkPolicy: NetworkPolicy
    """Policies that close everything but the ports that are needed."""
    podMonitor: PodMonitor
    """A PodMonitor for the Prometheus operator. Prometheus must be in networkPolicy.metricsFrom."""
    prometheusRule: PrometheusRule
    """Alerts for the Prometheus operator (docs/alerts.md)."""
    dashboard: Dashboard
    """A ConfigMap with a dashboard for Grafana's sidecar."""
    httpRoute: HttpRoute
    """A route of the Gateway API, with what its Gateway needs so that streams are not cut (outside.md)."""
    ingress: Ingress
    """An Ingress, for controllers without the Gateway API. Most of them need annotations (outside.md)."""
    test: Test
    """`helm test` uses the key of this Secret, if the service requires a key."""
