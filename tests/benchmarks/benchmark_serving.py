"""A server under load: many clients at once, some of them broken.

Run from the root of the repository as
``python -m tests.benchmarks.benchmark_serving``. The server is on the loopback
address, with the Expressive model that ships in float32, in processes of one
thread each.
Clients transcribe, have texts read and chat in text and speech, with settings
that differ; a tenth of the requests of the crowd are malformed, cut off or left.
Each answer is compared with what the model gives in this process for the same
seed. After a warm-up one client alone goes first: the crowd's throughput is
compared with its.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.serving.audio import encode
from tests.benchmarks.machine import machine, parsed, parser_of, table

_MODEL = "expressive"
_TEXTS = (
    "the old man saw the farmer",
    "the queen opened the window in the museum",
    "a hungry dog ran to the river",
    "turn off the lights in the kitchen",
)
_VOICES = ("anna", "ben", "cora", "dan")
_NEW_TOKENS = 60
# Of a sample of 16 bits, and of the vocoder in other chunks.
_TOLERANCE = 3e-4
# Seconds until a server is given up.
_START = 120


@dataclass(frozen=True)
class Case:
    """A request, and how its answer is told to be right."""

    name: str
    path: str
    body: bytes
    kind: str
    is_right: Callable[[bytes], bool]


@dataclass
class Tally:
    """What came of requests; shared by clients."""

    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    broken: int = 0
    right: int = 0
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return self.right / self.seconds

    def add(self, case: Case, status: int, body: bytes) -> None:
        """Count an answer."""
        right = status == 200 and case.is_right(body)
        with self.lock:
            self.statuses[status] += 1
            self.right += right
            if status == 200 and not right:
                self.wrong.append(case.name)


def cases_of(lm: SpiritLM, texts: int = len(_TEXTS)) -> list[Case]:
    """Return requests of all kinds, with the model's own answers."""
    cases: list[Case] = []
    for number, (text, voice) in enumerate(zip(_TEXTS[:texts], _VOICES)):
        wavs, _ = lm.synthesize([text], speaker=voice, seed=number)
        cases.append(
            _json_case(
                f"speech {number}",
                "/v1/audio/speech",
                {
                    "input": text,
                    "voice": voice,
                    "seed": number,
                    "response_format": "wav",
                },
                lambda body, wav=wavs[0]: _same_wav(body, wav),
            )
        )
        content = encode(wavs[0], "wav")
        cases.append(_transcription(lm, number, content))
        begun = encode(wavs[0][:16000], "wav")
        for output, modalities in (
            ("text", ["text"]),
            ("speech", ["audio"]),
            ("any", ["text", "audio"]),
        ):
            cases.append(
                _chat(lm, number, text, begun, voice, output, modalities)
            )
    return cases


def _transcription(lm: SpiritLM, number: int, content: bytes) -> Case:
    text = lm.transcribe_batch([content])[0]
    limit = "----part"
    parts = [
        f'--{limit}\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        f"{_MODEL}\r\n--{limit}\r\nContent-Disposition: form-data; "
        f'name="file"; filename="a.wav"\r\n\r\n'.encode(),
        content,
        f"\r\n--{limit}--\r\n".encode(),
    ]
    return Case(
        f"transcription {number}",
        "/v1/audio/transcriptions",
        b"".join(parts),
        f"multipart/form-data; boundary={limit}",
        lambda body: json.loads(body)["text"] == text,
    )


def _chat(
    lm: SpiritLM,
    number: int,
    text: str,
    begun: bytes,
    voice: str,
    output: str,
    modalities: list[str],
) -> Case:
    part = {"data": base64.b64encode(begun).decode(), "format": "wav"}
    content = [
        {"type": "text", "text": text},
        {"type": "input_audio", "input_audio": part},
    ]
    audio = {} if output == "text" else {"audio": {"voice": voice}}
    expected = lm.generate(
        [Text(text), Speech(begun)],
        output,
        _NEW_TOKENS,
        speaker=voice if audio else None,
        seed=number,
    )

    def is_right(body: bytes) -> bool:
        message = json.loads(body)["choices"][0]["message"]
        if (message["content"] or "") != expected.text:
            return False
        if message["audio"] is None:
            return expected.wav is None
        heard = base64.b64decode(message["audio"]["data"])
        return expected.wav is not None and _same_wav(heard, expected.wav)

    return _json_case(
        f"chat in {output} {number}",
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": content}],
            "modalities": modalities,
            "seed": number,
            "max_tokens": _NEW_TOKENS,
            **audio,
        },
        is_right,
    )


def _json_case(
    name: str, path: str, values: dict, is_right: Callable[[bytes], bool]
) -> Case:
    body = json.dumps({"model": _MODEL, **values}).encode()
    return Case(name, path, body, "application/json", is_right)


def _same_wav(content: bytes, wav: Tensor) -> bool:
    heard, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    return len(heard) == len(wav) and np.allclose(
        heard, wav.numpy(), atol=_TOLERANCE
    )


