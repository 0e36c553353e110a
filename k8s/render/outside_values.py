"""The values of routes from outside, and of monitoring."""

from typing import Annotated, Literal

from pydantic import Field

from deployments.settings import PositiveInt, Settings
from k8s.render.value_types import Fragment, Name, NoName, Share


class PodMonitor(Settings):
    enabled: bool
    """Make the PodMonitor."""
    labels: dict[str, str]
    """Labels by which Prometheus selects its monitors."""
    interval: Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m)$")]
    """The time between two readings."""


class Thresholds(Settings):
    firstAudioMs: PositiveInt
    """QwenTtsFirstAudioLate: 5 % of streams get their first audio later than this."""
    silencePercent: Share
    """QwenTtsUnderruns: silence that listeners hear, compared with the audio made."""
    refusedPercent: Share
    """QwenTtsRequestsRefused: the share of requests that get 429."""
    expectedWaitMs: PositiveInt
    """QwenTtsExpectedWait: the expected wait for a place."""
    replicasStarted: PositiveInt
    """QwenTtsReplicasRestart: replicas of a deployment that start in 30 minutes."""


class PrometheusRule(Settings):
    enabled: bool
    """Make the PrometheusRule. It needs `podMonitor.enabled`."""
    labels: dict[str, str]
    """Labels by which Prometheus selects its rules."""
    runbookUrl: str
    """The address of docs/alerts.md, where alerts then lead."""
    thresholds: Thresholds
    """An alert fires above its threshold."""


class Dashboard(Settings):
    enabled: bool
    """Make the ConfigMap."""
    labels: dict[str, str]
    """Labels by which Grafana's sidecar finds it."""


class HttpRoute(Settings):
    enabled: bool
    """Make the HTTPRoute."""
    parentRefs: list[Fragment]
    """The Gateway: name, namespace, sectionName."""
    hostnames: list[Name]
    """Names under which callers reach the service."""
    implementation: Literal["", "gke", "aws"]
    """gke or aws: make the implementation's own objects with timeouts and health checks. Otherwise empty."""
    timeouts: bool
    """Ask the Gateway for no timeouts. Turn it off if the implementation refuses this extended field. gke and aws
    refuse it, and never get it."""


class Ingress(Settings):
    enabled: bool
    """Make the Ingress."""
    className: NoName
    """The class of the controller. Default: the class of the cluster."""
    host: Name
    """The name under which callers reach the service."""
    tlsSecretName: NoName
    """A Secret with the certificate of the host."""
    annotations: dict[str, str]
    """Annotations of the controller (outside.md)."""
