"""The dashboard of the chart is rendered from the table of metrics, and shows each of them."""

import json
import re

import promql_parser

from deployments.metrics import METRICS, Counter, Gauge, Histogram
from k8s.render.__main__ import DASHBOARD
from k8s.render.dashboard import dashboard_text

PANELS = json.loads(dashboard_text())["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_file_is_that_of_the_metrics() -> None:
    assert DASHBOARD.read_text(encoding="utf-8") == dashboard_text(), "run `make manifests`"


def test_every_metric_is_shown_and_nothing_else() -> None:
    shown = {name for line in EXPRESSIONS for name in re.findall(r"ray_qwen_tts_\w+?(?=_bucket|\{)", line)}
    assert shown == {metric.exported for metric in METRICS}


def test_metrics_and_panels_have_names_of_their_own() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) > 15
    assert len(set(names)) == len(names)
    for key in ("id", "title"):
        assert len({panel[key] for panel in PANELS}) == len(PANELS)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}
    assert len(places) == len(PANELS)


def test_lines_of_a_panel_can_be_told_apart() -> None:
    for panel in PANELS:
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]
        assert all(legends) or len(legends) == 1, panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(legends)


def test_each_kind_is_asked_for_in_its_way() -> None:
    for metric in METRICS:
        (first, *_) = [line for line in EXPRESSIONS if re.search(rf"{metric.exported}(_bucket)?\{{", line)]
        match metric:
            case Counter():
                assert re.fullmatch(r"sum( by \(\w+\))? \(rate\(\w+_total\{[^}]*\}\[\$__rate_interval\]\)\)", first)
            case Gauge():
                assert re.fullmatch(r"(sum|max)( by \(\w+\))? \(\w+\{[^}]*\}\)", first)
            case Histogram():
                assert re.match(r"histogram_quantile\(0\.\d+, sum by \(le(, \w+)?\) \(rate\(", first)
        assert ('model=~"$model"' in first) == ("model" in metric.labels), "a label that is missing selects nothing"
        assert 'namespace="$namespace",app_kubernetes_io_instance="$release"' in first


def test_the_releases_of_a_namespace_are_told_apart() -> None:
    variables = {one["name"]: one["query"] for one in json.loads(dashboard_text())["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "release", "model"]
    assert variables["release"].endswith('{namespace="$namespace"}, app_kubernetes_io_instance)')
    assert 'app_kubernetes_io_instance="$release"' in variables["model"]


def test_expressions_are_valid() -> None:
    for expression in EXPRESSIONS:
        promql_parser.parse(expression.replace("$__rate_interval", "5m"))
