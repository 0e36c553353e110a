from tests.cluster.conftest import Kubectl, Run
from tests.cluster.manifests import ray_service, settings, text_of


def test_a(run: Run, operator: object) -> None:
    text = text_of(ray_service(), settings())
    r = run("apply", "-", input=text)
    print(r.output, r.exception)
    r = run("apply", "-", input=text)
    print(r.output, r.exception)
    r = run("wait", "--timeout", "10")
    print(r.output, r.exception)
    r = run("status")
    print(r.output, r.exception)
    r = run("url")
    print(r.output, r.exception)
    r = run("logs")
    print(r.output, r.exception)
    r = run("rollout", "--timeout", "10")
    print(r.output, r.exception)
    r = run("delete", "--yes", "--wait")
    print(r.output, r.exception)


def test_k(run: Run, kubectl: Kubectl, operator: object) -> None:
    text = text_of(ray_service(), settings())
    print(kubectl("apply", "-f", "-", input=text))
    print(kubectl("apply", "-f", "-", input=text))
    print(kubectl("apply", "--server-side", "-f", "-", input=text))
    print(kubectl("get", "rayservices,pods"))
    r = run("apply", "-", input=text)
    print(r.output, r.exception)
    text = text_of(ray_service(replicas=3), settings(text="b"))
    r = run("apply", "-", input=text)
    print(r.output, r.exception)
    print(kubectl("apply", "-f", "-", input=text_of(ray_service(replicas=4), settings(text="c"))))
    print(kubectl("delete", "rayservice", "qwen-tts"))
