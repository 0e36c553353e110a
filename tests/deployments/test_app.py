"""What Ray is asked for, without a Ray to ask."""

import pytest
from ray import serve
from ray.serve.config import AutoscalingConfig

from deployments.app import build_app
from deployments.settings import AppArgs
from deployments.wire.load import replicas_needed


def deployments(settings: dict[str, object]) -> dict[str, serve.Deployment]:
    """Deployments of the application that these settings build, by name."""
    found: dict[str, serve.Deployment] = {}

    def walk(value: object) -> None:
        if isinstance(value, serve.Application):
            deployment = value._bound_deployment
            found[deployment.name] = deployment
            for argument in deployment.init_args:
                walk(argument)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)

    walk(build_app(AppArgs.model_validate(settings)))
    return found


def test_one_talker_a_model_and_shared_pools() -> None:
    models = [{"name": "a/b", "type": "base"}, {"name": "c", "type": "custom_voice"}]
    assert set(deployments({"models": models})) == {
        "ingress", "codec-decoder", "codec-encoder", "talker-a-b", "talker-c",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "encodes"),
    [
        ({"type": "custom_voice"}, False),
        ({"type": "voice_design"}, False),
        ({"type": "base"}, True),
        ({"checkpoint": "/unknown"}, True),
    ],
)
def test_an_encoder_only_where_voices_may_be_cloned(model: dict[str, object], encodes: bool) -> None:
    assert ("codec-encoder" in deployments({"models": [{"name": "m", **model}]})) is encodes


def test_resources_and_fractions_of_a_gpu_pass_through() -> None:
    found = deployments(
        {
            "models": [
                {"name": "small", "type": "base"},
                {"name": "large", "type": "custom_voice", "talker": {"num_gpus": 1, "resources": {"h100": 1}}},
            ],
            "talker": {"num_gpus": 0.6, "num_replicas": 3},
            "codec_decoder": {"num_gpus": 0.25, "resources": {"decoders": 0.5}},
            "codec_encoder": {"num_gpus": 0.15, "num_cpus": 2},
        }
    )
    options = {name: deployment.ray_actor_options or {} for name, deployment in found.items()}
    assert options["talker-small"]["num_gpus"] == 0.6
    assert found["talker-small"].num_replicas == 3
    assert (options["talker-large"]["num_gpus"], options["talker-large"]["resources"]) == (1, {"h100": 1})
    assert found["talker-large"].num_replicas == 1, "a model's own section replaces the application's"
    assert (options["codec-decoder"]["num_gpus"], options["codec-decoder"]["resources"]) == (0.25, {"decoders": 0.5})
    assert (options["codec-encoder"]["num_gpus"], options["codec-encoder"]["num_cpus"]) == (0.15, 2)
    assert options["ingress"]["num_gpus"] == 0


@pytest.mark.parametrize("section", ["talker", "codec_decoder", "codec_encoder", "ingress"])
def test_every_deployment_can_follow_its_load(section: str) -> None:
    scaling = {"min_replicas": 2, "max_replicas": 5, "upscale_delay_s": 1.5}
    models = [{"name": "m", "type": "base"}]
    found = deployments({"models": models, section: {"autoscaling": scaling | {"downscale_delay_s": 9}}})
    name = {"talker": "talker-m"}.get(section, section.replace("_", "-"))
    for other, deployment in found.items():
        config = deployment._deployment_config.autoscaling_config
        if other != name:
            assert config is None
            continue
        assert isinstance(config, AutoscalingConfig)
        assert (config.min_replicas, config.max_replicas) == (2, 5)
        assert config.policy.get_policy().__name__ == replicas_needed.__name__
        assert (config.upscale_delay_s, config.downscale_delay_s) == (1.5, 9)


def test_an_update_starts_new_replicas_first_where_there_is_room() -> None:
    found = deployments(
        {
            "models": [{"name": "m", "type": "custom_voice"}],
            "talker": {"num_gpus": 0.5},
            "codec_decoder": {"num_gpus": 0.5, "surge_percent": 50},
            "ingress": {"surge_percent": 0},
        }
    )
    surge = {name: deployment._deployment_config.max_surge_percent for name, deployment in found.items()}
    assert surge == {"talker-m": 0, "codec-decoder": 50, "ingress": 0}
    assert deployments({})["codec-decoder"]._deployment_config.max_surge_percent == 100


def test_live_settings_are_the_user_config_of_their_deployment() -> None:
    settings: dict[str, object] = {
        "models": [{"name": "a", "type": "base"}, {"name": "b", "type": "base", "talker": {"max_waiting": 2}}],
        "talker": {"max_waiting": 1},
        "codec_encoder": {"max_waiting": 3},
        "voices": {"aliases": {"alloy": "ryan"}},
    }
    found = {name: deployment.user_config for name, deployment in deployments(settings).items()}
    assert found["talker-a"] == {"talker": {"max_waiting": 1}}
    assert found["talker-b"] == {"talker": {"max_waiting": 2}}
    assert found["codec-encoder"] == {"codec_encoder": {"max_waiting": 3}}
    assert found["codec-decoder"] is None
    assert found["ingress"]["voices"]["aliases"] == {"alloy": "ryan"}
    assert found["ingress"].keys() == {"ingress", "voices", "reference_audio"}


def test_every_deployment_logs_as_the_settings_say() -> None:
    for deployment in deployments({"logging": {"encoding": "json", "level": "warning"}}).values():
        config = deployment._deployment_config.logging_config
        assert config is not None
        assert (config["encoding"], config["log_level"]) == ("JSON", "WARNING"), deployment.name