@contextmanager
def server(workers: int, rows: int) -> Iterator[tuple[int, int]]:
    """Run a server; give its port and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "spiritlm_plugin.serving.command"]
    command += ["tinyspeech", "--variant", "expressive", "--dtype", "float32"]
    command += ["--port", f"{port}", "--threads", "1"]
    command += ["--workers", f"{workers}"]
    command += ["--rows", f"{rows}", "--log_level", "warning"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + _START
        # Each answer comes from one of the workers: so many come from all.
        while not all(_at_once(lambda: _is_ready(port), 32 * workers)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server does not start")
            time.sleep(0.2)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _at_once(function: Callable[[], bool], times: int) -> list[bool]:
    with ThreadPoolExecutor(times) as pool:
        calls = [pool.submit(function) for _ in range(times)]
        return [call.result() for call in calls]


def _is_ready(port: int) -> bool:
    with suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def resident_mb(process: int) -> float:
    """Return the memory of a process and of those that it started."""
    place = Path(f"/proc/{process}")
    lines = (place / "status").read_text().splitlines()
    [own] = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    children = (place / f"task/{process}/children").read_text().split()
    return int(own) / 1024 + sum(map(resident_mb, map(int, children)))


def crowd(
    port: int,
    cases: Sequence[Case],
    clients: int,
    seconds: float,
    broken: float,
    most: int,
) -> Tally:
    """Let so many clients ask for so long; return what came of it."""
    tally = Tally()
    end = time.monotonic() + seconds
    begun = time.perf_counter()
    counts = iter(range(most))

    def one(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < end and next(counts, None) is not None:
            case = draw.choice(cases)
            if draw.random() < broken:
                _break(port, case, draw, tally)
            else:
                tally.add(case, *_ask(port, case.path, case.body, case.kind))

    threads = [
        threading.Thread(target=one, args=(seed,)) for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.seconds = time.perf_counter() - begun
    return tally


def _ask(port: int, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
    """Return the answer to a request; status 0 if there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _break(port: int, case: Case, draw: random.Random, tally: Tally) -> None:
    """Send a request that is malformed, cut off or left."""
    with tally.lock:
        tally.broken += 1
    how = draw.randrange(4)
    if how == 0:
        body = case.body[: len(case.body) // 2]
        status, _ = _ask(port, case.path, body, case.kind)
    elif how == 1:
        status, _ = _ask(port, case.path, b'{"model": 7}', "application/json")
    else:
        # Cut off, or left while it is answered.
        sent = case.body[: len(case.body) // 2] if how == 2 else case.body
        head = (
            f"POST {case.path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: {case.kind}\r\n"
            f"Content-Length: {len(case.body)}\r\n\r\n"
        )
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port)) as raw,
        ):
            raw.sendall(head.encode() + sent)
            time.sleep(draw.random() / 2)
        return
    with tally.lock:
        tally.statuses[status] += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print Markdown."""
    parser = parser_of("benchmark_serving", "a server under load", 1)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--most", type=int, default=100_000)
    options, command = parsed(parser, arguments)
    seconds = 3.0 if options.quick else options.seconds
    lm = SpiritLM.from_hparams(
        "tinyspeech", overrides={"language_model_dtype": "float32"}
    )
    cases = cases_of(lm)
    with server(options.workers, options.rows) as (port, process):
        crowd(port, cases, options.clients, seconds / 6, 0.1, options.most)
        before = resident_mb(process)
        alone = crowd(port, cases, 1, seconds / 3, 0.0, options.most)
        many = crowd(port, cases, options.clients, seconds, 0.1, options.most)
        time.sleep(1)
        after = resident_mb(process)
        again = crowd(
            port, cases, options.clients, seconds / 3, 0.1, options.most
        )
        time.sleep(1)
        rested = resident_mb(process)
    print(f"`{command}`\n\n{machine('cpu')}\n")
    header = [
        "clients",
        "seconds",
        "right",
        "wrong",
        "broken",
        "statuses",
        "right a second",
    ]
    rows = [
        [
            name,
            f"{t.seconds:.0f}",
            f"{t.right}",
            f"{len(t.wrong)}",
            f"{t.broken}",
            ", ".join(f"{s}: {n}" for s, n in sorted(t.statuses.items())),
            f"{t.rate:.2f}",
        ]
        for name, t in (
            ("1", alone),
            (f"{options.clients}", many),
            (f"{options.clients}, once more", again),
        )
    ]
    print(table(header, rows))
    print(
        f"\nThroughput of the crowd: {many.rate / alone.rate:.2f} times. Memory "
        f"of the server: {before:.0f} MB before, {after:.0f} MB after, "
        f"{rested:.0f} MB after the second crowd."
    )
    for name, count in Counter(many.wrong + again.wrong).items():
        print(f"wrong: {name}, {count} times")


if __name__ == "__main__":
    main()
