"""The command `qwen-tts`: serve, status, api-key, say, make-checkpoint, evaluate, cluster.

Each command imports what it needs when it runs, so that `qwen-tts --help` answers at once.
"""

import click

from deployments.commands.api_key import api_key
from deployments.commands.evaluate import evaluate
from deployments.commands.make_checkpoint import make_checkpoint
from deployments.commands.say import say
from deployments.commands.serve import serve
from deployments.commands.status import status


@click.group()
def main() -> None:
    """Qwen3-TTS: a speech service and its model library."""


class _ClusterCommands(click.Group):
    """The commands of the package `cluster`, which is imported when one is called, because it needs an extra."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._group().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._group().get_command(ctx, cmd_name)

    def _group(self) -> click.Group:
        try:
            from deployments.commands.cluster.commands import cluster
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"qwen-tts cluster needs {error.name}: pip install 'qwen-tts-serve[cluster]'"
            ) from None
        return cluster


@main.group("cluster", cls=_ClusterCommands)
def cluster_commands() -> None:
    """The service on Kubernetes, run by the KubeRay operator.

    NAME is a RayService; omit it where the namespace has just one.
    """


for _command in (serve, status, api_key, say, make_checkpoint, evaluate):
    main.add_command(_command)
