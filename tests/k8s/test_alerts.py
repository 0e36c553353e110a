"""The alerts of the chart: generated, valid PromQL about metrics that exist, and firing when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from deployments.metrics import METRICS, Counter, Gauge, Histogram
from k8s.render.__main__ import ALERTS, ALERTS_PAGE, NAMESPACE, RELEASE
from k8s.render.alerts import SERVE_METRICS, alerts_page, alerts_text
from k8s.render.outside_values import Thresholds
from tests.documents import anchors
from tests.k8s.charts import EVERYTHING, FULL, Combination, Object, at, items, mapping, of_kind, render, templates

RUNBOOK = "https://docs.example.com/alerts.md"
OF_RELEASE = {"namespace": NAMESPACE, "app_kubernetes_io_instance": RELEASE}
OWN = {metric.exported: metric for metric in METRICS}


def rules(helm: Path) -> list[Object]:
    """Return the rules of the PrometheusRule."""
    (rule,) = of_kind(render(FULL, helm), "PrometheusRule")
    (group,) = items(rule, "spec", "groups")
    return items(group, "rules")


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return the selectors of a PromQL expression. Raises ValueError if it is not valid."""
    found: list[promql_parser.VectorSelector] = []

    def note(part: promql_parser.Expr) -> bool:
        if isinstance(part, promql_parser.MatrixSelector):
            found.append(part.vector_selector)
        elif isinstance(part, promql_parser.VectorSelector):
            found.append(part)
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    return found


def test_the_files_are_those_of_the_table() -> None:
    assert ALERTS.read_text(encoding="utf-8") == alerts_text(), "run `make manifests`"
    assert ALERTS_PAGE.read_text(encoding="utf-8") == alerts_page(), "run `make manifests`"


def test_alerts_are_about_metrics_of_the_release_that_exist(helm: Path) -> None:
    for rule in rules(helm):
        found = selectors(str(rule["expr"]))
        assert found, rule
        for selector in found:
            name = str(selector.name)
            assert name in SERVE_METRICS or exists(name), name
            assert {one.name: one.value for one in selector.matchers.matchers} == OF_RELEASE


def exists(name: str) -> bool:
    own = OWN.get(re.sub("_(bucket|count|sum)$", "", name), OWN.get(name))
    match own:
        case Histogram():
            return name != own.exported
        case Counter() | Gauge():
            return name == own.exported
    return False


def test_a_misspelt_metric_is_noticed() -> None:
    assert exists("ray_qwen_tts_ttfa_ms_bucket")
    assert not exists("ray_qwen_tts_ttfa_ms")
    assert not exists("ray_qwen_tts_edge_refusals")
    with pytest.raises(ValueError, match="invalid promql"):
        selectors("sum by (model) (a{b=})")


def test_metrics_get_the_label_of_the_release(helm: Path) -> None:
    """The operator of Prometheus writes a pod's label with `_` instead of other characters."""
    objects = render(FULL, helm)
    (monitor,) = of_kind(objects, "PodMonitor")
    label = "app.kubernetes.io/instance"
    assert at(monitor, "spec", "podTargetLabels") == [label]
    assert re.sub(r"\W", "_", label) in OF_RELEASE
    for template in templates(objects).values():
        assert mapping(template, "metadata", "labels")[label] == RELEASE


def test_every_threshold_is_that_of_an_alert(helm: Path) -> None:
    table = {rule["threshold"] for rule in yaml.safe_load(alerts_text())["rules"] if "threshold" in rule}
    assert table == set(Thresholds.model_fields)
    limits = {name: number for number, name in enumerate(sorted(table), 11)}
    options = EVERYTHING | {"prometheusRule": {"enabled": True, "thresholds": limits}}
    (rule,) = of_kind(render(Combination(options=json.dumps(options)), helm), "PrometheusRule")
    text = json.dumps(rule["spec"])
    assert {int(number) for number in re.findall(r"> (1\d)\b", text)} == set(limits.values())
    assert "LIMIT" not in text
    assert "WHERE" not in text


def test_alerts_lead_to_their_section_of_the_page(helm: Path) -> None:
    there = anchors(alerts_page())
    for rule in rules(helm):
        url, _, anchor = str(at(rule, "annotations", "runbook_url")).partition("#")
        assert url == RUNBOOK
        assert anchor in there
        assert {"summary", "description"} <= mapping(rule, "annotations").keys()


def test_panels_of_the_page_exist() -> None:
    named = set(re.findall(r" \*(\w[^*]+)\*", re.sub("```.*?```", "", alerts_page(), flags=re.DOTALL)))
    assert named
    assert {" ".join(title.split()) for title in named} <= {metric.panel.title for metric in METRICS}


def series(name: str, values: str, instance: str = RELEASE, **labels: str) -> Object:
    all_labels = {**OF_RELEASE, "app_kubernetes_io_instance": instance, **labels}
    inside = ",".join(f'{key}="{value}"' for key, value in all_labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def measured(bad: bool, instance: str = RELEASE) -> list[Object]:
    """Return an hour of metrics, one value a minute: those of a service in trouble, or of a calm one."""
    model = {"instance": instance, "model": "m"}
    talker = {"instance": instance, "deployment": "talker-m", "ray_io_cluster": "c"}
    own = "ray_qwen_tts_"
    return [
        series("ray_serve_deployment_replica_healthy", f"{0 if bad else 1}x60", replica="r", **talker),
        series("ray_serve_autoscaling_target_replicas", "1x60", **talker),
        series("ray_serve_deployment_status", f"{2 if bad else 6}x60", **talker),
        series("ray_serve_replica_startup_latency_ms_count", "1+1x60" if bad else "1x60", **talker),
        series(f"{own}ttfa_ms_bucket", "0+10x60", le="160.0", **model),
        series(f"{own}ttfa_ms_bucket", "0+20x60" if bad else "0+10x60", le="+Inf", **model),
        series(f"{own}ttfa_ms_bucket", "0+10x60", le="5120.0", **model),
        series(f"{own}underrun_ms_total", f"0+{600 if bad else 60}x60", **model),
        series(f"{own}audio_s_total", "0+30x60", **model),
        series(f"{own}edge_refusals_total", f"0+{4 if bad else 0}x60", reason="wait", **model),
        series(f"{own}edge_wait_ms_count", "0+40x60", priority="interactive", **model),
        series(f"{own}edge_expected_wait_ms", f"{9000 if bad else 0}x60", **model),
    ]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH (Debian: prometheus)")
def test_alerts_fire_in_trouble_and_only_then(helm: Path, tmp_path: Path) -> None:
    """Prometheus' own tool evaluates the rules on series of this release. Another release is always in trouble."""
    (rule,) = of_kind(render(FULL, helm), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    names = {str(one["alert"]) for one in rules(helm)}
    cases = {
        "trouble": (measured(bad=True), names - {"QwenTtsDown"}),
        "calm": (measured(bad=False) + measured(bad=True, instance="another"), set()),
        "silent": (measured(bad=True, instance="another"), {"QwenTtsDown"}),
    }
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": given,
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "45m",
                    "exp_samples": [{"labels": f'{{alertname="{one}"}}', "value": 1} for one in sorted(firing)],
                }
            ],
        }
        for name, (given, firing) in cases.items()
    ]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}), "utf-8")
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]):
        said = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr
