"""Credentials from the agent of ECS and the metadata service of EC2, in time, late, and away."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import botocore.utils
import pytest
from aiohttp import web
from botocore.exceptions import BotoCoreError

from replicator.aws.credentials import Keeper
from replicator.aws.http import HttpPool
from replicator.aws.kinesis_api import PREFIX, SERVICE, KinesisApi
from replicator.aws.session import AwsSession
from replicator.aws.transport import JsonApi
from replicator.errors import TransientError

REGION = "us-east-1"
HOUR_S = 3600
NEAR_S = 120
"""Less than the 10 minutes from which on botocore lets nobody sign without having renewed."""


class Agent:
    """Gives out credentials, numbered, under the paths of ECS and of EC2; and takes calls of AWS."""

    def __init__(self) -> None:
        self.url = ""
        self.given = 0
        self.valid_s = HOUR_S
        self.is_away = False
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.calls: list[dict[str, str]] = []

    def application(self) -> web.Application:
        application = web.Application()
        role = "/latest/meta-data/iam/security-credentials/"
        application.router.add_get("/ecs", self.give)
        application.router.add_put("/latest/api/token", self.session)
        application.router.add_get(role, self.role)
        application.router.add_get(f"{role}worker", self.give)
        application.router.add_post("/", self.call)
        return application

    async def session(self, _: web.Request) -> web.Response:
        return web.Response(status=500) if self.is_away else web.Response(text="imds-session")

    async def role(self, request: web.Request) -> web.Response:
        assert request.headers["x-aws-ec2-metadata-token"] == "imds-session"
        return web.Response(text="worker")

    async def give(self, request: web.Request) -> web.Response:
        self.asked.set()
        await self.may_answer.wait()
        if self.is_away:
            return web.Response(status=500)
        self.given += 1
        expires = datetime.now(UTC) + timedelta(seconds=self.valid_s)
        return web.json_response(
            {
                "Code": "Success",
                "AccessKeyId": f"key-{self.given}",
                "SecretAccessKey": "secret",
                "Token": f"token-{self.given}",
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )

    async def call(self, request: web.Request) -> web.Response:
        self.calls.append(dict(request.headers))
        return web.json_response({"Shards": [], "TableNames": []}, content_type="application/x-amz-json-1.1")


@pytest.fixture(params=["ecs", "ec2"])
async def agent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    made = Agent()
    runner = web.AppRunner(made.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    # botocore waits a second between its attempts.
    monkeypatch.setattr(botocore.utils.ContainerMetadataFetcher, "SLEEP_TIME", 0)
    if request.param == "ecs":
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{made.url}/ecs")
    else:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{made.url}/")
        # botocore takes an instance's credentials that are about to expire for good for longer.
        monkeypatch.setattr(botocore.utils.InstanceMetadataFetcher, "_evaluate_expiration", lambda *_: None)
    yield made
    made.may_answer.set()
    await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return time.time() + self.ahead_s


def eager(clock: Clock | None = None) -> AwsSession:
    """A session that asks with every call."""
    return AwsSession(Keeper(asked_every_s=0.0, now_s=(clock or Clock()).now_s))


async def keys(session: AwsSession, calls: int) -> set[str]:
    return {(await session.credentials()).access_key for _ in range(calls)}


async def test_the_token_is_signed_into_the_requests_of_both_ways(agent: Agent) -> None:
    async with AwsSession() as session, HttpPool(1) as http:
        api = JsonApi(http, session, service=SERVICE, region=REGION, url=agent.url, prefix=PREFIX)
        await KinesisApi(api, "hub", 5.0).shards()
        async with session.client("dynamodb", REGION, agent.url) as client:
            await client.list_tables()
    for call in agent.calls:
        headers = {name.lower(): value for name, value in call.items()}
        assert headers["x-amz-security-token"] == "token-1"
        assert "Credential=key-1/" in headers["authorization"]
        assert "x-amz-security-token" in headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert (len(agent.calls), agent.given) == (2, 1)


async def test_who_has_none_waits_for_the_same_answer(agent: Agent) -> None:
    async with AwsSession() as session:
        answers = await asyncio.gather(*(session.credentials() for _ in range(10)))
    assert {answer.access_key for answer in answers} == {"key-1"}
    assert agent.given == 1


async def test_near_their_end_they_are_renewed_and_no_call_waits_for_it(agent: Agent) -> None:
    agent.valid_s = NEAR_S
    async with eager() as session:
        first = (await session.credentials()).access_key
        agent.valid_s = HOUR_S
        agent.asked.clear()
        agent.may_answer.clear()
        assert await keys(session, 1) == {first}
        await agent.asked.wait()
        assert await keys(session, 10) == {first}
        given = agent.given
        agent.may_answer.set()
        while await keys(session, 1) == {first}:
            await asyncio.sleep(0)
        assert await keys(session, 10) == {f"key-{given + 1}"}
    assert agent.given == given + 1


async def test_while_their_provider_is_away_they_serve_to_their_end(agent: Agent) -> None:
    agent.valid_s = NEAR_S
    clock = Clock()
    async with eager(clock) as session:
        first = (await session.credentials()).access_key
        agent.is_away = True
        for ahead_s in (0.0, NEAR_S - 30.0):
            clock.ahead_s = ahead_s
            assert await keys(session, 10) == {first}
        async with session.client("dynamodb", REGION, agent.url) as client:
            await client.list_tables()
            clock.ahead_s = NEAR_S
            with pytest.raises(TransientError, match="can't be fetched"):
                await session.credentials()
            with pytest.raises(BotoCoreError, match="can't be fetched"):
                await client.list_tables()
        given, agent.is_away, agent.valid_s = agent.given, False, HOUR_S
        assert await keys(session, 10) == {f"key-{given + 1}"}


async def test_refused_credentials_are_asked_for_anew_also_while_they_are_being_renewed(agent: Agent) -> None:
    agent.valid_s = NEAR_S
    async with eager() as session:
        refused = await session.credentials()
        agent.valid_s = HOUR_S
        agent.asked.clear()
        agent.may_answer.clear()
        assert await session.credentials() == refused
        await agent.asked.wait()
        given = agent.given
        waiting = [asyncio.ensure_future(session.credentials(refused=refused)) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        agent.may_answer.set()
        assert {(await task).access_key for task in waiting} == {f"key-{given + 1}"}
    assert agent.given == given + 1


async def test_refused_credentials_are_never_signed_with_again_when_there_are_others(agent: Agent) -> None:
    async with AwsSession() as session:
        refused = await session.credentials()
        answers = await asyncio.gather(*(session.credentials(refused=refused) for _ in range(5)))
        assert {answer.access_key for answer in answers} == {"key-2"}
        assert await keys(session, 1) == {"key-2"}
    assert agent.given == 2


async def test_a_session_that_closes_leaves_no_asking_behind(agent: Agent) -> None:
    agent.may_answer.clear()
    before = asyncio.all_tasks()
    session = AwsSession()
    waiting = asyncio.ensure_future(session.credentials())
    await agent.asked.wait()
    await session.close()
    with pytest.raises(TransientError, match="closed"):
        await waiting
    agent.may_answer.set()
    assert {task for task in asyncio.all_tasks() - before if "_ask" in repr(task)} == set()
