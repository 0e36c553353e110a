"""The chart separates the settings that Serve changes in place from those that start new replicas."""

import json
from pathlib import Path

import pytest

from deployments.app import live_options
from deployments.settings import AppArgs, ReplicaArgs, Settings
from tests.k8s.charts import COMBINATIONS, Combination, Object, app_settings, items, render, serve_config

# Every kind of live setting, in a talker of its own, too.
LIVE = Combination(
    options=json.dumps(
        {
            "app": {
                "models": [
                    {"name": "org/a", "type": "custom_voice", "start_wait_s": 9, "talker": {
                        "slots": 2, "max_waiting": 0, "surge_percent": 0,
                        "autoscaling": {"min_replicas": 0, "max_replicas": 3, "upscale_delay_s": 0},
                    }},
                    {"name": "b", "type": "base"},
                    {"name": "defaults", "type": "base", "talker": {}},
                ],
                "talker": {"num_replicas": 2, "max_waiting": 5},
                "codec_encoder": {"max_waiting": 3, "surge_percent": 50},
                "ingress": {"long_text": {"ahead_s": 0}, "max_body_bytes": 17_000_001},
                "voices": {"aliases": {"alloy": "ryan"}, "max_voices": 3, "cache_bytes": 7},
                "reference_audio": {"allow_http_urls": True, "max_fetches": 2},
            }
        }
    )
)  # fmt: skip


def deployed(objects: tuple[Object, ...]) -> tuple[AppArgs, dict[str, Object]]:
    """Return the `args` of the Serve config, and the options of its `deployments` by name."""
    (application,) = items(serve_config(objects), "applications")
    args = AppArgs.model_validate(application["args"])
    return args, {str(one.pop("name")): one for one in items(application, "deployments")}


@pytest.mark.parametrize("combination", [*COMBINATIONS, LIVE], ids=str)
def test_args_and_deployments_together_are_the_settings(helm: Path, combination: Combination) -> None:
    args, overrides = deployed(render(combination, helm))
    wanted, of_args = live_options(app_settings(combination)), live_options(args)
    assert overrides.keys() == wanted.keys()
    for name, override in overrides.items():
        given = of_args[name] | {key: value for key, value in override.items() if key != "user_config"}
        if "autoscaling_config" in given:
            given.pop("num_replicas")
        if "user_config" in given:
            given["user_config"] = changed(given["user_config"], override.get("user_config", {}))
        assert given == wanted[name], name


def changed(config: object, override: object) -> Object:
    """Return the settings of a replica that was built with `config` and has received `override`."""
    assert isinstance(config, dict)
    assert isinstance(override, dict)
    args = AppArgs()
    assert override.keys() <= config.keys()
    return {
        name: getattr(args, name).changed(one | override.get(name, {})).live_values() for name, one in config.items()
    }


@pytest.mark.parametrize("combination", [*COMBINATIONS, LIVE], ids=str)
def test_no_live_setting_is_in_args(helm: Path, combination: Combination) -> None:
    """A change of `args` starts new replicas, whatever it is."""
    args, _ = deployed(render(combination, helm))
    assert fixed(args) == fixed(app_settings(combination))
    for section in sections(args):
        assert not section.model_fields_set & type(section).live_fields()


def sections(args: AppArgs) -> list[Settings]:
    """Return the sections of `args` that are set."""
    found: list[Settings | None] = [getattr(args, name) for name in args.model_fields_set if name != "models"]
    found += [model.talker for model in args.models]
    return [section for section in found if section is not None]


def fixed(args: AppArgs) -> list[Object]:
    talkers = [args.talker_of(model) for model in args.models]
    others = [args.codec_decoder, args.codec_encoder, args.ingress, args.voices, args.reference_audio, args.api_keys]
    models = [model.model_dump(exclude={"talker"}) for model in args.models]
    return models + [section.model_dump(exclude=type(section).live_fields()) for section in [*talkers, *others]]


def test_every_replica_setting_that_serve_applies_is_live() -> None:
    assert ReplicaArgs.live_fields() == {"num_replicas", "autoscaling", "graceful_shutdown_s", "surge_percent"}
