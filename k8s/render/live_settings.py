"""files/live-settings.yaml of the chart: the settings that Serve changes in place, for the templates."""

import yaml

from deployments.app import autoscaling_config
from deployments.settings import AppArgs, AutoscalingArgs, ReplicaArgs

# The sections of each deployment. The first one has its replicas. All other deployments are talkers.
_SECTIONS = {
    "codec-decoder": ["codec_decoder"],
    "codec-encoder": ["codec_encoder"],
    "ingress": ["ingress", "voices", "reference_audio"],
}
_HEADER = "# Made of deployments/settings.py by `make manifests`. Change that file, not this one.\n"


def live_settings_text() -> str:
    """Return the content of live-settings.yaml."""
    args = AppArgs()
    names = ["talker", *(name for sections in _SECTIONS.values() for name in sections)]
    content = {
        "settings": {name: type(getattr(args, name)).live_names() for name in names},
        "replicas": sorted(ReplicaArgs.live_fields()),
        "autoscaling": autoscaling_config(AutoscalingArgs(max_replicas=1)),
        "deployments": _SECTIONS,
        "models": [{"name": model.name, "type": model.type} for model in args.models],
    }
    return _HEADER + yaml.safe_dump(content, sort_keys=True, default_flow_style=None, width=120)
