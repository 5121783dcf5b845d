"""Any mistake in a configuration is told: no value crashes the check, and none is refused without a word."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from replicator.cli import main
from replicator.config_load import check, warnings

GOOD = [yaml.safe_load(file.read_text()) for file in sorted((Path(__file__).parent / "good_configs").glob("*.yaml"))]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["${NONE}", "us-east-1", "virginia", "hub", "kinesis", "sqs", "json", "2026-11-01", "[", "redis://[x"]
    )
)
keys = st.text(max_size=4) | st.sampled_from(["kind", "stream", "sink", "regions", "env", "file", "password", "from"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2), max_leaves=4
)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every mapping or list in ``data`` with each of its keys."""
    found = []
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        found += [(data, key), *places(value)]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> str:
    data = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 3))):
        if not (chosen := places(data)):
            break
        inside, key = draw(st.sampled_from(chosen))
        match draw(st.sampled_from(["drop", "replace", "rename"])):
            case "drop":
                del inside[key]
            case "rename" if isinstance(inside, dict):
                inside[draw(keys)] = inside.pop(key)
            case _:
                inside[key] = draw(values)
    return yaml.safe_dump(data, sort_keys=False)


@given(mutated())
def test_what_is_refused_has_a_problem_and_nothing_crashes(text: str) -> None:
    config, problems = check("env:CONFIG", {"CONFIG": text})
    assert (config is None) == bool(problems)
    warnings("env:CONFIG", {"CONFIG": text}, config)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("tag_key: {current: k1, keys: {k1: }}", "4:34: tag_key.keys.k1: expected a mapping with keys of: env, file"),
        ("tag_key: {current: k1, keys: {k1: [x]}}", "4:35: a key must not stand in this file"),
        ("redis: {password: [x]}", "4:19: a password must not stand in this file"),
        ("links: [{source: orders, peer: password}]", "4:32: 'password' is no canonical AWS region name"),
    ],
)
def test_what_is_no_reference_to_a_secret_is_told_once(
    line: str, problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "regions: {us-east-1: {}, eu-west-1: {}}\nsources: {orders: {stream: hub, sink: hub}}\n"
    monkeypatch.setenv("CONFIG", f"{base}sinks: {{hub: {{stream: hub}}}}\n{line}\n")
    assert main(["config", "check", "env:CONFIG"]) == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"env:CONFIG:{problem}")


def test_a_source_that_is_called_password_has_its_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "regions: {us-east-1: {}, eu-west-1: {}}\nsources: {password: 5}\nsinks: {hub: {stream: hub}}\n"
    monkeypatch.setenv("CONFIG", text)
    assert main(["config", "check", "env:CONFIG"]) == 1
    assert "sources.password: expected a mapping with keys of: " in capsys.readouterr().out
