"""Serve's replicas on the pods of a RayService: an imitation of Serve and Ray's autoscaler, for any order of events.

Serve starts each replica where its resources are free. The autoscaler adds a pod of a group, up to `maxReplicas`, for a
replica that fits nowhere. A pod without a replica has no HTTP proxy of Serve, so it never answers KubeRay's readiness
probe.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployments.app import deployment_names
from deployments.settings import AppArgs, ReplicaArgs
from tests.k8s.charts import Combination, items, mapping, ray_service, render

Amounts = dict[str, float]


@dataclass(frozen=True)
class Replica:
    deployment: str
    needs: Amounts = field(hash=False)


@dataclass(frozen=True)
class Group:
    """A worker group: what one of its pods offers in Ray's terms, and the bounds of their number."""

    name: str
    offers: Amounts = field(hash=False)
    least: int
    most: int


class Pod:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.replicas: list[Replica] = []
        self._left = dict(group.offers)

    def has_room(self, replica: Replica) -> bool:
        return all(self._left.get(name, 0) >= need for name, need in replica.needs.items() if need)

    def add(self, replica: Replica) -> None:
        assert self.has_room(replica), f"{replica} does not fit"
        self.replicas.append(replica)
        for name, need in replica.needs.items():
            self._left[name] = round(self._left.get(name, 0) - need, 6)


# Chooses one of the pods that have room.
Choose = Callable[[Sequence[Pod]], Pod]


def fullest(pods: Sequence[Pod]) -> Pod:
    return max(pods, key=lambda pod: len(pod.replicas))


def emptiest(pods: Sequence[Pod]) -> Pod:
    return min(pods, key=lambda pod: len(pod.replicas))


class NeverPlacedError(Exception):
    """A replica waits for a pod that cannot come."""


def deployments(args: AppArgs) -> dict[str, ReplicaArgs]:
    """Return the deployments that the application has with `args`."""
    sections: dict[str, ReplicaArgs] = {"codec-decoder": args.codec_decoder, "codec-encoder": args.codec_encoder}
    talkers = {f"talker-{model.name}": args.talker_of(model) for model in args.models}
    return {name: (sections | talkers)[name] for name in deployment_names(args)} | {"ingress": args.ingress}


def replica(name: str, section: ReplicaArgs) -> Replica:
    return Replica(name, {"CPU": section.num_cpus, "GPU": section.num_gpus, **section.resources})


def replicas(args: AppArgs, *, most: bool) -> list[Replica]:
    """Return every replica, with the smallest or the largest number of replicas."""
    return [
        replica(name, section) for name, section in deployments(args).items() for _ in range(count(section, most=most))
    ]


def count(section: ReplicaArgs, *, most: bool) -> int:
    scaling = section.autoscaling
    if scaling is None:
        return section.num_replicas
    return scaling.max_replicas if most else scaling.min_replicas


def groups(combination: Combination, helm: Path) -> list[Group]:
    found: list[Group] = []
    for group in items(ray_service(render(combination, helm)), "spec", "rayClusterConfig", "workerGroupSpecs"):
        limits = mapping(items(group, "template", "spec", "containers")[0], "resources", "limits")
        custom = mapping(group, "resources") if "resources" in group else {}
        offers = {
            "CPU": float(math.ceil(float(str(limits["cpu"])))),  # KubeRay rounds up
            "GPU": float(str(limits.get("nvidia.com/gpu", 0))),
            **{name: float(str(amount)) for name, amount in custom.items()},
        }
        bounds = (int(str(group[key])) for key in ("minReplicas", "maxReplicas"))
        found.append(Group(str(group["groupName"]), offers, *bounds))
    return found


def place(wanted: Iterable[Replica], available: Iterable[Group], choose: Choose, *, late: bool) -> list[Pod]:
    """Place the replicas in their order, and return all pods. Raises NeverPlacedError.

    With `late`, each pod starts only after every earlier pod was filled. This is the worst case for the pods that the
    groups have at least.
    """
    known = list(available)
    pods = [] if late else [Pod(group) for group in known for _ in range(group.least)]
    for one in wanted:
        fitting = [pod for pod in pods if pod.has_room(one)]
        if not fitting:
            fitting = [_added_pod(one, known, pods)]
            pods += fitting
        choose(fitting).add(one)
    for group in known:
        missing = group.least - sum(pod.group == group for pod in pods)
        pods += [Pod(group) for _ in range(missing)]
    return pods


def _added_pod(one: Replica, known: list[Group], pods: list[Pod]) -> Pod:
    for group in known:
        if Pod(group).has_room(one) and sum(pod.group == group for pod in pods) < group.most:
            return Pod(group)
    counts = Counter(pod.group.name for pod in pods)
    raise NeverPlacedError(f"no pod has room for {one}, and no group may get another pod: {dict(counts)}")
