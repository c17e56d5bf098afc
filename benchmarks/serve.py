"""The proxy's own time on one query, and whether 200 clients at once get their own answers, in one run.

    python benchmarks/serve.py [--requests 1000] [--clients 200] [--dimension 384] [--json-file serve.json]

An upstream in a process of its own answers at once with vectors that are made of the text. One client asks it directly and
through `compatlearn serve`, in turn; the difference of the medians is what the proxy adds. Then many clients ask at once;
each text is asked once, and each answer is compared with the vector of that text.
"""

import asyncio
import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from cyclopts import run

import compatlearn as cl

CONTEXT = ssl.create_default_context()  # one for all clients: each would take a while to make its own
UPSTREAM = """
import sys
sys.path.insert(0, {here!r})
from serve import upstream
upstream({dimension})
"""


def vector(text: str, dimension: int) -> np.ndarray:
    """(dimension,) float32 of unit length, of this text alone."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    row = np.random.default_rng(seed).standard_normal(dimension, dtype=np.float32)
    return row / np.linalg.norm(row)


def upstream(dimension: int) -> None:
    """Serve vectors of texts at a free port, which is printed."""
    import base64
    import socket

    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def embeddings(request: Request) -> Response:
        try:
            asked = json.loads(await request.body())
        except ClientDisconnect:
            return Response(status_code=400)
        rows = [base64.b64encode(vector(text, dimension).tobytes()).decode() for text in asked["input"]]
        data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return Response(
            json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}), media_type="application/json"
        )

    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=75)).run(sockets=[listening])


def one_after_the_other(addresses: dict[str, tuple[str, str]], requests: int) -> dict[str, np.ndarray]:
    """Milliseconds of each request, the addresses in turn."""
    taken: dict[str, list[float]] = {name: [] for name in addresses}
    with httpx.Client(timeout=30) as client:
        for number in range(requests + 50):
            for name, (address, model) in addresses.items():
                content = {"model": model, "input": [f"query {number}"], "encoding_format": "base64"}
                began = time.perf_counter()
                client.post(f"{address}/embeddings", json=content).raise_for_status()
                taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(values[50:]) for name, values in taken.items()}


async def at_once(address: str, clients: int, each: int, expected: cl.Adapter, dimension: int) -> dict[str, float]:
    """Requests of many clients at a time: how many were lost or crossed, and how long they took."""
    taken, lost, crossed = [], 0, 0

    async def client(number: int) -> None:
        nonlocal lost, crossed
        async with httpx.AsyncClient(timeout=120, verify=CONTEXT) as connection:
            for place in range(each):
                text = f"client {number}, request {place}"
                began = time.perf_counter()
                try:
                    answer = await connection.post(f"{address}/embeddings", json={"model": "query", "input": text})
                except httpx.HTTPError:
                    lost += 1
                    continue
                taken.append(1e3 * (time.perf_counter() - began))
                if answer.status_code != 200:
                    lost += 1
                    continue
                row = np.array(answer.json()["data"][0]["embedding"])
                crossed += not np.allclose(row, expected(vector(text, dimension)[None])[0], atol=1e-4)

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    seconds = time.perf_counter() - began
    return {
        "requests": clients * each,
        "lost": lost,
        "crossed": crossed,
        "per_second": len(taken) / seconds,
        "median_ms": float(np.median(taken)),
        "p99_ms": float(np.quantile(taken, 0.99)),
    }


def busy(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: subprocess.Popen[str]) -> float:
    """MB that a process has at most had in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(requests: int = 1000, clients: int = 200, each: int = 10, dimension: int = 384, json_file: Path | None = None) -> None:
    """Print the figures.

    Args:
        requests: one after the other, of each road.
        clients: at once.
        each: requests of each of them.
        dimension: of both spaces.
        json_file: where the figures go too.
    """
    new = np.random.default_rng(0).normal(size=(2000, dimension)).astype(np.float32)
    adapter = cl.Adapter("procrustes").fit(new, new[:, ::-1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "map.safetensors"
        adapter.save(file)
        code = UPSTREAM.format(here=str(Path(__file__).parent), dimension=dimension)
        model = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert model.stdout is not None
        direct = model.stdout.readline().strip()
        command = [sys.executable, "-m", "compatlearn", "serve", "--adapter", str(file), "--new-model", "openai:m"]
        command += ["--new-base-url", direct, "--port", "0"]
        began = time.perf_counter()
        environment = os.environ | {"OPENAI_API_KEY": "none"}
        proxy = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert proxy.stderr is not None
        address = proxy.stderr.readline().split()[-1]
        start = time.perf_counter() - began
        log = subprocess.Popen(["cat"], stdin=proxy.stderr, stdout=subprocess.DEVNULL)  # or its pipe would be full
        try:
            used = [busy(proxy)]
            taken = one_after_the_other({"direct": (direct, "m"), "proxy": (address, "query")}, requests)
            used.append(busy(proxy))
            many = asyncio.run(at_once(address, clients, each, adapter, dimension))
            used.append(busy(proxy))
            memory = resident(proxy)
        finally:
            proxy.terminate()
            model.terminate()
            proxy.wait(40)
            model.wait(40)
            log.wait(40)
    medians = {name: float(np.median(values)) for name, values in taken.items()}
    figures = {
        "direct_median_ms": medians["direct"],
        "proxy_median_ms": medians["proxy"],
        "added_median_ms": medians["proxy"] - medians["direct"],
        "ratio": medians["proxy"] / medians["direct"],
        "processor_ms": 1e3 * (used[1] - used[0]) / (requests + 50),
        "processor_ms_busy": 1e3 * (used[2] - used[1]) / (clients * each),
        "start_s": start,
        "peak_mb": memory,
        "clients": clients,
        **many,
    }
    for name, value in figures.items():
        print(f"{name:>18}  {value:,.2f}")
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
