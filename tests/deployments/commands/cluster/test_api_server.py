"""The tests' own API server behaves like a real one, as far as the other tests rely on it."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from tests.deployments.commands.cluster.api_server import ApiServer
from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.manifests import ray_service, settings

_RAY = ("ray.io", "v1", "default", "rayservices")
_APPLY = "application/apply-patch+yaml"


@pytest.fixture
def connection(kubeconfig: Path) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(kubeconfig)) as connected:
        yield connected


@pytest.fixture
def core(connection: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(connection)


@pytest.fixture
def custom(connection: client.ApiClient) -> Any:
    """Return the untyped client, whose objects are any JSON."""
    return client.CustomObjectsApi(connection)


def meta(of: client.V1ConfigMap) -> client.V1ObjectMeta:
    assert of.metadata is not None
    return of.metadata


def apply(core: client.CoreV1Api, manager: str, data: dict[str, str], **options: Any) -> client.V1ConfigMap:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}
    options |= {"field_manager": manager, "_content_type": _APPLY}
    return core.patch_namespaced_config_map("a", "default", body, **options)


def test_each_manager_owns_what_it_applies(core: client.CoreV1Api) -> None:
    apply(core, "one", {"x": "1", "both": "b"})
    apply(core, "two", {"y": "2", "both": "b"})
    with pytest.raises(ApiException) as refused:
        apply(core, "two", {"x": "other"})
    assert refused.value.status == 409
    (cause,) = json.loads(str(refused.value.body))["details"]["causes"]
    assert cause == {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.x"}
    assert apply(core, "one", {}).data == {"y": "2", "both": "b"}
    assert apply(core, "two", {"x": "3"}, force=True).data == {"x": "3"}


def test_nothing_changes_when_the_same_is_applied(core: client.CoreV1Api) -> None:
    first = apply(core, "one", {"x": "1"})
    assert meta(apply(core, "one", {"x": "1"})).resource_version == meta(first).resource_version
    fields = {entry.manager: entry.fields_v1 for entry in meta(first).managed_fields or []}
    assert fields == {"one": {"f:data": {"f:x": {}}}}


def test_a_dry_run_answers_and_changes_nothing(core: client.CoreV1Api) -> None:
    assert apply(core, "one", {"x": "1"}, dry_run="All").data == {"x": "1"}
    with pytest.raises(ApiException) as refused:
        core.read_namespaced_config_map("a", "default")
    assert refused.value.status == 404


def test_status_and_specification_are_written_apart(custom: Any) -> None:
    made: Json = custom.create_namespaced_custom_object(*_RAY, ray_service() | {"status": {"serviceStatus": "Running"}})
    assert "status" not in custom.get_namespaced_custom_object(*_RAY, "qwen-tts")
    changed = made | {"status": {"serviceStatus": "Running"}, "spec": made["spec"] | {"suspend": True}}
    custom.replace_namespaced_custom_object_status(*_RAY, "qwen-tts", changed)
    now: Json = custom.get_namespaced_custom_object(*_RAY, "qwen-tts")
    assert now["status"] == {"serviceStatus": "Running"}
    assert "suspend" not in now["spec"]
    assert (made["metadata"]["generation"], now["metadata"]["generation"]) == (1, 1)
    now["spec"]["suspend"] = True
    custom.replace_namespaced_custom_object(*_RAY, "qwen-tts", now)
    assert custom.get_namespaced_custom_object(*_RAY, "qwen-tts")["metadata"]["generation"] == 2
    with pytest.raises(ApiException) as refused:
        custom.replace_namespaced_custom_object(*_RAY, "qwen-tts", made)
    assert refused.value.status == 409


def test_a_field_that_the_definition_does_not_have_is_dropped_unless_strict(custom: Any) -> None:
    body = ray_service()
    body["spec"]["misspelt"] = 1
    with pytest.raises(ApiException) as refused:
        custom.create_namespaced_custom_object(*_RAY, body, field_validation="Strict")
    assert refused.value.status == 400
    assert "misspelt" not in custom.create_namespaced_custom_object(*_RAY, body)["spec"]


def test_a_watch_tells_what_came_after(core: client.CoreV1Api, server: ApiServer) -> None:
    before = str(server.store.version)
    server.create(settings("one"))
    server.create(settings("two") | {"metadata": {"name": "two", "labels": {"a": "b"}}})
    server.delete("ConfigMap", "two")
    stream = watch.Watch().stream(
        core.list_namespaced_config_map, "default", resource_version=before, timeout_seconds=1, label_selector="a=b"
    )
    seen = [(event["type"], event["object"].metadata.name) for event in stream]
    assert seen == [("ADDED", "two"), ("DELETED", "two")]


def test_a_watch_from_what_is_forgotten_is_refused(core: client.CoreV1Api, server: ApiServer) -> None:
    server.store.forgotten = 1000
    with pytest.raises(ApiException) as refused:
        list(watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version="5", timeout_seconds=1))
    assert refused.value.status == 410


def test_an_object_with_finalizers_stays_until_they_are_gone(core: client.CoreV1Api, server: ApiServer) -> None:
    server.create(settings("a") | {"metadata": {"name": "a", "finalizers": ["tests/held"]}})
    core.delete_namespaced_config_map("a", "default")
    assert meta(core.read_namespaced_config_map("a", "default")).deletion_timestamp
    core.patch_namespaced_config_map("a", "default", {"metadata": {"finalizers": None}})
    assert server.find_all("ConfigMap") == []


def test_strangers_are_refused(server: ApiServer) -> None:
    trusted = ssl.create_default_context(cadata=server.authority_pem.decode())
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/api", context=trusted)
    assert refused.value.code == 401
    refused.value.close()
