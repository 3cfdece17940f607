"""The server's parts: batches that grow, the queue, the gate, forms, audio."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import threading

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.segments import Speech, Text
from spiritlm_plugin.decoders.constrained import decode
from spiritlm_plugin.decoders.joining import Joining
from spiritlm_plugin.inference.streaming import StreamPiece
from spiritlm_plugin.serving import Settings, batches, command
from spiritlm_plugin.serving.answers import Answer, Options
from spiritlm_plugin.serving.audio import (
    MEDIA_TYPES,
    ChunkEncoder,
    encode,
    encode_chunks,
    read_upload,
)
from spiritlm_plugin.serving.errors import RequestError
from spiritlm_plugin.serving.forms import Chat
from spiritlm_plugin.serving.forms import Reading as ReadingForm
from spiritlm_plugin.serving.gate import Gate
from spiritlm_plugin.serving.metrics import Metrics
from spiritlm_plugin.serving.state import Said
from spiritlm_plugin.serving.worker import ModelThread


@pytest.fixture(scope="module")
def lm(load, checkpoints):
    return load(checkpoints, "base", "float32")


# Batches that prompts join and leave.


def run_joining(batch, arrivals, drops=()):
    """Return ids and reasons, by number; prompts arrive before some steps."""
    found, step = {}, 0
    while batch or any(at >= step for at, _ in arrivals):
        for at, prompt in arrivals:
            if at == step:
                found[batch.add(*prompt)] = ([], None)
        for at, index in drops:
            if at == step:
                batch.drop(index)
        for piece in batch.step():
            ids, _ = found[piece.prompt]
            found[piece.prompt] = (ids + piece.ids, piece.end_reason)
        step += 1
    return found


@settings(max_examples=12)
@given(data=st.data())
def test_prompts_that_join_get_what_they_get_alone(lm, data):
    texts = ["the cat", "a", "many small houses stand near", "it"]
    count = data.draw(st.integers(1, 6))
    prompts = [
        (
            lm.vocabulary.encode([Text(texts[i % 4])], "speech"),
            i,
            data.draw(st.integers(1, 12)),
        )
        for i in range(count)
    ]
    arrivals = sorted(
        ((data.draw(st.integers(0, 15)), p) for p in prompts),
        key=lambda item: item[0],
    )
    dropped = data.draw(st.integers(0, count))
    batch = Joining(lm.engine.lm, "speech", 1.0, 1.0, rows=3)
    drops = [(data.draw(st.integers(0, 20)), dropped)]
    found = run_joining(batch, arrivals, drops)
    assert not len(batch)
    for index, (_, (prompt, seed, limit)) in enumerate(arrivals):
        [alone] = decode(
            lm.engine.lm, [prompt], "speech", limit, 1.0, 1.0, [seed]
        )
        ids, reason = found[index]
        if index == dropped:
            assert ids == alone.ids.tolist()[: len(ids)]
        else:
            assert (ids, reason) == (alone.ids.tolist(), alone.end_reason)


def test_what_no_token_can_follow_does_not_join(lm):
    batch = Joining(lm.engine.lm, "text")
    with pytest.raises(ValueError, match="leaves no room"):
        batch.add([5] * lm.context)
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        batch.add([5], max_new_tokens=0)
    assert not batch and batch.step() == []


# Answers.


@pytest.mark.parametrize("turns", range(8))
def test_who_reads_an_answer_can_be_cancelled_at_any_time(turns):
    """Also in the turn of the loop in which a piece comes."""

    async def read(answer):
        async for _ in answer:
            pass

    async def run():
        answer = Answer([], Options("text"), 60, lambda job: None)
        reading = asyncio.create_task(read(answer))
        await asyncio.sleep(0.01)
        answer.job.deliver(StreamPiece(0, "text", "a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading], timeout=5)
        return reading.cancelled()

    assert asyncio.run(run())


# The thread of a model.


@pytest.fixture
def thread(lm):
    """Return a function that starts a thread, stopped at the end."""
    started = []

    def start(**limits):
        made = ModelThread("base", lambda: lm, Settings(**limits), Metrics())
        started.append(made)
        made.start()
        while made.state != "ready":
            pass
        return made

    yield start
    for made in started:
        made.stop()


async def whole(thread, prompt, options):
    said = Said()
    async with await thread.ask(prompt, options) as answer:
        async for piece in answer:
            said.add(piece)
    return said


def same_as_generate(lm, said, prompt, options):
    expected = lm.generate(
        prompt,
        options.output,
        options.max_new_tokens,
        options.temperature,
        options.top_p,
        options.speaker,
        options.seed,
        min_speech_units=options.min_speech_units,
    )
    assert said.text == expected.text
    assert said.end_reason == expected.end_reason
    wav = torch.cat([torch.zeros(0), *said.wavs])
    truth = torch.zeros(0) if expected.wav is None else expected.wav
    assert torch.allclose(wav, truth, atol=1e-4)


def mixed(recording):
    """Prompts and options of all kinds."""
    prompts = [[Text("the cat")], [Speech(str(recording))], [Text("he said")]]
    return [
        (
            prompts[i % 3],
            Options(
                ("text", "speech", "any")[i // 3 % 3],
                6 + i,
                (0.0, 1.0)[i % 2],
                speaker=0,
                seed=i,
                min_speech_units=2,
                stream=i % 4 != 3,
            ),
        )
        for i in range(9)
    ]


@pytest.mark.parametrize("whole_outputs", [False, True])
def test_answers_are_those_of_generate(
    lm, thread, recording, monkeypatch, whole_outputs
):
    """Also where the engine gives whole outputs alone."""
    if whole_outputs:
        monkeypatch.setattr(batches, "is_llama", lambda lm: False)
    model, asked = thread(rows=4), mixed(recording)

    async def all_at_once():
        return await asyncio.gather(
            *(whole(model, prompt, options) for prompt, options in asked)
        )

    for said, (prompt, options) in zip(asyncio.run(all_at_once()), asked):
        same_as_generate(lm, said, prompt, options)


def test_a_prompt_that_cannot_be_used_harms_no_other(lm, thread):
    model = thread()
    good = ([Text("the cat")], Options("text", 5, seed=3))
    bad = [
        ([Speech(torch.full((9000,), torch.nan))], Options("text")),
        ([Text("a " * 9000)], Options("text")),
        ([Text("")], Options("text")),
        ([Text("a")], Options("tts", speaker=99)),
    ]

    async def together():
        return await asyncio.gather(
            *(whole(model, *one) for one in [*bad, good]),
            return_exceptions=True,
        )

    *errors, said = asyncio.run(together())
    for error in errors:
        assert isinstance(error, RequestError) and error.status_code == 400
    same_as_generate(lm, said, *good)


def test_a_full_queue_and_a_slow_answer_are_told(thread):
    model = thread(rows=1, waiting=1, request_seconds=0.2)
    gate = threading.Event()

    async def crowd():
        held = asyncio.ensure_future(model.call(lambda lm: gate.wait(5)))
        await asyncio.sleep(0.05)
        asked = [
            asyncio.ensure_future(
                model.ask([Text("a")], Options("text", 5, seed=1))
            )
            for _ in range(2)
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        gate.set()
        await held
        return found

    late, refused = asyncio.run(crowd())
    assert (late.status_code, late.code) == (503, "timeout")
    assert (refused.status_code, refused.code) == (503, "queue_full")
    assert refused.headers["Retry-After"]
    assert not model._waiting and not model._busy
    assert b'spiritlm_waiting{model="base"} 0.0' in model.metrics.text()


def test_an_answer_that_is_closed_is_not_made(thread):
    model = thread()

    async def leave():
        options = Options("speech", 400, 1.0, seed=1)
        async with await model.ask([Text("a")], options) as answer:
            async for _ in answer:
                break
        while model._batches:
            await asyncio.sleep(0.01)
        return answer.tokens

    tokens = asyncio.run(leave())
    assert 0 < tokens < 200
    assert not model._busy


def test_a_fault_is_told_and_the_thread_goes_on(lm, thread, monkeypatch):
    model = thread()
    options = Options("text", 3, seed=1)

    def fail(self):
        raise MemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(Joining, "step", fail)
        with pytest.raises(MemoryError):
            asyncio.run(whole(model, [Text("a")], options))
    same_as_generate(
        lm,
        asyncio.run(whole(model, [Text("a")], options)),
        [Text("a")],
        options,
    )


def test_a_model_that_cannot_be_loaded_is_told():
    def load():
        raise OSError("no such file")

    model = ModelThread("m", load, Settings(), Metrics())
    model.start()
    model.stop()
    assert model.state == "failed"
    with pytest.raises(RequestError, match="m has failed") as caught:
        _ = model.lm
    assert "Retry-After" not in caught.value.headers


# Who comes in.


def knock(gate_settings, headers=(), path="/v1/models", body=(), kind="http"):
    """Return the status that a gate answers with, and what came through."""
    seen, sent = [], []
    chunks = [
        {"type": "http.request", "body": chunk, "more_body": True}
        for chunk in body
    ] + [{"type": "http.request", "body": b"", "more_body": False}]

    async def app(scope, receive, send):
        while (message := await receive()).get("more_body"):
            seen.append(message["body"])
        await send({"type": "http.response.start", "status": 200})

    async def receive():
        return chunks.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": kind,
        "method": "POST",
        "path": path,
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in headers
        ],
    }
    gate = Gate(app, gate_settings, Metrics())
    asyncio.run(gate(scope, receive, send))
    assert gate.requests == gate.bytes == gate.connections == 0
    return sent[0].get("status", sent[0]["type"]), b"".join(seen)


def websocket_key(key):
    letters = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    return ("Sec-WebSocket-Protocol", f"spiritlm, key.{letters}")


@pytest.mark.parametrize(
    "headers, path, status",
    [
        ([], "/v1/models", 401),
        ([("Authorization", "Bearer wrong")], "/v1/models", 401),
        ([("Authorization", "Basic s3cret")], "/v1/models", 401),
        ([("Authorization", "Bearer s3crét")], "/v1/models", 200),
        ([websocket_key("s3crét")], "/v1/models", 200),
        ([websocket_key("s3cret")], "/v1/models", 401),
        ([("Sec-WebSocket-Protocol", "key.!")], "/v1/models", 401),
        ([], "/metrics", 401),
        ([], "/health", 200),
        ([], "/", 200),
        ([], "/page/a.js", 200),
    ],
)
def test_the_key(headers, path, status):
    assert knock(Settings(key="s3crét"), headers, path)[0] == status


@pytest.mark.parametrize("key", ["s3cretà", "Å", "e\u00a0"])
def test_a_key_may_end_in_any_letter(key):
    """A header is read as Latin-1, in which these are other signs."""
    headers = [("Authorization", f"Bearer {key}")]
    limits = Settings(key=key)
    assert knock(limits, headers, "/v1/models")[0] == 200
    assert knock(limits, [websocket_key(key)], "/v1/models")[0] == 200


@pytest.mark.parametrize(
    "origin, status",
    {
        None: 200,
        "http://localhost:8000": 200,
        "https://good.example": 200,
        "https://bad.example": 403,
        "http://localhost:9000": 403,
        "http://[": 403,
        "null": 403,
    }.items(),
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_from_elsewhere(origin, status, kind):
    headers = [("Host", "localhost:8000")]
    headers += [("Origin", origin)] if origin else []
    found, _ = knock(
        Settings(origins=("https://good.example",)), headers, kind=kind
    )
    if kind == "websocket" and status == 403:
        status = "websocket.close"
    assert found == status


@pytest.mark.parametrize(
    "host, status",
    {
        "localhost": 200,
        "LOCALHOST:80": 200,
        "[::1]:8000": 200,
        "evil.example": 403,
        "localhost.evil.example": 403,
        "[": 403,
    }.items(),
)
def test_other_names_of_the_server(host, status):
    allowed = Settings(hosts=("::1", "localhost"))
    assert knock(allowed, [("Host", host)])[0] == status


@pytest.mark.parametrize(
    "length", [None, "0", "nonsense", "\u00b2", "10", "99999", "9" * 5000]
)
@pytest.mark.parametrize("size", [3, 99999])
def test_large_bodies_are_not_read(size, length):
    headers = [] if length is None else [("Content-Length", length)]
    limits = Settings(body_bytes=1000)
    status, read = knock(limits, headers, body=[b"x" * 500] * (size // 500 + 1))
    if length is not None and length.startswith("99999"):
        assert (status, read) == (413, b"")
    else:
        assert status == (413 if size > 1000 else 200)
        assert len(read) <= 1000


def test_all_bodies_together_have_a_limit():
    limits = Settings(body_bytes=1000, total_bytes=700)
    assert knock(limits, body=[b"x" * 500])[0] == 200
    assert knock(limits, body=[b"x" * 500] * 2)[0] == 503


def test_a_slow_body_is_given_up():
    async def never():
        await asyncio.sleep(60)

    statuses = []

    async def app(scope, receive, send):
        await receive()

    async def send(message):
        statuses.append(message.get("status"))

    gate = Gate(app, Settings(body_seconds=0.01), Metrics())
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(gate(scope, never, send))
    assert statuses[0] == 408


def test_a_client_that_does_not_read_is_given_up():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message):
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    gate = Gate(app, Settings(send_seconds=0.01), Metrics())
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(gate(scope, None, send))
    assert gate.requests == 0
    counted = b'spiritlm_requests_total{route="/",status="200"} 1.0'
    assert counted in gate.metrics.text()


def test_more_than_there_is_room_for_is_refused():
    gate = Gate(None, Settings(requests=1, connections=1), Metrics())
    gate.requests = 2
    with pytest.raises(RequestError) as refused:
        gate._check_room({"path": "/v1/models", "headers": []})
    assert refused.value.status_code == 503
    gate._check_room({"path": "/health", "headers": []})


# Recordings.


@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(0, 20000), max_size=5),
    form=st.sampled_from(sorted(MEDIA_TYPES)),
)
def test_any_cutting_gives_the_same_file(cuts, form):
    wav = torch.sin(torch.arange(20000) / 9) / 2
    bounds = [0, *sorted(cuts), 20000]
    encoder = ChunkEncoder(form)
    parts = [
        encoder.push(wav[begin:end]) for begin, end in zip(bounds, bounds[1:])
    ]
    content = b"".join([*parts, encoder.finish()])
    if form == "pcm":
        samples, whole = (
            np.frombuffer(c, "<i2").astype(int)
            for c in (content, encode(wav, "pcm"))
        )
        assert len(samples) == len(whole) == 30000
        assert abs(samples - whole).max() <= 2
        return
    heard = read_audio(content)
    if form in ("wav", "flac"):
        assert torch.allclose(heard, wav, atol=1e-4)
    else:
        assert len(wav) <= len(heard) < len(wav) + 3000


def test_mp3_that_is_sent_as_it_comes_tells_its_length():
    """To readers that look at its first bytes, which bits of some rate are."""
    loud = torch.randn(16000, generator=torch.Generator().manual_seed(0)) / 4
    wav = torch.cat([loud, torch.zeros(48000), loud / 99])
    content = b"".join(encode_chunks([wav], "mp3"))
    frames = soundfile.info(io.BytesIO(content)).frames
    assert len(wav) <= frames < len(wav) + 3000
    assert abs(len(read_audio(content)) - frames) < 1200


@pytest.mark.parametrize("seconds, accepted", [(0.5, True), (2.0, False)])
@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus"])
def test_recordings_that_are_too_long(seconds, accepted, form):
    content = encode(torch.randn(int(16000 * seconds)) / 9, form)
    if accepted:
        assert len(read_upload(content, 1.0)) == pytest.approx(8000, abs=2000)
    else:
        with pytest.raises(ValueError, match="more than 1 s"):
            read_upload(content, 1.0)


def test_a_header_that_says_too_much_is_enough(monkeypatch):
    """Nothing is decoded, and one that says too little does not help."""
    wav = io.BytesIO()
    soundfile.write(wav, np.zeros(1_600_000, np.int16), 16000, format="WAV")
    monkeypatch.setattr("spiritlm_plugin.serving.audio.read_windows", None)
    with pytest.raises(ValueError, match="more than 9 s"):
        read_upload(wav.getvalue(), 9)


def test_a_stream_without_a_length_is_read_to_the_limit():
    encoder = ChunkEncoder("wav")
    content = encoder.push(torch.zeros(64000)) + encoder.finish()
    assert len(read_upload(content, 5)) == 64000
    with pytest.raises(ValueError, match="more than 3 s"):
        read_upload(content, 3)


# Forms.


def test_values_that_ask_for_nothing_are_allowed():
    form = Chat.model_validate(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hi", "name": None}],
            "n": 1,
            "frequency_penalty": 0.0,
            "logprobs": False,
            "stop": None,
            "tools": [],
        }
    )
    assert form.output == "text"


@pytest.mark.parametrize(
    "name, value",
    {
        "n": 2,
        "frequency_penalty": 0.1,
        "logprobs": True,
        "stop": ["a"],
        "tools": [{"type": "function"}],
        "temperature": 3,
        "top_p": 0,
        "max_tokens": 0,
        "seed": 2**64,
        "modalities": [],
        "something": 1,
    }.items(),
)
def test_what_cannot_be_done_is_named(name, value):
    values = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(ValidationError) as error:
        Chat.model_validate({**values, name: value})
    assert error.value.errors()[0]["loc"][0] == name


def test_speed_is_one():
    values = {"model": "m", "input": "hi", "voice": "anna"}
    assert ReadingForm.model_validate({**values, "speed": 1.0}).seed == 0
    with pytest.raises(ValidationError, match="speed"):
        ReadingForm.model_validate({**values, "speed": 2})


# The command.


def options_of(*arguments):
    return command._parser().parse_args(arguments)


def test_both_models_of_a_folder_are_served():
    assert list(command.find_models(options_of())) == ["expressive", "base"]
    [(name, load)] = command.find_models(
        options_of("--variant", "base", "--dtype", "float32")
    ).items()
    assert name == "base"
    assert load.keywords["overrides"] == {"language_model_dtype": "float32"}


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(command.KEY_VARIABLE, raising=False)
    assert command.settings_of(options_of()).key is None
    monkeypatch.setenv(command.KEY_VARIABLE, " first\n")
    assert command.settings_of(options_of()).key == "first"
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    found = command.settings_of(options_of("--key_file", str(path)))
    assert found.key == "s3cret" and "s3cret" not in repr(found)
    path.write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        command.settings_of(options_of("--key_file", str(path)))


def test_limits_are_options():
    found = command.settings_of(
        options_of("--audio_seconds", "9", "--rows", "3", "--host", "10.0.0.1")
    )
    assert (found.audio_seconds, found.rows) == (9.0, 3)
    assert "10.0.0.1" in found.hosts and "localhost" in found.hosts


@pytest.mark.parametrize("workers, shared", [(1, False), (2, True)])
def test_several_workers_count_together(workers, shared, monkeypatch):
    for name in (command.SHARED_VARIABLE, command._OPTIONS):
        monkeypatch.setenv(name, "")  # to be as before at the end
        monkeypatch.delenv(name)
    found = []

    def run(app, **options):
        folder = os.environ.get(command.SHARED_VARIABLE)
        found.append((options["workers"], folder and os.path.isdir(folder)))
        # Who sends faster than is heard answers late, and is not gone.
        assert options["ws_ping_timeout"] is None

    monkeypatch.setattr(command.uvicorn, "run", run)
    command.main(["--workers", f"{workers}"])
    assert found == [(workers, shared or None)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--host", "0.0.0.0"], "whoever reaches 0.0.0.0"),
        (["./no_such_folder"], "no such folder"),
        (["--rows", "0"], "rows must be >= 1"),
        (["--workers", "0"], "workers must be >= 1"),
        (["--port", "99999"], "below 65536"),
        (["--key_file", "./no_such_file"], "no_such_file"),
    ],
)
def test_what_cannot_be_served_is_said(arguments, message, capsys, monkeypatch):
    monkeypatch.delenv(command.KEY_VARIABLE, raising=False)
    monkeypatch.setattr(command.uvicorn, "run", None)  # not reached
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 1
    assert message in capsys.readouterr().err
