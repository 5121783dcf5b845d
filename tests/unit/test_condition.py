"""What the log, /status and the metrics say of a store or peer that does not answer."""

import asyncio

import pytest
from structlog.testing import capture_logs

from replicator.errors import ClaimsLost, StoreUnavailable
from replicator.worker.condition import Condition


async def answer(error: Exception | None = None) -> int:
    if error is not None:
        raise error
    return 7


async def test_a_change_is_told_once_and_the_end_as_well() -> None:
    condition = Condition("claims")
    with capture_logs() as told:
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await condition.watch(answer(StoreUnavailable("down")))
        assert await condition.watch(answer()) == 7
        assert await condition.watch(answer()) == 7
    assert [entry["event"] for entry in told] == ["claims.unavailable", "claims.available"]
    assert told[0]["error"] == "down"


async def test_the_status_says_since_when_and_why_and_when_it_was_last_asked() -> None:
    condition = Condition("claims")
    assert condition.status()["state"] == "not_asked_yet"
    condition.failed("down")
    status = condition.status()
    assert (status["state"], status["error"], condition.is_up) == ("unavailable", "down", False)
    assert status["failing_for_s"] is not None
    condition.succeeded()
    assert (condition.status()["state"], condition.status()["error"]) == ("up", "")


async def test_an_answer_that_is_a_refusal_is_an_answer() -> None:
    condition = Condition("claims")
    condition.failed("down")
    with pytest.raises(ClaimsLost):
        await condition.watch(answer(ClaimsLost("lost")))
    assert condition.is_up


async def test_a_call_that_is_given_up_says_nothing() -> None:
    condition = Condition("claims")
    call = asyncio.ensure_future(condition.watch(asyncio.Event().wait()))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    assert condition.status()["state"] == "not_asked_yet"
