"""The image's recipe, as far as it can be judged without building it."""

import fnmatch
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "infra/Dockerfile").read_text()
    joined = re.sub(r"\\\n", "", "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def copied() -> list[str]:
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [name for names in sources for name in names]


def is_in_context(name: str) -> bool:
    """By the rules of .dockerignore: the last pattern that matches decides."""
    included = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#") and fnmatch.fnmatch(name, pattern.removeprefix("!")):
            included = pattern.startswith("!")
    return included


def test_it_has_two_stages_of_the_same_python() -> None:
    stages = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert stages == ["python:3.11-slim"] * 2


@pytest.mark.parametrize("name", copied())
def test_what_it_copies_exists_and_is_sent_to_the_builder(name: str) -> None:
    assert (ROOT / name).exists()
    assert is_in_context(name)


@pytest.mark.parametrize("name", [".git", ".venv", "tests", ".env", "terraform.tfstate"])
def test_nothing_else_is_sent_to_the_builder(name: str) -> None:
    assert not is_in_context(name)


def test_versions_are_those_of_the_constraints() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "-c constraints.txt" in installs[0]


def test_it_can_write_lakes_of_parquet() -> None:
    [install] = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert "'.[parquet]'" in install


def test_it_runs_as_the_same_user_as_the_task_definition_and_not_as_root() -> None:
    user = dict(instructions())["USER"]
    assert user == "10001:10001"
    assert f'"{user}"' in (ROOT / "infra/terraform/modules/region/ecs.tf").read_text()


def test_the_worker_gets_signals_itself() -> None:
    assert json.loads(dict(instructions())["ENTRYPOINT"]) == ["replicator"]
