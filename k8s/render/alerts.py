"""files/alerts.yaml of the chart and docs/alerts.md: the alerts, with the metrics of deployments/metrics.py.

The template of the PrometheusRule replaces two words of an expression: WHERE by the labels that select the release,
and LIMIT by the alert's threshold in the values.
"""

import textwrap
from dataclasses import dataclass
from typing import Literal

import yaml

from deployments.metrics import (
    AUDIO,
    EDGE_EXPECTED_WAIT,
    EDGE_REFUSALS,
    EDGE_WAIT,
    TTFA,
    UNDERRUN_SILENCE,
    Metric,
)

WHERE, LIMIT = "WHERE", "LIMIT"

# Metrics of Serve's controller, by deployment. A status of 1 is DEPLOY_FAILED, and 2 is UNHEALTHY.
_HEALTHY = "ray_serve_deployment_replica_healthy"
_WANTED = "ray_serve_autoscaling_target_replicas"
_STATUS = "ray_serve_deployment_status"
_STARTED = "ray_serve_replica_startup_latency_ms_count"
SERVE_METRICS = (_HEALTHY, _WANTED, _STATUS, _STARTED)


@dataclass(frozen=True)
class Alert:
    """An alert, which fires when `expression` has had a result for `minutes`.

    `threshold` is its key in the values, if it has one. `summary` is a template of Prometheus. `steps` say what to do.
    """

    name: str
    expression: str
    minutes: int
    severity: Literal["warning", "critical"]
    summary: str
    meaning: str
    steps: tuple[str, ...]
    threshold: str | None = None

    def __post_init__(self) -> None:
        assert (LIMIT in self.expression) == (self.threshold is not None), f"{self.name}: threshold without LIMIT"


def _sum(metric: str, by: str) -> str:
    return f"sum by ({by}) ({metric}{{{WHERE}}})"


def _rate(metric: Metric, by: str = "model", part: str = "") -> str:
    return f"sum by ({by}) (rate({metric.exported}{part}{{{WHERE}}}[5m]))"


ALERTS = (
    Alert(
        "QwenTtsDown",
        f"absent({_HEALTHY}{{{WHERE}}})",
        5,
        "critical",
        "No metrics of Serve's controller",
        "The head exports no metrics: it does not run, or Prometheus cannot reach it.",
        (
            "`qwen-tts cluster status` says what state the service is in, and why.",
            "If the head runs, look at Prometheus' target of the PodMonitor. `networkPolicy.metricsFrom` must contain "
            "Prometheus' pods.",
            "If the head does not run, the workers still answer requests for a while, but no replica is replaced. "
            "`kubectl describe` its pod.",
        ),
    ),
    Alert(
        "QwenTtsNoReplica",
        f"{_sum(_WANTED, 'deployment')} > 0 unless {_sum(_HEALTHY, 'deployment')} > 0",
        5,
        "critical",
        "{{ $labels.deployment }} has no healthy replica",
        "No replica of a deployment is healthy, although some should be. Requests that need it fail or wait.",
        (
            "`qwen-tts cluster status` names pods that wait for a node, and replicas that do not start.",
            "During an upgrade in place with a GPU, a deployment of one replica has none while the new one loads.",
            "The logs of the replicas (`/tmp/ray/session_latest/logs/serve` in their pods) show why a constructor "
            "raises: a checkpoint is missing, or memory runs out.",
        ),
    ),
    Alert(
        "QwenTtsDeploymentUnhealthy",
        f"min by (deployment, ray_io_cluster) ({_STATUS}{{{WHERE}}} > 0) < 3",
        5,
        "critical",
        "{{ $labels.deployment }} of {{ $labels.ray_io_cluster }} is unhealthy, or cannot be deployed",
        "Serve has given up on starting replicas, or has too few. It may be the new cluster of an upgrade, while the "
        "old one still answers.",
        (
            "`qwen-tts cluster status` prints Serve's message.",
            "If an upgrade caused it, `helm rollback` goes back.",
        ),
    ),
    Alert(
        "QwenTtsReplicasRestart",
        f"sum by (deployment) (increase({_STARTED}{{{WHERE}}}[30m])) > {LIMIT}",
        0,
        "warning",
        "{{ $value | humanize }} replicas of {{ $labels.deployment }} have started in 30 minutes",
        "Replicas end and are started again, or autoscaling adds and removes them all the time. Streams of a lost "
        "replica continue on another one, often after a silence.",
        (
            "The logs of the replicas (`/tmp/ray/session_latest/logs/serve` in their pods) show how they ended. "
            "`hang_timeout_s` and faults of a GPU end a replica.",
            "`kubectl get pods` shows whether pods were killed (`OOMKilled`) or evicted.",
            "If only the load changes, raise `autoscaling.downscale_delay_s` or `min_replicas`.",
        ),
        "replicasStarted",
    ),
    Alert(
        "QwenTtsFirstAudioLate",
        f"histogram_quantile(0.95, {_rate(TTFA, 'model, le', '_bucket')}) > {LIMIT}",
        10,
        "warning",
        "{{ $labels.model }}: 5 % of streams wait {{ $value | humanize }} ms or longer for their first audio",
        "At least 5 % of streams get their first audio late, counted from the moment the decoder receives the request.",
        (
            "The dashboard's panel *Waiting for a slot* tells whether requests wait for a talker; then add talkers, or "
            "give them more `slots`.",
            "If *Engine step* has grown, too many streams share a talker, or something else uses its GPU or cores.",
            "Long reference recordings and cold voices cost prefill. See *Prompts whose beginning was known*.",
        ),
        "firstAudioMs",
    ),
    Alert(
        "QwenTtsUnderruns",
        f"0.1 * {_rate(UNDERRUN_SILENCE)} / {_rate(AUDIO)} > {LIMIT}",
        10,
        "warning",
        "{{ $labels.model }}: listeners hear silence for {{ $value | humanize }} % of the audio",
        "Audio arrives after listeners have played all they had. The silence is compared with the audio made.",
        (
            "Compare *Engine step* with 80 ms, which is real time, and look at *Headroom*.",
            "Set `keep_pace`, if it is off: it admits no stream that would make others late.",
            "Without MPS, a decoder on the talker's GPU makes steps late (`mps`).",
        ),
        "silencePercent",
    ),
    Alert(
        "QwenTtsRequestsRefused",
        f"100 * {_rate(EDGE_REFUSALS)} / ({_rate(EDGE_REFUSALS)} + {_rate(EDGE_WAIT, part='_count')}) > {LIMIT}",
        10,
        "warning",
        "{{ $labels.model }}: {{ $value | humanize }} % of requests are refused (429)",
        "The service is full. Refused requests get 429 with `Retry-After`.",
        (
            "If talkers are at `autoscaling.max_replicas`, raise it, and the group's `maxReplicas` with it.",
            "If talkers wait for a node, `qwen-tts cluster status` says why.",
            "A limit per API key stops one caller from using all places.",
        ),
        "refusedPercent",
    ),
    Alert(
        "QwenTtsExpectedWait",
        f"max by (model) (avg_over_time({EDGE_EXPECTED_WAIT.exported}{{{WHERE}}}[5m])) > {LIMIT}",
        10,
        "warning",
        "{{ $labels.model }}: a request waits {{ $value | humanize }} ms for its place",
        "The expected wait of requests, as the mean of 5 minutes, is long. Interactive requests are refused before "
        "this; batches wait.",
        ("See [QwenTtsRequestsRefused](#qwenttsrequestsrefused): the causes are the same.",),
        "expectedWaitMs",
    ),
)

