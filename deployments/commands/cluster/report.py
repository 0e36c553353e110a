"""A Snapshot as text: one line during a wait, several lines for `status`."""

from deployments.commands.cluster.objects import DeploymentStatus
from deployments.commands.cluster.rayservice import GroupPods, Snapshot


def headline(snapshot: Snapshot) -> str:
    """Return one line: whether the service serves what was last applied, and KubeRay's message about it."""
    ready = snapshot.condition("Ready")
    message = ready.get("message") or "the operator has reported nothing yet"
    if snapshot.is_ready:
        state = "ready"
    elif ready.get("status") == "True" and snapshot.active and snapshot.pending:
        state, message = "serving, being upgraded", f"cluster {snapshot.pending} is to replace {snapshot.active}"
    elif ready.get("status") == "True":
        state, message = "serving", "the last applied specification is not in place yet"
    else:
        state = "not ready"
    return f"RayService {snapshot.name}: {state} ({message})"


def progress_line(snapshot: Snapshot) -> str:
    """Return one line with the ready pods and healthy deployments of the cluster that is waited for."""
    parts = [f"pods {', '.join(map(_count, awaited_groups(snapshot))) or 'none yet'}"]
    for name, application in snapshot.applications.items():
        states = deployments(snapshot, name).values()
        healthy = sum(state.get("status") == "HEALTHY" for state in states)
        parts.append(f"application {name} {application.get('status')}, {healthy}/{len(states)} deployments healthy")
    cluster = snapshot.pending or snapshot.active
    return f"{snapshot.name}: {f'cluster {cluster}' if cluster else 'no cluster yet'}; {'; '.join(parts)}"


def status_text(snapshot: Snapshot) -> str:
    """Return several lines: conditions, clusters, endpoints, applications, deployments, pods."""
    lines = [headline(snapshot)]
    for condition in snapshot.status.get("conditions") or []:
        lines.append(
            f"  condition    {condition['type']}={condition['status']} {condition['reason']}: {condition['message']}"
        )
    for role, cluster in (("active", snapshot.active), ("pending", snapshot.pending)):
        lines.append(f"  {role:<12} {cluster or '-'}")
    lines.append(f"  endpoints    {snapshot.status.get('numServeEndpoints', 0)}")
    for name, application in snapshot.applications.items():
        lines.append(f"  application  {name} {application.get('status')} {application.get('message', '')}".rstrip())
        for deployment, state in deployments(snapshot, name).items():
            lines.append(f"    deployment {deployment} {state.get('status')} {state.get('message', '')}".rstrip())
    for group in snapshot.groups:
        lines.append(f"  pods         {_count(group)} ready, cluster {group.cluster}")
    return "\n".join(lines)


def awaited_groups(snapshot: Snapshot) -> list[GroupPods]:
    """Return the groups of the pending cluster, or of the active one if no cluster is pending."""
    return [group for group in snapshot.groups if group.cluster == (snapshot.pending or snapshot.active)]


def deployments(snapshot: Snapshot, application: str) -> dict[str, DeploymentStatus]:
    """Return the deployments of an application of the snapshot, by name."""
    return snapshot.applications[application].get("serveDeploymentStatuses") or {}


def _count(group: GroupPods) -> str:
    return f"{group.group} {group.ready}/{'?' if group.desired is None else group.desired}"
