"""files/dashboard.json of the chart: the Grafana dashboard with a panel for every metric of deployments/metrics.py."""

import json
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from deployments.metrics import METRICS, SLOTS_IN_USE, Counter, Gauge, Histogram, Metric, Panel

JsonObject = dict[str, object]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_NAMESPACE = 'namespace="$namespace"'
# The chart's PodMonitor adds this label. Metrics without it are those of an empty release.
_RELEASE = 'app_kubernetes_io_instance="$release"'
_MODEL = 'model=~"$model"'
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


def dashboard_text() -> str:
    """Return the content of dashboard.json."""
    by_panel: dict[Panel, list[Metric]] = {}
    for metric in METRICS:
        by_panel.setdefault(metric.panel, []).append(metric)
    dashboard = {
        "title": "Qwen-TTS",
        "uid": "qwen-tts",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "tags": ["qwen-tts"],
        "templating": {"list": _variables()},
        "panels": [_panel(n, panel, metrics) for n, (panel, metrics) in enumerate(by_panel.items())],
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _variables() -> list[JsonObject]:
    name = SLOTS_IN_USE.exported
    query = {"type": "query", "datasource": _SOURCE, "refresh": 2}
    models: JsonObject = {
        "query": f"label_values({name}{{{_NAMESPACE},{_RELEASE}}}, model)",
        "includeAll": True,
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {"name": "namespace", **query, "query": f"label_values({name}, namespace)"},
        {"name": "release", **query, "query": f"label_values({name}{{{_NAMESPACE}}}, app_kubernetes_io_instance)"},
        {"name": "model", **query, **models},
    ]


def _panel(number: int, panel: Panel, metrics: Sequence[Metric]) -> JsonObject:
    row, column = divmod(number, _COLUMNS)
    lines = [line for metric in metrics for line in _lines(metric)]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": letter, "expr": expression, "legendFormat": legend}
            for letter, (expression, legend) in zip(ascii_uppercase, lines, strict=False)
        ],
    }


def _lines(metric: Metric) -> Iterator[tuple[str, str]]:
    """Yield the expression and the legend of each line of a metric."""
    where = "{" + ",".join([_NAMESPACE, _RELEASE, *([_MODEL] if "model" in metric.labels else [])]) + "}"
    by = [] if metric.by is None else [metric.by]
    match metric:
        case Counter():
            yield f"sum{_by(by)} (rate({metric.exported}{where}[$__rate_interval]))", _legend(metric.legend, by)
        case Gauge():
            yield f"{metric.together}{_by(by)} ({metric.exported}{where})", _legend(metric.legend, by)
        case Histogram():
            rate = f"sum{_by(['le', *by])} (rate({metric.exported}_bucket{where}[$__rate_interval]))"
            for quantile in metric.quantiles:
                yield f"histogram_quantile({quantile}, {rate})", _legend(f"p{100 * quantile:g}", by)
        case _:
            raise AssertionError(f"no expression for the metric {metric}")


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _legend(text: str, labels: Sequence[str]) -> str:
    return " ".join(filter(None, [text, *(f"{{{{{label}}}}}" for label in labels)]))
