"""The commands of `qwen-tts cluster`."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Concatenate, ParamSpec

import click

from deployments.commands.cluster.api import Api, connect
from deployments.commands.cluster.apply import apply as apply_targets
from deployments.commands.cluster.apply import targets_of
from deployments.commands.cluster.diagnosis import diagnose, explain
from deployments.commands.cluster.display import WaitDisplay
from deployments.commands.cluster.errors import BadManifest, ClusterError
from deployments.commands.cluster.manifest import read_manifest
from deployments.commands.cluster.notes import notes
from deployments.commands.cluster.rayservice import Snapshot, choose, read
from deployments.commands.cluster.report import headline, status_text
from deployments.commands.cluster.resources import RAY_SERVICES
from deployments.commands.cluster.rollout import restart
from deployments.commands.cluster.waiting import Patience, wait_ready

_Rest = ParamSpec("_Rest")
_Command = Callable[..., None]


@dataclass(frozen=True)
class Where:
    """The kubeconfig, context and namespace of a command. None stands for the default of kubectl or of the context."""

    kubeconfig: Path | None
    context: str | None
    namespace: str | None

    def connect(self) -> Api:
        """Return a client of the API server, which is closed when the command ends. Raises ClusterError."""
        api = connect(self.kubeconfig, self.context, self.namespace)
        click.get_current_context().call_on_close(api.close)
        return api


def _for_cluster(command: Callable[Concatenate[Where, _Rest], None]) -> _Command:
    """Add the options of Where, and turn ClusterErrors into error messages without a traceback."""

    @click.option("-n", "--namespace", help="Default: that of the kubeconfig's context.")
    @click.option("--context", help="Default: the kubeconfig's current one.")
    @click.option(
        "--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: kubectl's."
    )
    @functools.wraps(command)
    def run(
        kubeconfig: Path | None, context: str | None, namespace: str | None, *args: _Rest.args, **options: _Rest.kwargs
    ) -> None:
        try:
            command(Where(kubeconfig, context, namespace), *args, **options)
        except ClusterError as error:
            raise click.ClickException(str(error)) from None

    return run


def _patient(command: _Command) -> _Command:
    """Add the options of Patience."""
    for option in (
        click.option(
            "--stuck-after",
            default=300.0,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Give up when one cause (no such image, no free GPU, ...) has lasted this many seconds. "
            "An autoscaler may need minutes to add a node.",
        ),
        click.option("--timeout", default=1800.0, show_default=True, type=click.FloatRange(min=0), help="Seconds."),
    ):
        command = option(command)
    return command


@click.group()
def cluster() -> None:
    """Group the commands of `qwen-tts cluster`. The help text of the group is in deployments/commands/main.py."""


@cluster.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--wait", is_flag=True, help="Wait afterwards until the service is ready.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that other field managers own.")
@_patient
@_for_cluster
def apply_command(
    where: Where, file: BinaryIO, wait: bool, force_conflicts: bool, timeout: float, stuck_after: float
) -> None:
    """Apply all objects of a manifest FILE (- is standard input).

    Accepts the output of `helm template` and the files in k8s/. All objects are read, and checked by a dry run on the
    server, before the first one is changed. Objects that are already equal stay as they are. Helm hooks (tests) are
    left out.
    """
    source = getattr(file, "name", "standard input")
    try:
        documents = read_manifest(file.read().decode("utf-8"), source)
    except UnicodeDecodeError:
        raise BadManifest(f"{source} is not UTF-8 text") from None
    api = where.connect()
    for hook in [document for document in documents if document.hook]:
        click.echo(f"{hook.kind} {hook.name} left out: a Helm hook ({hook.hook})")
    chosen = [document for document in documents if not document.hook]
    targets = targets_of(api, chosen, source, where.namespace is not None)
    for target, outcome in apply_targets(api, targets, force_conflicts):
        click.echo(f"{target} {outcome}")
    if wait:
        for target in targets:
            if target.resource == RAY_SERVICES:
                _wait(api.within(target.namespace), target.document.name, Patience(timeout, stuck_after))


@cluster.command()
@click.argument("name", required=False)
@_for_cluster
def status(where: Where, name: str | None) -> None:
    """Show conditions, clusters, applications, deployments and pods, and what is wrong with them."""
    api = where.connect()
    snapshot = read(api, choose(api, name))
    click.echo(status_text(snapshot))
    if causes := diagnose(snapshot, datetime.now(UTC)):
        click.echo(f"What is wrong:\n{explain(api, causes)}")
    _echo_notes(snapshot)


@cluster.command()
@click.argument("name", required=False)
@_patient
@_for_cluster
def wait(where: Where, name: str | None, timeout: float, stuck_after: float) -> None:
    """Wait until the service serves what was last applied; fail with the reason if waiting will not help."""
    api = where.connect()
    _wait(api, choose(api, name), Patience(timeout, stuck_after))


@cluster.command()
@click.argument("name", required=False)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the new cluster serves.")
@_patient
@_for_cluster
def rollout(where: Where, name: str | None, wait: bool, timeout: float, stuck_after: float) -> None:
    """Restart everything without downtime: a new cluster of the same specification takes over when it is ready.

    While both clusters run, the service needs twice its pods and GPUs.
    """
    api = where.connect()
    chosen = choose(api, name)
    replaced = restart(api, chosen)
    click.echo(f"RayService {chosen}: a new cluster is to replace {replaced}")
    if wait:
        _wait(api, chosen, Patience(timeout, stuck_after), replaced)


def _wait(api: Api, name: str, patience: Patience, replaced: str | None = None) -> None:
    with WaitDisplay() as display:
        snapshot = wait_ready(api, name, patience, display.show, replaced)
    click.echo(headline(snapshot))
    _echo_notes(snapshot)


def _echo_notes(snapshot: Snapshot) -> None:
    for note in notes(snapshot):
        click.echo(f"Note: {note}")
