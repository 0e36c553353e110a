"""The live settings of an ingress replica."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.access.caller import EVERYONE
from deployments.settings import IngressArgs, LongTextArgs, ReferenceAudioArgs, Settings, VoiceStoreArgs
from deployments.speech.service import SpeechService

# Other values than the defaults, and where they take effect. Routes read `service.args` at each request.
SETTINGS: Mapping[str, Mapping[str, tuple[object, Callable[[SpeechService], object]]]] = {
    "ingress": {
        "max_input_characters": (5, lambda service: service.limits.live_characters),
        "long_text": ({"max_characters": 7, "ahead_s": 0.0}, lambda service: service._opener.args),
        "max_audio_bytes_under_way": (9, lambda service: service._encoding.budget.most_bytes),
        "max_body_bytes": (3, lambda service: service.args.max_body_bytes),
        "max_bytes_under_way": (4, lambda service: service.args.max_bytes_under_way),
        "body_pause_s": (0.5, lambda service: service.args.body_pause_s),
        "body_timeout_s": (0.6, lambda service: service.args.body_timeout_s),
        "max_candidates": (1, lambda service: service.args.max_candidates),
        "batch_concurrency": (2, lambda service: service.args.batch_concurrency),
        "max_batch_audio_bytes": (6, lambda service: service.args.max_batch_audio_bytes),
        "max_wait_s": (0.25, lambda service: service.terms(EVERYONE, "interactive", None).max_wait_s),
        "max_batch_wait_s": (0.75, lambda service: service.terms(EVERYONE, "batch", None).max_wait_s),
        "live_text_timeout_s": (0.7, lambda service: service.args.live_text_timeout_s),
    },
    "voices": {
        "aliases": ({"alloy": "ryan"}, lambda service: service.library.aliases),
        "max_voices": (11, lambda service: service.library._store.max_voices),
        "max_consents": (12, lambda service: service.consents.limit),
    },
    "reference_audio": {
        "max_bytes": (13, lambda service: service.library.max_audio_bytes),
        "allow_http_urls": (True, lambda service: service.library._limits.allow_http),
        "url_timeout_s": (0.8, lambda service: service.library._limits.timeout_s),
    },
}
CASES = [(section, name) for section, settings in SETTINGS.items() for name in settings]


@pytest.fixture
def service(tmp_path: Path) -> SpeechService:
    nothing: Any = None  # no request is made
    voices = VoiceStoreArgs(url=str(tmp_path))
    return SpeechService(nothing, nothing, nothing, IngressArgs(max_candidates=3), voices, ReferenceAudioArgs())


def test_every_live_setting_is_tested() -> None:
    kinds: dict[str, type[Settings]] = {
        "ingress": IngressArgs,
        "voices": VoiceStoreArgs,
        "reference_audio": ReferenceAudioArgs,
    }
    assert {name: sorted(settings) for name, settings in SETTINGS.items()} == {
        name: kind.live_names() for name, kind in kinds.items()
    }


@pytest.mark.parametrize(("section", "name"), CASES)
def test_a_live_setting_takes_effect(service: SpeechService, section: str, name: str) -> None:
    value, seen = SETTINGS[section][name]
    before = seen(service)
    service.reconfigure({section: {name: value}})
    expected = LongTextArgs.model_validate(value) if name == "long_text" else value
    assert seen(service) == expected != before


def test_a_setting_that_is_omitted_has_its_first_value_again(service: SpeechService) -> None:
    service.reconfigure({"ingress": {"max_candidates": 1}, "voices": {"aliases": {"alloy": "ryan"}}})
    service.reconfigure({"ingress": {"max_body_bytes": 3}})
    assert (service.args.max_candidates, service.args.max_body_bytes, service.library.aliases) == (3, 3, {})


def test_faulty_settings_change_nothing(service: SpeechService) -> None:
    service.reconfigure({"voices": {"aliases": {"alloy": "ryan"}}})
    for fault in ({"url_timeout_s": 0}, {"max_fetches": 1}):
        with pytest.raises(ValueError):  # noqa: PT011  # the text is that of the settings
            service.reconfigure({"ingress": {"max_candidates": 1}, "reference_audio": fault})
        assert (service.args.max_candidates, service.library.aliases) == (3, {"alloy": "ryan"})
