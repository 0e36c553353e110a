"""Values that would fail only in the cluster are refused by Helm, with a message that names them."""

import json
from pathlib import Path

import pytest

from tests.k8s.charts import OPEN, Combination, Object, Refused, items, render

(GROUP,) = items(OPEN, "workerGroups")
ONE = GROUP | {"minReplicas": 1, "maxReplicas": 1}
ONCE: Object = {"enabled": True, "accessModes": ["ReadWriteOnce"]}


def talker(**fields: object) -> Object:
    return {"app": {"talker": fields}}


def one_model(**fields: object) -> Object:
    return {"app": {"models": [{"name": "a", "type": "base", "start_wait_s": 9, "talker": fields}]}}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (
            talker(autoscaling={"min_replicas": 3, "max_replicas": 2}),
            "app: talker of talker-demo-custom-voice: min_replicas 3 is above max_replicas 2",
        ),
        (
            one_model(autoscaling={"min_replicas": 3, "max_replicas": 2}),
            "talker of talker-a: min_replicas 3 is above max_replicas 2",
        ),
        (
            talker(autoscaling={"max_replicas": 2}, num_replicas=2),
            "num_replicas is not allowed together with autoscaling; set autoscaling.min_replicas",
        ),
        (
            one_model(autoscaling={"min_replicas": 0, "max_replicas": 2, "downscale_delay_s": 9.5}),
            "downscale_delay_s is 9.5; with min_replicas 0 it must be 10 or more",
        ),
        *(
            ({"workerGroups": [ONE | {"name": name}]}, f"workerGroups: {name} is the name of other pods of the chart")
            for name in ("head", "redis", "test", "model-cache")
        ),
        ({"workerGroups": [ONE, ONE]}, "workerGroups: two groups have the name speech"),
        (
            {"workerGroups": [ONE, ONE | {"name": "later"}], "voices": {"claim": ONCE}},
            "voices.claim.accessModes: [ReadWriteMany]",
        ),
    ],
)
def test_values_that_fail_later_are_refused(helm: Path, values: Object, named: str) -> None:
    with pytest.raises(Refused) as refused:
        render(Combination(options=json.dumps(values)), helm)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        one_model(autoscaling={"min_replicas": 0, "max_replicas": 2, "downscale_delay_s": 10}),
        talker(autoscaling={"min_replicas": 2, "max_replicas": 2}, num_replicas=1),
        {"workerGroups": [ONE], "voices": {"claim": ONCE}},
        {"workerGroups": [ONE, ONE | {"name": "later"}], "voices": {"claim": ONCE | {"existing": "voices"}}},
    ],
)
def test_values_at_the_limit_are_allowed(helm: Path, values: Object) -> None:
    assert render(Combination(options=json.dumps(values)), helm)
