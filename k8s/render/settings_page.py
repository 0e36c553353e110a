"""docs/settings.md: every setting with its type, default and meaning, rendered from the classes of settings.py."""

import json
from collections.abc import Mapping

from deployments.settings import (
    ApiKeyArgs,
    AppArgs,
    AutoscalingArgs,
    CodecDecoderArgs,
    CodecEncoderArgs,
    IngressArgs,
    LoggingArgs,
    LongTextArgs,
    ModelArgs,
    ReferenceAudioArgs,
    ReplicaArgs,
    Settings,
    TalkerArgs,
    TracingArgs,
    VoiceStoreArgs,
)

JsonObject = Mapping[str, object]

_INTRO = """\
<!-- Rendered from deployments/settings.py by `make manifests`. Change that file, not this one. -->

# Settings

`qwen-tts serve --config settings.yaml` reads these settings from a YAML file. They are also the `args` of a Serve
config file whose `import_path` is `deployments.app:build_app`. The values under `app` of the
[Helm chart](../helm/qwen-tts/README.md) are the same keys. The chart itself sets `graceful_shutdown_s` and `api_keys`.
A misspelt key is an error.

Keys that end in `_s` are seconds, and keys that end in `_bytes` are bytes.

Running replicas accept a change of a **live** setting, with all keys inside it. A change of any other setting starts
new replicas of all deployments. Serve compares `args` as a whole, so live settings that are to change in place belong
in the `deployments` of the Serve config file, not in its `args`. The Helm chart separates them;
[k8s/l4-one-model.yaml](../k8s/l4-one-model.yaml) is an example. The entry of a deployment there has the keys
`num_replicas`, `autoscaling_config` (`autoscaling`), `graceful_shutdown_timeout_s` (`graceful_shutdown_s`),
`max_surge_percent` (`surge_percent`), and `user_config` with the other live settings by section. `serve run` replaces
all replicas, whatever has changed."""

# Heading -> class. The replica settings are common to four sections and have one table.
_SECTIONS: Mapping[str, type[Settings]] = {
    "Top level": AppArgs,
    "models": ModelArgs,
    "talker": TalkerArgs,
    "codec_decoder": CodecDecoderArgs,
    "codec_encoder": CodecEncoderArgs,
    "ingress": IngressArgs,
    "ingress.long_text": LongTextArgs,
    "voices": VoiceStoreArgs,
    "reference_audio": ReferenceAudioArgs,
    "api_keys": ApiKeyArgs,
    "logging": LoggingArgs,
    "tracing": TracingArgs,
    "Replicas": ReplicaArgs,
    "autoscaling": AutoscalingArgs,
}
_HEADINGS = {kind.__name__: heading for heading, kind in _SECTIONS.items()}
_HEADS = ("key", "type", "default", "live", "meaning")


def settings_page() -> str:
    """Return the whole page, with a table for each section."""
    return "\n\n".join([_INTRO, *(_section(heading, kind) for heading, kind in _SECTIONS.items())]) + "\n"


def _section(heading: str, kind: type[Settings]) -> str:
    schema = kind.model_json_schema()
    keys, required = schema["properties"], schema.get("required", [])
    meaning = one_line(schema["description"])
    if issubclass(kind, ReplicaArgs) and kind is not ReplicaArgs:
        common = ReplicaArgs.model_json_schema()["properties"]
        keys = {key: value for key, value in keys.items() if value != common.get(key)}
        meaning += f" This section also has the keys of {_link(ReplicaArgs.__name__)}."
    rows = [_HEADS, ("---",) * len(_HEADS), *(_row(key, value, key in required) for key, value in keys.items())]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {heading}\n\n{meaning}\n\n{table}"


def _row(key: str, schema: JsonObject, required: bool) -> tuple[str, ...]:
    assert "description" in schema, f"{key} has no string below it in deployments/settings.py"
    default = "required" if required else _default(schema)
    live = "yes" if schema.get("live") else ""
    return f"`{key}`", type_name(schema), default, live, one_line(schema["description"])


def _default(schema: JsonObject) -> str:
    """Return the default, or nothing where the meaning or a section's own table has it."""
    nested = "$ref" in schema or "$ref" in _object(schema.get("items", {}))
    return "" if "default" not in schema or nested else f"`{json.dumps(schema['default'])}`"


def type_name(schema: JsonObject) -> str:
    match schema:
        case {"$ref": str(reference)}:
            return _link(reference.rpartition("/")[2])
        case {"anyOf": list(options)}:
            return " or ".join(type_name(option) for option in options)
        case {"enum": list(values)}:
            return ", ".join(f"`{value}`" if value else '`""`' for value in values)
        case {"type": "array", "items": items}:
            return f"list: {type_name(_object(items))}"
        case {"type": "object", "additionalProperties": values}:
            return f"map: text to {type_name(_object(values))}"
        case {"type": "string"}:
            return "path" if schema.get("format") == "path" else "text"
        case {"type": "null"}:
            return "`null`"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": str(kind)}:
            return f"{kind}{_bound(schema)}"
    raise AssertionError(f"no words for the type {schema}")


def _bound(schema: JsonObject) -> str:
    if "exclusiveMinimum" in schema:
        return f" > {schema['exclusiveMinimum']}"
    return f" ≥ {schema['minimum']}" if "minimum" in schema else ""


def _link(kind: str) -> str:
    """Return the link to a section, by the name of its class."""
    heading = _HEADINGS[kind]
    return f"[{heading}](#{heading.lower().replace('.', '')})"


def one_line(text: object) -> str:
    return " ".join(str(text).split())


def _object(value: object) -> JsonObject:
    assert isinstance(value, dict)
    return value
