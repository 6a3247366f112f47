"""``python -m tests.bench.sum_fastapi --fd N``: the sum of eight numbers as a FastAPI route, added up in Python."""

# FastAPI reads the annotations of functions that refer to local names: they must not be text.

import argparse
import socket
import struct

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.get("/healthz")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/functions/{name}/invoke")
async def call(name: str, request: Request) -> Response:
    data = await request.body()
    total = sum(struct.unpack(f"<{len(data) // 8}Q", data)) & 0xFFFFFFFFFFFFFFFF
    return Response(struct.pack("<Q", total), media_type="application/octet-stream")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    listener = socket.socket(fileno=parser.parse_args().fd)
    settings = uvicorn.Config(app, http="httptools", ws="none", loop="uvloop", access_log=False, server_header=False)
    uvicorn.Server(settings).run(sockets=[listener])


if __name__ == "__main__":
    main()
