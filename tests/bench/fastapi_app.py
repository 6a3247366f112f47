"""``python -m tests.bench.fastapi_app --fd N``: two routes of the API, as a FastAPI developer would write them.

The same model validates the body, the same service stores the same records through the same writer, the same kind of
key is checked, and the answer has the same JSON and waits for the same durability. What differs is the way to there:
ASGI and FastAPI's routing and dependencies, instead of API Gateway events and Powertools' resolver. The fast way is
taken wherever FastAPI offers one: async endpoints without the thread pool, JSON by pydantic's serialiser as a bare
Response. It has no long polls, request ids or limits on headers, and does not listen to what wakes them.
"""

# FastAPI reads the annotations of functions that refer to local names: they must not be text.

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from pydantic_core import to_json

from hanzo_compute import config, wiring
from hanzo_compute.errors import ComputeError
from hanzo_compute.model.spec import JobSpec
from hanzo_compute.ports import Commits
from hanzo_compute.security.authorizer import Action, Principal, authorize
from hanzo_compute.services import credentials, read, submit
from hanzo_compute.services.submit import check_idempotency_key
from hanzo_compute.wiring import Container


class Durability:
    """Futures of what was written, which the writer's news settles on the loop."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def settled(self) -> None:
        """Wait until all that this process has written is durable. Call it in the step that wrote."""
        ticket = self._commits.take()
        if ticket is None:
            return
        future = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self.listen()
        await asyncio.wait_for(future, 30)

    def listen(self) -> None:
        news = self._commits.news()
        for ticket in news.durable:
            if (future := self._waiting.pop(ticket, None)) and not future.done():
                future.set_result(None)
        for ticket in news.failed:
            if (future := self._waiting.pop(ticket, None)) and not future.done():
                future.set_exception(HTTPException(503, "the write was lost"))


def create(ctx: Container) -> FastAPI:
    """The application on these ports."""
    assert ctx.commits is not None
    commits = ctx.commits
    durability = Durability(commits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_reader(commits.fileno(), durability.listen)
        yield
        loop.remove_reader(commits.fileno())

    app = FastAPI(lifespan=lifespan)

    @app.exception_handler(ComputeError)
    async def refused(_: Request, error: ComputeError) -> Response:
        commits.take()
        return json_response({"title": error.message}, error.status)

    async def submitter(authorization: Annotated[str | None, Header()] = None) -> Principal:
        return authorize(credentials.authenticate(ctx, authorization), Action.SUBMIT)

    async def reader(authorization: Annotated[str | None, Header()] = None) -> Principal:
        return authorize(credentials.authenticate(ctx, authorization), Action.READ)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/jobs", status_code=201)
    async def submit_job(
        spec: JobSpec,
        caller: Annotated[Principal, Depends(submitter)],
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Response:
        key = check_idempotency_key(idempotency_key)
        submitted = submit.submit(ctx, caller.tenant, spec, idempotency_key=key)
        await durability.settled()
        headers = {"Location": f"/v1/jobs/{submitted.job.id}"}
        if submitted.replayed:
            headers["Idempotency-Replayed"] = "true"
        return json_response(submitted.job.view(), 200 if submitted.replayed else 201, headers)

    @app.get("/v1/jobs/{job_id}")
    async def get_job(job_id: str, caller: Annotated[Principal, Depends(reader)]) -> Response:
        shown = read.job(ctx, caller.tenant, job_id)
        await durability.settled()
        return json_response(shown)

    return app


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(body), status, headers, "application/json")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    listener = socket.socket(fileno=parser.parse_args().fd)
    settings = uvicorn.Config(
        create(wiring.local(config.load())),
        http="httptools",
        ws="none",
        loop="uvloop",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(settings).run(sockets=[listener])


if __name__ == "__main__":
    main()
