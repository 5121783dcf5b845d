"""What every store of bodies promises: what was put is there, again without harm, and what passes is told apart."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from replicator.adapters.bodies_s3 import S3Bodies
from replicator.adapters.memory_bodies import MemoryBodies
from replicator.aws.session import AwsSession
from replicator.errors import Misconfigured, TransientError
from replicator.ports import Bodies

Read = Callable[[str], Awaitable[bytes]]
NAME = "claims/us-east-1/orders/17/shardId-0/7/0-abc"


@pytest.fixture(params=["memory", "s3"])
async def case(request: pytest.FixtureRequest, new_name: Callable[[str], str]) -> AsyncIterator[tuple[Bodies, Read]]:
    if request.param == "memory":
        memory = MemoryBodies()

        async def in_memory(name: str) -> bytes:
            return memory.objects[name]

        yield memory, in_memory
        return
    bucket = new_name("bodies")
    async with AwsSession().client("s3", "us-east-1", request.getfixturevalue("aws_url")) as client:
        await client.create_bucket(Bucket=bucket)

        async def in_s3(name: str) -> bytes:
            body: bytes = await (await client.get_object(Bucket=bucket, Key=name))["Body"].read()
            return body

        yield S3Bodies(client, bucket), in_s3


async def test_a_body_that_was_put_is_there_as_it_was_given_and_may_be_put_again(case: tuple[Bodies, Read]) -> None:
    bodies, read = case
    body = b'{"id":"1"}' * 300_000
    for _ in range(2):
        await bodies.put(NAME, body)
        assert await read(NAME) == body


async def test_a_bucket_that_is_not_there_is_for_an_operator(aws_url: str) -> None:
    async with AwsSession().client("s3", "us-east-1", aws_url) as client:
        with pytest.raises(Misconfigured, match="claim check s3://no-such-bodies/") as caught:
            await S3Bodies(client, "no-such-bodies").put(NAME, b"x")
    assert caught.value.code == "NoSuchBucket"


async def test_one_that_does_not_answer_is_asked_again() -> None:
    async with AwsSession().client("s3", "us-east-1", "http://127.0.0.1:9", timeout_s=1.0) as client:
        with pytest.raises(TransientError) as caught:
            await S3Bodies(client, "bodies").put(NAME, b"x")
    assert caught.value.code == "no_answer"
