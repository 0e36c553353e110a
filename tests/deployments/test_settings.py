"""Settings: a misspelt key is an error that names it, and what is not given has its default."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments.settings import AppArgs, ModelArgs, TalkerArgs, describe_faults, faulty_settings_logged, load_settings


def faults(settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        AppArgs.model_validate(settings)
    return describe_faults(caught.value.errors(include_url=False))


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"talkers": {}}, "talkers"),
        ({"talker": {"slot": 4}}, "talker.slot"),
        ({"codec_decoder": {"max_batches": 4}}, "codec_decoder.max_batches"),
        ({"ingress": {"max_body": 4}}, "ingress.max_body"),
        (
            {"models": [{"name": "a", "type": "base"}, {"name": "b", "type": "base", "checkpiont": "c"}]},
            "models.1.checkpiont",
        ),
    ],
)
def test_misspelt_key_is_named(settings: object, where: str) -> None:
    assert faults(settings) == f"{where}: Extra inputs are not permitted"


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"talker": {"slots": 0}}, "talker.slots"),
        ({"talker": {"max_waiting": -1}}, "talker.max_waiting"),
        ({"talker": {"dtype": "float8"}}, "talker.dtype"),
        ({"talker": {"chunk_schedule": []}}, "talker.chunk_schedule"),
        ({"talker": {"chunk_schedule": [1, 0]}}, "talker.chunk_schedule.1"),
        ({"codec_decoder": {"num_gpus": -1}}, "codec_decoder.num_gpus"),
        ({"ingress": {"body_timeout_s": 0}}, "ingress.body_timeout_s"),
        ({"models": []}, "models"),
        ({"models": [{"name": "a b", "type": "base"}]}, "models.0.name"),
        ({"models": [{"name": "a", "type": "basic"}]}, "models.0.type"),
        ({"models": [{"name": "a"}]}, "models.0"),
        ({"talker": {"autoscaling": {"max_replicas": 1, "min_replicas": 2}}}, "talker.autoscaling"),
        (
            {"talker": {"autoscaling": {"max_replicas": 1, "min_replicas": 0, "downscale_delay_s": 9}}},
            "talker.autoscaling",
        ),
        ({"talker": {"autoscaling": {"max_replicas": 2}, "num_replicas": 2}}, "talker"),
        ({"talker": {"surge_percent": 101}}, "talker.surge_percent"),
        ({"voices": {"cache_bytes": -1}}, "voices.cache_bytes"),
    ],
)
def test_impossible_value_is_refused_by_its_key(settings: object, where: str) -> None:
    assert faults(settings).startswith(f"{where}: ")


@pytest.mark.parametrize("section", ["talker", "codec_decoder", "codec_encoder", "ingress"])
def test_only_talkers_of_models_that_say_so_may_have_no_replica(section: str) -> None:
    none = {section: {"autoscaling": {"min_replicas": 0, "max_replicas": 1}}}
    assert "start_wait_s" in faults(none)
    models: list[dict[str, object]] = [
        {"name": "a", "type": "base", "start_wait_s": 20},
        {"name": "b", "type": "base"},
    ]
    assert "start_wait_s" in faults({"models": models, **none})
    if section == "talker":
        AppArgs.model_validate({"models": models[:1], **none})
        AppArgs.model_validate({"models": [models[0], {**models[1], "talker": {}}], **none})


def test_only_live_settings_can_change() -> None:
    args = TalkerArgs(slots=3, max_waiting=4)
    assert args.live_values() == {"max_waiting": 4}
    assert args.changed({"max_waiting": 9}) == TalkerArgs(slots=3, max_waiting=9)
    with pytest.raises(ValueError, match="slots: not a live setting"):
        args.changed({"slots": 9})
    with pytest.raises(ValidationError):
        args.changed({"max_waiting": -1})


def test_a_fault_of_live_settings_is_logged_and_ends_no_replica(caplog: pytest.LogCaptureFixture) -> None:
    with faulty_settings_logged():
        TalkerArgs().changed({"max_wait": 1})
    assert "max_wait: not a live setting" in caplog.text


def test_every_fault_has_a_line() -> None:
    lines = faults({"talker": {"slots": 0}, "ingres": {}}).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["talker.slots", "ingres"]


def test_defaults() -> None:
    args = AppArgs()
    assert [(model.name, model.checkpoint, model.type) for model in args.models] == [
        ("demo-custom-voice", "embedded", "custom_voice"),
        ("demo-base", "embedded", "base"),
        ("demo-voice-design", "embedded", "voice_design"),
    ]
    assert args.talker.chunk_schedule == (1, 2, 4, 8)
    assert args.talker.threads is args.codec_decoder.threads is None
    assert (args.talker.num_gpus, args.codec_decoder.num_gpus, args.ingress.num_gpus) == (0, 0, 0)


def test_two_models_of_one_name_are_refused() -> None:
    assert "names must differ, got a, b, a" in faults({"models": [{"name": name, "checkpoint": "c"} for name in "aba"]})


def test_settings_are_frozen() -> None:
    args = AppArgs()
    with pytest.raises(ValidationError, match="frozen"):
        args.talker = TalkerArgs(slots=1)  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        args.talker.slots = 1  # type: ignore[misc]


def test_yaml_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "models: [{name: a, checkpoint: /c}, {name: b/c, checkpoint: d}]\n"
        "talker:\n  slots: 3\n  chunk_schedule: [2, 5]\n"
    )
    args = load_settings(file)
    assert args.models == (ModelArgs(name="a", checkpoint="/c"), ModelArgs(name="b/c", checkpoint="d"))
    assert (args.talker.slots, args.talker.chunk_schedule) == (3, (2, 5))
    assert args.talker.max_waiting == TalkerArgs().max_waiting
    assert args.codec_decoder == AppArgs().codec_decoder


@pytest.mark.parametrize("content", ["", "# nothing\n", "{}\n"])
def test_empty_yaml_is_all_defaults(tmp_path: Path, content: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    assert load_settings(file) == AppArgs()


def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("- talker\n")
    with pytest.raises(ValidationError):
        load_settings(file)
