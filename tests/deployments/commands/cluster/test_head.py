"""A head that is evicted, as the chart makes it."""

import pytest
import yaml

from k8s.render.__main__ import ROOT
from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.operator import Operator

# Ray's workers wait this long for a head, if no Redis lets them wait longer (gcs_rpc_server_reconnect_timeout_s).
_WORKERS_WAIT_S = 60


@pytest.mark.parametrize("name", ["cpu-demo", "l4-one-model"])
def test_an_evicted_head_is_replaced_before_the_workers_give_up(
    server: ApiServer, operator: Operator, name: str
) -> None:
    objects = yaml.safe_load_all((ROOT / "k8s" / f"{name}.yaml").read_text(encoding="utf-8"))
    (service,) = [one for one in objects if one is not None and one["kind"] == "RayService"]
    server.create(service | {"metadata": service["metadata"] | {"namespace": "default"}})
    server.wait_until(lambda: len(heads(server)) == 1 and operator.settled() is not None)
    (evicted,) = heads(server)
    server.delete("Pod", evicted["metadata"]["name"])
    server.wait_until(
        lambda: [one["metadata"]["uid"] for one in heads(server)] not in ([], [evicted["metadata"]["uid"]])
    )
    (head,) = heads(server)
    assert head["metadata"]["uid"] != evicted["metadata"]["uid"]
    assert 0 < operator.headless_s < _WORKERS_WAIT_S


def heads(server: ApiServer) -> list[Json]:
    pods = server.find_all("Pod")
    return [pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
