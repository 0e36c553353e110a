"""A Snapshot in words: one line for those who wait, some more for `status`."""

from deployments.commands.cluster.objects import DeploymentStatus
from deployments.commands.cluster.rayservice import GroupPods, Snapshot


def headline(snapshot: Snapshot) -> str:
    """Whether it serves what was last applied, and what KubeRay says of it."""
    ready = snapshot.condition("Ready")
    told = ready.get("message") or "the operator has said nothing yet"
    if snapshot.is_ready:
        state = "ready"
    elif ready.get("status") == "True" and snapshot.active and snapshot.pending:
        state, told = "serving, being upgraded", f"cluster {snapshot.pending} is to replace {snapshot.active}"
    elif ready.get("status") == "True":
        state, told = "serving", "what was last applied is not in place yet"
    else:
        state = "not ready"
    return f"RayService {snapshot.name}: {state} ({told})"


def progress_line(snapshot: Snapshot) -> str:
    """Pods and deployments so far, of the cluster that is waited for."""
    parts = [f"pods {', '.join(map(_count, awaited_groups(snapshot))) or 'none yet'}"]
    for name, application in snapshot.applications.items():
        states = deployments(snapshot, name).values()
        healthy = sum(state.get("status") == "HEALTHY" for state in states)
        parts.append(f"application {name} {application.get('status')}, {healthy}/{len(states)} deployments healthy")
    cluster = snapshot.pending or snapshot.active
    return f"{snapshot.name}: {f'cluster {cluster}' if cluster else 'no cluster yet'}; {'; '.join(parts)}"


def status_text(snapshot: Snapshot) -> str:
    """Several lines: conditions, clusters, applications, pods, endpoints."""
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
    return [group for group in snapshot.groups if group.cluster == (snapshot.pending or snapshot.active)]


def deployments(snapshot: Snapshot, application: str) -> dict[str, DeploymentStatus]:
    return snapshot.applications[application].get("serveDeploymentStatuses") or {}


def _count(group: GroupPods) -> str:
    return f"{group.group} {group.ready}/{'?' if group.desired is None else group.desired}"