_HEADER = "# Made of k8s/render/alerts.py by `make manifests`. Change that file, not this one.\n"

_INTRO = """\
<!-- Rendered from k8s/render/alerts.py by `make manifests`. Change that file, not this one. -->

# Alerts

`prometheusRule.enabled` of the [chart](../helm/qwen-tts/README.md) makes a PrometheusRule with these alerts. They need
`podMonitor.enabled`, whose PodMonitor adds the release as the label `app_kubernetes_io_instance`. Thresholds are values
under `prometheusRule.thresholds`. Set `prometheusRule.runbookUrl` to the address where your team reads this page: every
alert then has a link to its section. The [dashboard](http.md#metrics) shows the same metrics."""


def alerts_text() -> str:
    """Return the content of alerts.yaml."""
    rules = [
        {
            "alert": one.name,
            "expr": one.expression,
            "for": f"{one.minutes}m",
            "severity": one.severity,
            "summary": one.summary,
            "description": " ".join((one.meaning, *one.steps)),
            **({"threshold": one.threshold} if one.threshold else {}),
        }
        for one in ALERTS
    ]
    return _HEADER + yaml.safe_dump({"rules": rules}, sort_keys=False, width=120, allow_unicode=True)


def alerts_page() -> str:
    """Return the page, with a section for each alert."""
    return "\n\n".join([_INTRO, *map(_section, ALERTS)]) + "\n"


def _section(alert: Alert) -> str:
    when = f"It fires above `thresholds.{alert.threshold}`" if alert.threshold else "It fires"
    lasting = f", after {alert.minutes} minutes" if alert.minutes else ""
    meaning = _wrapped(f"{alert.meaning} {when}{lasting} ({alert.severity}).", "")
    steps = "\n".join(_wrapped(step, "- ") for step in alert.steps)
    return f"## {alert.name}\n\n{meaning}\n\n{steps}\n\n```\n{alert.expression.replace(WHERE, '...')}\n```"


def _wrapped(text: str, first: str) -> str:
    rest = " " * len(first)
    return textwrap.fill(
        text, 120, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
