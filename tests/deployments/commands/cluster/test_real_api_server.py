"""apply and status on a real kube-apiserver and etcd, if both are on the PATH; no operator, no kubelets."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
import yaml
from click.testing import CliRunner, Result

from deployments.commands.main import main
from tests.deployments.commands.cluster.conftest import assert_refused, assert_said
from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.handlers import TOKEN
from tests.deployments.commands.cluster.manifests import ray_service, settings, text_of

pytestmark = pytest.mark.skipif(
    shutil.which("kube-apiserver") is None or shutil.which("etcd") is None,
    reason="kube-apiserver and etcd are not on the PATH: only the tests' own API server is spoken to",
)

DEFINITION: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "rayservices.ray.io"},
    "spec": {
        "group": "ray.io",
        "scope": "Namespaced",
        "names": {"kind": "RayService", "plural": "rayservices"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a kubeconfig for a new kube-apiserver with its own etcd. Its self-signed certificate is not verified."""
    home = tmp_path_factory.mktemp("kubernetes")
    store, peers, port = free_port(), free_port(), free_port()
    (home / "tokens.csv").write_text(f"{TOKEN},tester,tester,system:masters\n", encoding="utf-8")
    trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.write_to_path(str(home / "accounts.key"))
    etcd = ["etcd", f"--data-dir={home / 'etcd'}", f"--listen-client-urls=http://127.0.0.1:{store}"]
    etcd += [f"--advertise-client-urls=http://127.0.0.1:{store}", f"--listen-peer-urls=http://127.0.0.1:{peers}"]
    server = ["kube-apiserver", f"--etcd-servers=http://127.0.0.1:{store}", f"--cert-dir={home}"]
    server += ["--bind-address=127.0.0.1", f"--secure-port={port}", f"--token-auth-file={home / 'tokens.csv'}"]
    server += ["--service-account-issuer=https://tests", f"--service-account-key-file={home / 'accounts.key'}"]
    server += [f"--service-account-signing-key-file={home / 'accounts.key'}", "--service-cluster-ip-range=10.0.0.0/24"]
    file = home / "kubeconfig"
    of_server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    body: Json = {"apiVersion": "v1", "kind": "Config", "current-context": "tests"}
    body |= {"contexts": [{"name": "tests", "context": {"cluster": "c", "user": "u"}}]}
    body |= {"clusters": [{"name": "c", "cluster": of_server}], "users": [{"name": "u", "user": {"token": TOKEN}}]}
    file.write_text(yaml.safe_dump(body), encoding="utf-8")
    with ExitStack() as stack:
        for command in (etcd, server):
            log = stack.enter_context((home / f"{command[0]}.log").open("w"))
            process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
            stack.callback(process.terminate)
        until_accepted(file, text_of(DEFINITION))
        yield file


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(kubeconfig: Path, command: str, *arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["cluster", command, "--kubeconfig", str(kubeconfig), *arguments], input=text)


def until_accepted(kubeconfig: Path, text: str) -> None:
    end = time.monotonic() + 60
    while (result := run(kubeconfig, "apply", "-", text=text)).exit_code:
        assert time.monotonic() < end, result.output
        time.sleep(0.5)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_service_is_applied_and_looked_at(kubeconfig: Path) -> None:
    text = text_of(settings(), ray_service())
    until_accepted(kubeconfig, text)
    assert_said(
        run(kubeconfig, "apply", "-", text=text), "ConfigMap qwen-tts-settings unchanged", "RayService qwen-tts unch"
    )
    changed = text_of(settings(text="b"), ray_service(replicas=3))
    assert_said(run(kubeconfig, "apply", "-", text=changed), "qwen-tts-settings configured", "qwen-tts configured")
    assert_said(
        run(kubeconfig, "status"),
        "The KubeRay operator has not acted on the RayService yet (generation 2, last seen none)",
    )
    wait = run(kubeconfig, "wait", "--stuck-after", "1")
    assert_refused(wait, "The KubeRay operator has not acted on the RayService yet")
