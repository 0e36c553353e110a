"""The Serve application. Deployments are named and bound only here.

ingress -> codec-decoder -> talker-<model>, one per model
        -> codec-encoder
"""

import warnings
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.ingress import Ingress
from deployments.replicas.codec_decoder import CodecDecoderDeployment
from deployments.replicas.codec_encoder import CodecEncoderDeployment
from deployments.replicas.talker import TalkerDeployment
from deployments.settings import AppArgs, ModelArgs, ReplicaArgs

APP_NAME = "qwen-tts"

# The engine refuses requests when its own queue is full (429), so Serve must pass every request on to it.
_UNBOUNDED_REQUESTS = 10_000


def build_app(args: AppArgs) -> Application:
    """Return the Serve application. `serve run deployments.app:build_app` and Serve config files fill `args`."""
    talkers = {
        model.name: _deployment(TalkerDeployment, _talker_name(model), talker).bind(model, talker)
        for model, talker in ((model, model.talker or args.talker) for model in args.models)
    }
    decoder = _deployment(CodecDecoderDeployment, "codec-decoder", args.codec_decoder).bind(
        args.models, talkers, args.codec_decoder
    )
    encoder = (
        _deployment(CodecEncoderDeployment, "codec-encoder", args.codec_encoder).bind(args.models, args.codec_encoder)
        if _clones(args)
        else None
    )
    application: Application = _deployment(Ingress, "ingress", args.ingress).bind(
        decoder, encoder, args.ingress, args.voices, args.reference_audio, args.api_keys
    )
    return application


def deployment_names(args: AppArgs) -> dict[str, str]:
    """Return the deployments that load models, and the name of each in sentences."""
    return {
        **{_talker_name(model): model.name for model in args.models},
        "codec-decoder": "codec decoder",
        **({"codec-encoder": "codec encoder"} if _clones(args) else {}),
    }


def _talker_name(model: ModelArgs) -> str:
    return f"talker-{model.name.replace('/', '-')}"


def _clones(args: AppArgs) -> bool:
    """Return whether a model may clone voices. Without such a model there is nothing to encode."""
    return any(model.type in (None, "base") for model in args.models)


def _deployment(cls: type, name: str, args: ReplicaArgs) -> serve.Deployment:
    replicas: dict[str, object] = (
        {"num_replicas": args.num_replicas}
        if args.autoscaling is None
        else {"autoscaling_config": args.autoscaling.model_dump()}
    )
    decorate: Any = serve.deployment  # its stub knows only the form with keyword arguments
    with warnings.catch_warnings():
        # metrics_interval_s gives way to environment variables "in a future release"; Ray 2.60 does not read those.
        warnings.filterwarnings("ignore", ".*metrics_interval_s", DeprecationWarning)
        deployment: serve.Deployment = decorate(cls).options(
            name=name,
            ray_actor_options={"num_cpus": args.num_cpus, "num_gpus": args.num_gpus, "resources": args.resources},
            max_ongoing_requests=_UNBOUNDED_REQUESTS,
            graceful_shutdown_timeout_s=args.graceful_shutdown_s,
            graceful_shutdown_wait_loop_s=0.1,
            health_check_period_s=2.0,
            **replicas,
        )
    return deployment
