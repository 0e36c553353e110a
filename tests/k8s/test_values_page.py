"""values.md and the comments of values.yaml are rendered from the classes, and no value is missing."""

import json
import re

import pytest
import yaml

from k8s.render.__main__ import VALUES, VALUES_PAGE
from k8s.render.values_page import commented, values_page

TEXT = VALUES.read_text(encoding="utf-8")
DEFAULTS = yaml.safe_load(TEXT)
ROWS = {
    row[0].strip("`"): row[1:]
    for line in values_page(TEXT).splitlines()
    if line.startswith("| `")
    for row in [[cell.strip() for cell in line.strip("|").split(" | ")]]
}


def test_the_files_are_those_of_the_classes() -> None:
    assert commented(TEXT) == TEXT, "run `make manifests`"
    assert VALUES_PAGE.read_text(encoding="utf-8") == values_page(TEXT), "run `make manifests`"


def test_every_value_has_a_row_with_its_default() -> None:
    check("", {key: value for key, value in DEFAULTS.items() if key not in ("app", "workerGroups")})
    assert {"app", "workerGroups"} <= ROWS.keys()
    for group in DEFAULTS["workerGroups"]:
        assert {f"workerGroups[].{key}" for key in group} <= ROWS.keys()


def check(prefix: str, values: dict[str, object]) -> None:
    for key, value in values.items():
        kind, default, _ = ROWS[f"{prefix}{key}"]
        if kind == "section":
            assert isinstance(value, dict)
            check(f"{prefix}{key}.", value)
        else:
            assert default == f"`{json.dumps(value)}`"


def test_rows_say_type_and_meaning() -> None:
    assert ROWS["image.target"][0] == "`cpu`, `cuda`"
    assert ROWS["httpRoute.implementation"][0] == '`""`, `gke`, `aws`'
    assert ROWS["networkPolicy.serveFrom"][0] == "objects of Kubernetes"
    assert ROWS["workerGroups[].name"][1] == "required"
    assert ROWS["workerGroups[].mps"][1] == "`false`"
    assert all(len(row) == 3 and row[2].endswith(".") for row in ROWS.values())


def test_comments_are_replaced_and_values_are_not() -> None:
    stale = re.sub(r"^( *)# .*", r"\1# Stale.", TEXT, flags=re.MULTILINE).replace(
        "startupSeconds: 1800", "startupSeconds: 7"
    )
    fresh = commented(stale)
    assert "Stale" not in fresh
    assert yaml.safe_load(fresh) == DEFAULTS | {"startupSeconds": 7}
    assert commented(fresh) == fresh
    assert all(len(line) <= 120 for line in fresh.splitlines())


def test_a_value_without_a_class_is_noticed() -> None:
    with pytest.raises(KeyError, match="unknown"):
        check("", {"unknown": 1})
