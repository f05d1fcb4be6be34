"""A stub of a language model's endpoint, which misbehaves on request, and counts what it was paid for.

Used by tests, and as a process of its own (``python -m tests.stub_llm PORT SECONDS``) by benchmarks.
"""

import asyncio
import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Behaviour = Callable[[int, dict[str, Any]], "Reply | str | None"]
"""Of the number of a call, from 0, and its request: a reply, an answer's text, or None for a good one."""


@dataclass
class Reply:
    """What is sent. ``drop``: the connection is closed in the middle of the answer instead."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    drop: bool = False


def good_answer(request: dict[str, Any]) -> str:
    """Two queries that name words of the passage: different for different passages."""
    said = request["messages"][-1]["content"]
    passage = said.split('"""')[1] if '"""' in said else said
    words = [word.strip(".,:#*`()") for word in passage.split() if len(word.strip(".,:#*`()")) > 3]
    mark = hashlib.sha256(passage.encode()).hexdigest()[:8]
    first = " ".join(words[3:12:2]) or "nothing"
    return json.dumps(
        {
            "queries": [
                {"type": "question", "query": f"what does {first} mean for {mark}?"},
                {"type": "keywords", "query": f"{' '.join(reversed(words[:4]))} {mark}"},
            ]
        }
    )


class StubEndpoint:
    """An OpenAI-compatible server on a port of its own, in a thread. A context manager.

    ``paid`` counts answers that were sent to their end, by the text of their prompt and seed; ``calls`` all
    requests; ``keys`` the Authorization headers that came.
    """

    def __init__(self, behave: Behaviour | None = None, *, seconds: float = 0.0, port: int = 0) -> None:
        self._behave, self._seconds, self._port = behave, seconds, port
        self.paid: Counter[str] = Counter()
        self.calls = 0
        self.keys: set[str] = set()
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> "StubEndpoint":
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        starting = asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._server = self._loop.run_until_complete(starting)
        self._port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(head, json.loads(body), writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        number, self.calls = self.calls, self.calls + 1
        self.keys |= {line[15:] for line in head.split("\r\n") if line.lower().startswith("authorization: ")}
        self.requests.append(request)
        del self.requests[:-50]
        found = self._behave(number, request) if self._behave else None
        reply = found if isinstance(found, Reply) else Reply()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(reply.seconds or self._seconds)
        self._at_once -= 1
        if reply.drop:
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choi')
            await writer.drain()
            return False
        content = reply.body
        if content is None and reply.status == 200:
            text = found if isinstance(found, str) else good_answer(request)
            content = {
                "choices": [{"message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 20},
            }
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [
            f"HTTP/1.1 {reply.status} X",
            f"Content-Length: {len(raw)}",
            "Content-Type: application/json",
        ]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
        await writer.drain()
        if reply.body is None and reply.status == 200:
            self.paid[f"{request['messages'][-1]['content']} {request['seed']}"] += 1
        return True


if __name__ == "__main__":
    with StubEndpoint(seconds=float(sys.argv[2]), port=int(sys.argv[1])) as stub:
        print(stub.url, flush=True)
        sys.stdin.read()
        print(json.dumps({"calls": stub.calls, "repeated": sum(stub.paid.values()) - len(stub.paid)}))
