"""The Serve application. Deployments are named and bound only here.

ingress -> codec-decoder -> talker-<model>, one per model
        -> codec-encoder
"""

import warnings
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.ingress import Ingress
from deployments.replicas.codec_decoder import CodecDecoderDeployment
from deployments.replicas.codec_encoder import CodecEncoderDeployment
from deployments.replicas.talker import TalkerDeployment
from deployments.settings import AppArgs, AutoscalingArgs, ModelArgs, ReplicaArgs, Settings

APP_NAME = "qwen-tts"

# The engine refuses requests when its own queue is full (429), so Serve must pass every request on to it.
_UNBOUNDED_REQUESTS = 10_000
# Replicas report their load in this interval. It is averaged over the period.
_METRICS: Mapping[str, object] = {"metrics_interval_s": 1.0, "look_back_period_s": 5.0}


def build_app(args: AppArgs) -> Application:
    """Return the Serve application. `serve run deployments.app:build_app` and Serve config files fill `args`."""
    talkers = {
        model.name: _deployment(TalkerDeployment, _talker_name(model), args.talker_of(model), args).bind(
            model, args.talker_of(model), args.tracing
        )
        for model in args.models
    }
    decoder = _deployment(CodecDecoderDeployment, "codec-decoder", args.codec_decoder, args).bind(
        args.models, talkers, args.codec_decoder, args.tracing
    )
    encoder = (
        _deployment(CodecEncoderDeployment, "codec-encoder", args.codec_encoder, args).bind(
            args.models, args.codec_encoder
        )
        if _clones(args)
        else None
    )
    application: Application = _deployment(Ingress, "ingress", args.ingress, args).bind(
        decoder, talkers, encoder, args.ingress, args.voices, args.reference_audio, args.api_keys, args.tracing
    )
    return application


def live_options(args: AppArgs) -> dict[str, dict[str, object]]:
    """Return the options of each deployment that Serve changes in place, by the deployment's name.

    In a Serve config file they are the entries of `deployments`. A change of anything in `args` starts new replicas.
    """
    edge = {"ingress": args.ingress, "voices": args.voices, "reference_audio": args.reference_audio}
    return {
        **{_talker_name(model): _live_options({"talker": args.talker_of(model)}) for model in args.models},
        "codec-decoder": _live_options({"codec_decoder": args.codec_decoder}),
        **({"codec-encoder": _live_options({"codec_encoder": args.codec_encoder})} if _clones(args) else {}),
        "ingress": _live_options(edge),
    }


def _live_options(sections: Mapping[str, Settings]) -> dict[str, object]:
    """Return the options of the deployment with these sections. The first section has its replicas."""
    replicas = next(iter(sections.values()))
    assert isinstance(replicas, ReplicaArgs), f"the section {next(iter(sections))} has no replicas"
    user_config = {name: values for name, section in sections.items() if (values := section.live_values())}
    scaling = replicas.autoscaling
    number = {"num_replicas": replicas.num_replicas}
    return {
        **(number if scaling is None else {"autoscaling_config": autoscaling_config(scaling)}),
        "graceful_shutdown_timeout_s": replicas.graceful_shutdown_s,
        "max_surge_percent": replicas.most_surge_percent,
        **({"user_config": user_config} if user_config else {}),
    }


def autoscaling_config(args: AutoscalingArgs) -> dict[str, object]:
    """Return Serve's autoscaling configuration."""
    return {**args.model_dump(), **_METRICS, "policy": {"policy_function": "deployments.wire.load:replicas_needed"}}


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


def _deployment(cls: type, name: str, replicas: ReplicaArgs, args: AppArgs) -> serve.Deployment:
    decorate: Any = serve.deployment  # its stub knows only the form with keyword arguments
    with warnings.catch_warnings():
        # metrics_interval_s gives way to environment variables "in a future release"; Ray 2.60 does not read those.
        warnings.filterwarnings("ignore", ".*metrics_interval_s", DeprecationWarning)
        deployment: serve.Deployment = decorate(cls).options(
            name=name,
            ray_actor_options={
                "num_cpus": replicas.num_cpus,
                "num_gpus": replicas.num_gpus,
                "resources": replicas.resources,
            },
            max_ongoing_requests=_UNBOUNDED_REQUESTS,
            graceful_shutdown_wait_loop_s=0.1,
            health_check_period_s=2.0,
            health_check_timeout_s=10.0,  # Serve replaces a replica after three checks without an answer
            logging_config={"encoding": args.logging.encoding.upper(), "log_level": args.logging.level.upper()},
            **live_options(args)[name],
        )
    return deployment
