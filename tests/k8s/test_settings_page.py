"""docs/settings.md is rendered from the settings, and no setting is missing from it."""

from collections.abc import Mapping

from deployments.settings import AppArgs
from k8s.render.__main__ import SETTINGS_PAGE
from k8s.render.settings_page import settings_page

SECTIONS = dict(part.split("\n", 1) for part in settings_page().split("\n## ")[1:])


def test_the_page_is_that_of_the_settings() -> None:
    assert SETTINGS_PAGE.read_text(encoding="utf-8") == settings_page(), "run `make manifests`"


def test_every_setting_has_a_row_in_its_section() -> None:
    args = AppArgs.model_validate({"ingress": {"autoscaling": {"max_replicas": 2}}}).model_dump()
    models = args.pop("models")
    assert "| `models` |" in SECTIONS["Top level"]
    check("models", models[0])
    check("Top level", args)


def check(section: str, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        assert f"| `{key}` |" in SECTIONS[section] or f"| `{key}` |" in SECTIONS["Replicas"], f"{section}.{key}"
        if isinstance(value, dict) and value:
            check({"long_text": "ingress.long_text"}.get(key, key), value)


def test_rows_say_type_default_and_meaning() -> None:
    rows = [line.strip("|").split(" | ") for text in SECTIONS.values() for line in text.splitlines() if "| `" in line]
    by_key = {row[0].strip(" `"): row[1:] for row in rows}
    assert by_key["slots"][:2] == ["integer ≥ 1", "`32`"]  # the codec decoder's, which is the later one
    assert by_key["max_replicas"][:2] == ["integer ≥ 1", "required"]
    assert by_key["long_text"][0] == "[ingress.long_text](#ingresslong_text)"
    assert by_key["aliases"][:2] == ["map: text to text", "`{}`"]
    assert [by_key[key][2].strip() for key in ("slots", "max_waiting", "aliases", "surge_percent")] == [
        "",
        *["yes"] * 3,
    ]
    assert all(len(row) == 4 and row[3].strip().endswith(".") for row in by_key.values())
