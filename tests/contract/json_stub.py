"""A service that answers as told: for single-entry failures, which emulators don't have, and answers nobody expects."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Answers = dict[str, Callable[[dict[str, Any]], Any]]
"""By operation, what a request gets: plain data, or a response as it is."""


class Stub:
    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.url = ""

    def requests(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.asked if name == operation]

    async def serve(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        asked = json.loads(await request.read())
        self.asked.append((operation, asked))
        answer = self.answers[operation](asked)
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


@asynccontextmanager
async def stub(answers: Answers, made: Stub | None = None) -> AsyncIterator[Stub]:
    made = made or Stub(answers)
    application = web.Application()
    application.router.add_post("/", made.serve)
    async with TestServer(application) as server:
        made.url = str(server.make_url("/"))
        yield made


def refusal(code: str, message: str = "", status: int = 400) -> web.Response:
    return web.json_response({"__type": f"com.amazonaws#{code}", "message": message}, status=status)
