"""The CPUs of a process: the least of its affinity and the limits of its cgroups, tried on made-up trees."""

from pathlib import Path

import pytest
import torch

from qwen_tts import cpus

POD = "/kubepods.slice/pod1.slice/container1.scope"


@pytest.fixture(autouse=True)
def _machine_of_64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_affinity", lambda: 64)


def tree(root: Path, own: str, files: dict[str, str]) -> Path:
    """Return `root` with `own` as /proc/self/cgroup, and with `files` below /sys/fs/cgroup."""
    for name, text in {
        "proc/self/cgroup": own,
        **{f"sys/fs/cgroup/{key}": text for key, text in files.items()},
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("quota", "usable"),
    [
        ("800000 100000", 8),
        ("max 100000", 64),
        ("150000 100000", 2),  # one CPU and a half
        ("10000 100000", 1),
        ("0 100000", 1),
        ("10000000 100000", 64),  # more than there are
        ("400000", 64),  # not a limit that we understand
        ("", 64),
    ],
)
def test_a_container_has_the_cpus_of_its_own_limit(tmp_path: Path, quota: str, usable: int) -> None:
    """In a cgroup namespace, the container's group is the root of the mount."""
    assert cpus.usable_cpus(tree(tmp_path, "0::/", {"cpu.max": quota})) == usable


def test_the_limit_of_a_group_above_counts(tmp_path: Path) -> None:
    """A container without a limit of its own is in a pod with a limit."""
    groups = {f"{POD}/cpu.max": "max 100000", f"{POD}/../cpu.max": "600000 100000", "cpu.max": "max 100000"}
    (tmp_path / f"sys/fs/cgroup{POD}").mkdir(parents=True)
    assert cpus.usable_cpus(tree(tmp_path, f"0::{POD}", groups)) == 6


def test_the_smallest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    groups = {f"{POD}/cpu.max": "800000 100000", "kubepods.slice/cpu.max": "300000 100000"}
    assert cpus.usable_cpus(tree(tmp_path, f"0::{POD}", groups)) == 3


@pytest.mark.parametrize("path", ["/docker/0123", "/../../kubepods.slice/pod1"])
def test_a_path_of_the_host_that_is_not_visible_means_the_mount(tmp_path: Path, path: str) -> None:
    assert cpus.usable_cpus(tree(tmp_path, f"0::{path}", {"cpu.max": "200000 100000"})) == 2


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "usable"), [("250000", 3), ("-1", 64)])
def test_version_1_has_a_quota_and_a_period(tmp_path: Path, mount: str, quota: str, usable: int) -> None:
    own = "5:memory:/docker/01\n4:cpu,cpuacct:/docker/01\n1:name=systemd:/docker/01"
    files = {f"{mount}/docker/01/cpu.cfs_quota_us": quota, f"{mount}/docker/01/cpu.cfs_period_us": "100000"}
    assert cpus.usable_cpus(tree(tmp_path, own, files)) == usable


def test_a_controller_with_a_similar_name_is_not_the_cpus(tmp_path: Path) -> None:
    files = {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}
    assert cpus.usable_cpus(tree(tmp_path, "3:cpuset:/a", files)) == 64


def test_both_versions_may_be_there(tmp_path: Path) -> None:
    own = "4:cpu,cpuacct:/a\n0::/a"
    files = {"cpu/a/cpu.cfs_quota_us": "500000", "cpu/a/cpu.cfs_period_us": "100000", "unified/a/cpu.max": "4000 1000"}
    assert cpus.usable_cpus(tree(tmp_path, own, files)) == 4


def test_affinity_may_be_less_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_affinity", lambda: 2)
    assert cpus.usable_cpus(tree(tmp_path, "0::/", {"cpu.max": "800000 100000"})) == 2


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert cpus.usable_cpus(tmp_path) == 64


def test_this_machine_has_cpus() -> None:
    assert cpus.usable_cpus() >= 1


@pytest.mark.parametrize(("usable", "wanted"), [(2, 2), (96, 4)])
def test_a_program_has_no_more_threads_than_cpus(monkeypatch: pytest.MonkeyPatch, usable: int, wanted: int) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(cpus, "usable_cpus", lambda: usable)
    try:
        torch.set_num_threads(4)
        cpus.limit_torch_threads()
        assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)
