"""values.md of the chart, and the comments of values.yaml: the descriptions of the classes in values.py."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from k8s.render.settings_page import one_line, type_name
from k8s.render.values import Values

JsonObject = Mapping[str, object]

_INTRO = """\
<!-- Rendered from k8s/render/values.py and values.yaml by `make manifests`. Change those files, not this one. -->

# Values

These are all values of the [chart](README.md). A misspelt value is an error. `workerGroups[]` is an item of
the list."""
_COMMENT = """\
# The embedded demo models on one CPU pod. The presets beside this file change the hardware (values-l4.yaml, ...) and
# the models (values-one-model.yaml, values-three-families.yaml); pass one of each with -f. A misspelt key is an error.
# The comments are rendered from k8s/render/values.py by `make manifests`. values.md has those of all keys."""
_APP = (
    "The application's settings ([docs/settings.md](../../docs/settings.md)). The chart derives some of them, which "
    "must not be set here: graceful_shutdown_s, api_keys, and voices.url if voices.claim is enabled."
)
_HEADS = ("key", "type", "default", "meaning")
_KEY = re.compile(r"^( *)(\w+):")
# In values.yaml, the comments of a section and its keys are enough. `enabled` explains itself there.
_COMMENTED_LEVELS = 2
_WIDTH = 120


@dataclass(frozen=True)
class Value:
    """A value or a section of values, by its path, such as `workerGroups[].name`."""

    path: str
    type: str
    default: str
    meaning: str


def values_page(values_yaml: str) -> str:
    """Return the content of values.md, with the defaults of values.yaml."""
    rows = [(f"`{one.path}`", one.type, one.default, one.meaning) for one in _values(yaml.safe_load(values_yaml))]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (_HEADS, ("---",) * len(_HEADS), *rows))
    return f"{_INTRO}\n\n{table}\n"


def commented(values_yaml: str) -> str:
    """Return values.yaml with the comments of the classes instead of its own."""
    meanings = {one.path: one.meaning for one in _values(yaml.safe_load(values_yaml))}
    lines, path = [_COMMENT], list[str]()
    for line in values_yaml.splitlines():
        if line.lstrip().startswith("#"):
            continue
        if key := _KEY.match(line):
            path = [*path[: len(key[1]) // 2], key[2]]
            meaning = meanings.get(".".join(path), "")
            if len(path) <= _COMMENTED_LEVELS and key[2] != "enabled" and meaning:
                lines += _comment(meaning, key[1])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _comment(meaning: str, indent: str) -> list[str]:
    prose = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", meaning)
    begin = f"{indent}# "
    return textwrap.wrap(
        prose, _WIDTH, initial_indent=begin, subsequent_indent=begin, break_long_words=False, break_on_hyphens=False
    )


def _values(defaults: JsonObject) -> list[Value]:
    """Return all values in the order of values.yaml."""
    schema = Values.model_json_schema()
    app = Value("app", "section", "", _APP)
    found = [app, *_of(schema, _object(schema["$defs"]), "", defaults)]
    order = list(defaults)
    return sorted(found, key=lambda one: order.index(re.split(r"[.\[]", one.path)[0]))


def _of(schema: JsonObject, definitions: JsonObject, prefix: str, defaults: object) -> Iterator[Value]:
    """Yield the values of a section. `defaults` are those of values.yaml, or None for the items of a list."""
    for key, value in _object(schema["properties"]).items():
        path, part = f"{prefix}{key}", _object(value)
        assert "description" in part, f"{path} has no string below it in k8s/render/values.py"
        meaning = one_line(part["description"])
        default = defaults.get(key) if isinstance(defaults, dict) else None
        match part:
            case {"$ref": str(name)}:
                yield Value(path, "section", "", meaning)
                yield from _of(_definition(definitions, name), definitions, f"{path}.", default)
            case {"items": {"$ref": str(name)}}:
                yield Value(path, "list", "", meaning)
                yield from _of(_definition(definitions, name), definitions, f"{path}[].", None)
            case _:
                shown = part.get("default") if default is None else default
                needed = not isinstance(defaults, dict) and key in _names(schema)
                yield Value(path, _type(part), "required" if needed else f"`{json.dumps(shown)}`", meaning)


def _type(schema: JsonObject) -> str:
    match schema:
        case {"additionalProperties": True} | {"items": {"additionalProperties": True}}:
            return "objects of Kubernetes"
        case {"anyOf": [options, {"type": "null"}]}:
            return type_name(_object(options))
        case {"patternProperties": _} | {"propertyNames": _}:
            return "map: text to text"
    return type_name(schema)


def _definition(definitions: JsonObject, reference: str) -> JsonObject:
    return _object(definitions[reference.rpartition("/")[2]])


def _names(schema: JsonObject) -> list[object]:
    required = schema.get("required", [])
    assert isinstance(required, list), required
    return required


def _object(value: object) -> JsonObject:
    assert isinstance(value, dict), value
    return value
