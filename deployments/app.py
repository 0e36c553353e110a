"""build_app: the only place where deployments are named and bound.

ingress -> codec-decoder -> talker-<model>, one per model
"""

from typing import Any

from ray import serve
from ray.serve import Application

from deployments.codec_decoder import CodecDecoder
from deployments.ingress import Ingress
from deployments.settings import AppArgs, ReplicaArgs
from deployments.talker import Talker

APP_NAME = "qwen-tts"

# The engine's own queue says when it is full (429); Serve must let every request reach it to be told.
_UNBOUNDED_REQUESTS = 10_000


def build_app(args: AppArgs) -> Application:
    """The Serve application; `serve run deployments.app:build_app` and Serve config files fill `args`."""
    talkers = {
        model.name: _deployment(Talker, f"talker-{model.name.replace('/', '-')}", args.talker).bind(
            model, args.talker, args.cache_dir
        )
        for model in args.models
    }
    decoder = _deployment(CodecDecoder, "codec-decoder", args.codec_decoder).bind(
        args.models, talkers, args.codec_decoder, args.cache_dir
    )
    application: Application = _deployment(Ingress, "ingress", args.ingress).bind(decoder, args.ingress)
    return application


def _deployment(cls: type, name: str, args: ReplicaArgs) -> serve.Deployment:
    decorate: Any = serve.deployment  # its stub knows only the form with keyword arguments
    deployment: serve.Deployment = decorate(cls).options(
        name=name,
        num_replicas=args.num_replicas,
        ray_actor_options={"num_cpus": args.num_cpus, "num_gpus": args.num_gpus},
        max_ongoing_requests=_UNBOUNDED_REQUESTS,
        graceful_shutdown_timeout_s=args.graceful_shutdown_s,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=2.0,
    )
    return deployment
