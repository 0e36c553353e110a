"""The types of the chart's values.yaml. They are strict: a misspelt or missing key is an error.

values.schema.json is generated from these classes and, for `app`, from the application's settings (schema.py). The
default of a value is in values.yaml. Only fields of list items have defaults here, because Helm does not fill them in.
"""

from typing import Annotated, Literal

from pydantic import Field

from deployments.settings import PositiveInt, Settings

# Parts of Kubernetes objects. The API server checks them.
Fragment = dict[str, object]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
NoName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Percent = Annotated[int, Field(ge=1, le=100)]
Seconds = PositiveInt
Count = Annotated[int, Field(ge=0)]


class Image(Settings):
    repository: Annotated[str, Field(min_length=1)]
    target: Literal["cpu", "cuda"]
    # "latest" is refused: it is the newest build, so two pods of one cluster may run different images.
    tag: Annotated[
        str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", json_schema_extra={"not": {"const": "latest"}})
    ]
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
    pullPolicy: Literal["IfNotPresent", "Always", "Never"]
    pullSecrets: list[Name]


class Amounts(Settings):
    """The resources of one pod."""

    cpu: Quantity
    memory: Quantity
    gpu: Annotated[Quantity | None, Field(alias="nvidia.com/gpu")] = None


class Resources(Settings):
    requests: Amounts
    limits: Amounts


class GpuNodes(Settings):
    cluster: Annotated[str, Field(pattern=r"^[-a-z0-9]*$")]
    labels: dict[str, Annotated[dict[str, str], Field(min_length=1)]]


class WorkerGroup(Settings):
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
    minReplicas: Count
    maxReplicas: PositiveInt
    resources: Resources
    rayResources: dict[str, Quantity] = Field({})
    mps: bool = False
    withoutModels: bool = False
    nodeSelector: dict[str, str] = Field({})
    tolerations: list[Fragment] = Field([])


class SecretKey(Settings):
    name: NoName
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]


class Claim(Settings):
    enabled: bool
    existing: NoName
    size: Quantity
    storageClassName: NoName
    accessModes: Annotated[list[Literal["ReadWriteOnce", "ReadWriteMany"]], Field(min_length=1)]


class Models(Settings):
    download: bool
    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")]
    tokenSecret: SecretKey
    claim: Claim


class ModelCache(Settings):
    enabled: bool
    nodeSelector: dict[str, str]
    tolerations: list[Fragment]


class Voices(Settings):
    claim: Claim


class ApiKeys(Settings):
    secretName: NoName
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]


class ServiceAccount(Settings):
    annotations: dict[str, str]


class Head(Settings):
    resources: Resources
    nodeSelector: dict[str, str]
    tolerations: list[Fragment]


class Autoscaler(Settings):
    idleTimeoutSeconds: Seconds
    resources: Resources


class GcsFaultTolerance(Settings):
    redisAddress: Annotated[str, Field(pattern=r"^((rediss?://)?[^:/]+:[0-9]+)?$")]
    passwordSecret: SecretKey


class Auth(Settings):
    enabled: bool
    secretName: NoName


class IncrementalUpgrade(Settings):
    gatewayClassName: Name
    stepSizePercent: Percent
    intervalSeconds: Seconds
    maxSurgePercent: Percent


class UpgradeStrategy(Settings):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]
    incremental: IncrementalUpgrade


class PodDisruptionBudget(Settings):
    enabled: bool


class NetworkPolicy(Settings):
    enabled: bool
    serveFrom: list[Fragment]
    metricsFrom: list[Fragment]
    operatorNamespaceSelector: Fragment
    egressPorts: list[Port]
    egressExcept: list[str]
    apiServerPorts: Annotated[list[Port], Field(min_length=1)]


class PodMonitor(Settings):
    enabled: bool
    labels: dict[str, str]
    interval: Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m)$")]


class Dashboard(Settings):
    enabled: bool
    labels: dict[str, str]


class Ingress(Settings):
    enabled: bool
    className: Name
    host: Name
    tlsSecretName: NoName
    annotations: dict[str, str]


class HttpRoute(Settings):
    enabled: bool
    parentRefs: list[Fragment]
    hostnames: list[Name]


class Test(Settings):
    apiKeySecret: SecretKey


class Values(Settings):
    """All values except `app`."""

    image: Image
    longestStreamSeconds: Annotated[int, Field(ge=10)]
    startupSeconds: Annotated[int, Field(ge=60)]
    gpuNodes: GpuNodes
    workerGroups: Annotated[list[WorkerGroup], Field(min_length=1)]
    models: Models
    modelCache: ModelCache
    voices: Voices
    apiKeys: ApiKeys
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]
    envFromSecrets: list[Name]
    serviceAccount: ServiceAccount
    head: Head
    autoscaler: Autoscaler
    topologyKeys: list[str]
    gcsFaultTolerance: GcsFaultTolerance
    auth: Auth
    upgradeStrategy: UpgradeStrategy
    podDisruptionBudget: PodDisruptionBudget
    networkPolicy: NetworkPolicy
    podMonitor: PodMonitor
    dashboard: Dashboard
    ingress: Ingress
    httpRoute: HttpRoute
    test: Test
