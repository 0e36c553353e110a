"""The content of values.schema.json: the chart's own values, and under `app` the application's settings."""

import json

from deployments.settings import AppArgs
from k8s.render.values import Values

JsonObject = dict[str, object]

# Settings that the chart derives from longestStreamSeconds and apiKeys, so values.yaml cannot set them.
DERIVED = ("graceful_shutdown_s", "api_keys")
# Left out of the schema: values.yaml and settings.py contain the descriptions, the defaults and the marks.
_LEFT_OUT = ("title", "description", "default", "live")


def values_schema() -> JsonObject:
    """Return the JSON schema of the chart's values."""
    values = Values.model_json_schema()
    app = AppArgs.model_json_schema(ref_template="#/$defs/app.{model}")
    assert "api_keys" in app["properties"], "the settings no longer have a field that the chart derives"
    definitions = values.pop("$defs") | {f"app.{name}": part for name, part in app.pop("$defs").items()}
    del definitions["app.ApiKeyArgs"]
    values["properties"] |= {
        "app": {"$ref": "#/$defs/app"},
        "global": {"type": "object"},  # Helm passes it to every subchart
    }
    values["required"].append("app")
    schema = _bare(values | {"$defs": definitions | {"app": app}})
    assert isinstance(schema, dict), "the schema of a mapping became something else"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def values_schema_text() -> str:
    """Return the content of values.schema.json."""
    return json.dumps(values_schema(), indent=1, sort_keys=True) + "\n"


def _bare(part: object) -> object:
    if isinstance(part, list):
        return [_bare(item) for item in part]
    if not isinstance(part, dict):
        return part
    bare = {key: _bare(value) for key, value in part.items() if key not in (*_LEFT_OUT, "properties")}
    if "patternProperties" in part:
        bare["additionalProperties"] = False
    if "properties" in part:  # its keys are names of values, so none of them is left out as a keyword of the schema
        bare["properties"] = {name: _bare(value) for name, value in part["properties"].items() if name not in DERIVED}
    return bare
