"""The workflows of .github: what they build is there, and what they run is pinned and has few permissions."""

import re
import tomllib

import pytest
import yaml

from k8s.render.__main__ import CHART, ROOT
from tests.k8s.charts import Object, at, items, mapping
from tests.k8s.test_dockerfile import STAGES

WORKFLOWS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").iterdir()}
RELEASE = yaml.safe_load(WORKFLOWS["release.yml"])
JOBS = mapping(RELEASE, "jobs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHART_FILE = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))


def job(name: str) -> Object:
    return mapping(JOBS, name)


def texts(part: object) -> set[str]:
    assert isinstance(part, list)
    return set(map(str, part))


def step(name: str, action: str) -> Object:
    (found,) = [one for one in items(job(name), "steps") if str(one.get("uses", "")).startswith(f"{action}@")]
    return found


def scripts(workflow: object) -> list[str]:
    jobs = mapping(workflow, "jobs")
    steps = [one for name in jobs if "steps" in mapping(jobs, name) for one in items(jobs, name, "steps")]
    return [str(one["run"]) for one in steps if "run" in one]


def test_package_and_chart_have_one_version() -> None:
    assert PROJECT["version"] == CHART_FILE["version"] == CHART_FILE["appVersion"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_commits(name: str) -> None:
    used = re.findall(r"uses: (\S+)(.*)$", WORKFLOWS[name], re.MULTILINE)
    assert used
    for action, comment in used:
        if action.startswith("./"):
            assert (ROOT / action).is_file()
        else:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), "a commit does not tell its version"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_failing_command_fails_its_step(name: str) -> None:
    """The default shell has no pipefail."""
    workflow = yaml.safe_load(WORKFLOWS[name])
    if any(re.search(r"[^|]\|[^|]", script) for script in scripts(workflow)):
        assert at(workflow, "defaults", "run", "shell") == "bash"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_scripts_take_values_from_variables(name: str) -> None:
    """The runner pastes an expression into the script as it is, so its value could be a command."""
    for script in scripts(yaml.safe_load(WORKFLOWS[name])):
        assert "${{" not in script


def test_only_jobs_that_publish_may_write() -> None:
    assert RELEASE["permissions"] == {}
    rights = {name: mapping(job(name), "permissions") for name in JOBS}
    assert {name for name, given in rights.items() if given.get("packages") == "write"} == {"image", "index", "chart"}
    assert {name for name, given in rights.items() if "id-token" in given} == {"index", "chart"}, "jobs that sign"
    assert all(given.get("contents", "read") == "read" for given in rights.values())


def test_nothing_is_published_without_the_tests_and_a_checked_tag() -> None:
    assert RELEASE[True] == {"push": {"tags": ["v*"]}}, "YAML 1.1 reads the key `on` as true"
    assert {"test", "names"} <= texts(job("image")["needs"])
    assert "image" in texts(job("index")["needs"])
    assert "index" in texts(job("chart")["needs"])
    assert "workflow_call" in yaml.safe_load(WORKFLOWS["ci.yml"])[True]


def test_images_are_the_targets_of_the_dockerfile_on_both_architectures() -> None:
    matrix = mapping(job("image"), "strategy", "matrix")
    assert texts(matrix["target"]) == set(STAGES) - {"base", "wheel"}
    assert at(job("index"), "strategy", "matrix", "target") == matrix["target"]
    architectures = {str(one["architecture"]) for one in items(matrix, "platform")}
    assert architectures == {"amd64", "arm64"}
    (merge,) = [script for script in scripts(RELEASE) if "imagetools create" in script]
    assert set(re.findall(r'"\$NAME:\$TAG-(\w+)"', merge)) == architectures
    built = mapping(step("image", "docker/build-push-action"), "with")
    assert (built["push"], built["sbom"], built["provenance"]) == (True, True, "mode=max")
    arguments = re.findall(r"^(\w+)=", str(built.get("build-args", "")), re.MULTILINE)
    assert set(arguments) <= set(
        re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    )


def test_the_published_chart_names_the_published_images() -> None:
    """The chart replaces one line of its values."""
    (replaced,) = re.findall(r'sed -i "s\|\^(.*?)\$\|', WORKFLOWS["release.yml"])
    assert (CHART / "values.yaml").read_text(encoding="utf-8").splitlines().count(replaced) == 1
    assert replaced.endswith(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["image"]["repository"])


def test_images_and_chart_are_signed_by_their_content() -> None:
    signed = [line for script in scripts(RELEASE) for line in script.splitlines() if line.startswith("cosign sign ")]
    assert len(signed) == 2
    assert all(line.endswith('@$digest"') for line in signed), "a tag may be moved"
