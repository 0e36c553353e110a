"""The service on three Ray nodes of this machine, to remove one of them under load. See docs/benchmarks.md#faults.

The first node has the ingress and the codec decoder. Each of the two others has one talker.
"""

import os
import time

import click
import httpx
import ray
from ray import serve
from ray.cluster_utils import Cluster

from deployments.app import APP_NAME, build_app
from deployments.settings import AppArgs, CodecDecoderArgs, IngressArgs, ModelArgs, TalkerArgs

_EDGE, _TALKER = "edge", "talker"


@click.command()
@click.option("--port", default=8000, show_default=True)
def main(port: int) -> None:
    """Serve the embedded CustomVoice model on three nodes, until Ctrl-C. Print the process of a node with a talker."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "resources": {_EDGE: 2}})
    nodes = [cluster.add_node(num_cpus=4, resources={_TALKER: 1}) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run(
        build_app(
            AppArgs(
                models=(ModelArgs(name="demo-custom-voice", type="custom_voice"),),
                talker=TalkerArgs(num_replicas=2, threads=1, resources={_TALKER: 1}, surge_percent=0),
                codec_decoder=CodecDecoderArgs(threads=1, resources={_EDGE: 1}),
                ingress=IngressArgs(resources={_EDGE: 1}),
            )
        ),
        name=APP_NAME,
        route_prefix="/",
    )
    url = f"http://127.0.0.1:{port}"
    while httpx.get(f"{url}/readyz", trust_env=False).status_code != 200:
        time.sleep(0.5)
    raylets = [info.process.pid for node in nodes for info in node.all_processes["raylet"]]
    click.echo(f"Ready at {url}. To remove a node with a talker: kill -9 {raylets[0]}")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
