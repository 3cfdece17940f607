"""The server, as its clients see it: OpenAI's own, a browser's WebSocket.

One server, with the Expressive model that ships.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import torch
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.lobes.speech_tokenizer import join_windows
from spiritlm_plugin.serving import Settings, create_app
from spiritlm_plugin.serving.audio import encode
from tests.benchmarks.benchmark_serving import cases_of, crowd

openai = pytest.importorskip("openai")

KEY = "a key"
MODEL = "expressive"
TEXT = "the old man saw the farmer"
LIMITS = Settings(
    key=KEY, audio_seconds=6, characters=200, body_bytes=600_000, rows=4
)


@pytest.fixture(scope="module")
def lm():
    return SpiritLM.from_hparams(
        "tinyspeech", overrides={"language_model_dtype": "float32"}
    )


@contextmanager
def running(app):
    """Serve an app in a thread; give its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", ws_max_size=2**16)
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def app(lm):
    return create_app({MODEL: lm}, LIMITS)


@pytest.fixture(scope="module")
def port(app):
    with running(app) as port:
        yield port


@pytest.fixture(scope="module")
def client(port):
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0
    )


@pytest.fixture(scope="module")
def said(lm):
    """A sentence, spoken by the model; 16 kHz samples."""
    wavs, _ = lm.synthesize([TEXT], speaker="anna", seed=1)
    return wavs[0]


@pytest.fixture(scope="module")
def begun(said):
    """The beginning of that sentence, as OpenAI's message has it."""
    data = base64.b64encode(encode(said[:20000], "wav")).decode()
    return {
        "type": "input_audio",
        "input_audio": {"data": data, "format": "wav"},
    }


def request(port, method, path, body=None, **headers):
    """Return status and body; without the help of a client."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
        headers["Content-Type"] = "application/json"
    headers.setdefault("Authorization", f"Bearer {KEY}")
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def metric(port, name):
    _, text = request(port, "GET", "/metrics")
    lines = [line.split() for line in text.decode().splitlines()]
    return sum(float(w[1]) for w in lines if w[0].startswith(name))


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# OpenAI's client.


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    model = client.models.retrieve(MODEL)
    assert model.id == MODEL
    assert model.voices[:2] == ["alan", "anna"]
    assert model.styles == ["happy", "neutral", "sad"]
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.models.retrieve("gpt")


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_it_transcribes(client, lm, said, form):
    content = encode(said, form)
    expected = lm.transcribe_batch([content])[0]
    file = (f"a.{form}", content)
    create = client.audio.transcriptions.create
    found = create(model=MODEL, file=file)
    assert found.text == expected and len(expected.split()) > 3
    assert found.usage.seconds == len(said) / 16000
    text = create(model=MODEL, file=file, response_format="text")
    assert text == f"{expected}\n"
    told = create(
        model=MODEL, file=file, response_format="verbose_json", language="en"
    )
    assert (told.text, told.language) == (expected, "en")
    assert told.duration == len(said) / 16000
    *deltas, done = create(model=MODEL, file=file, stream=True)
    assert done.text == "".join(d.delta for d in deltas) == expected
    assert len(deltas) > 3


def test_it_speaks_while_it_reads(client, lm):
    wavs, _ = lm.synthesize([TEXT], speaker="ben", seed=5)
    create = client.audio.speech.with_streaming_response.create
    options = {
        "model": MODEL,
        "input": TEXT,
        "voice": "ben",
        "extra_body": {"seed": 5},
    }
    with create(**options, response_format="wav") as response:
        chunks = list(response.iter_bytes())
    heard, rate = soundfile.read(io.BytesIO(b"".join(chunks)), dtype="float32")
    assert rate == 16000 and len(chunks) > 2
    assert np.allclose(heard, wavs[0].numpy(), atol=2e-4)
    for form in ("mp3", "opus", "flac"):
        with create(**options, response_format=form) as response:
            content = response.read()
        assert len(Speech(content).content) > 1000
        assert lm.encode_file(content).duration == pytest.approx(
            len(heard) / rate, abs=0.3
        )
    with create(**options, response_format="pcm") as response:
        samples = np.frombuffer(response.read(), "<i2")
    assert len(samples) == pytest.approx(1.5 * len(heard), abs=2)
    with create(
        **options, response_format="pcm", stream_format="sse"
    ) as response:
        events = [
            json.loads(line[len("data: ") :])
            for line in response.iter_lines()
            if line
        ]
    audio = [base64.b64decode(e["audio"]) for e in events[:-1]]
    assert b"".join(audio) == samples.tobytes()
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["output_tokens"] > 10


def test_it_chats_with_audio(client, lm, begun):
    prompt = [
        Text("the man said"),
        Speech(base64.b64decode(begun["input_audio"]["data"])),
    ]
    content = [{"type": "text", "text": "the man said"}, begun]
    messages = [{"role": "user", "content": content}]
    create = client.chat.completions.create
    options = {
        "model": MODEL,
        "messages": messages,
        "seed": 4,
        "max_completion_tokens": 60,
        "modalities": ["audio"],
    }
    expected = lm.generate(prompt, "speech", 60, speaker="cora", seed=4)
    found = create(**options, audio={"voice": "cora", "format": "wav"})
    [choice] = found.choices
    audio = choice.message.audio
    heard, _ = soundfile.read(io.BytesIO(base64.b64decode(audio.data)))
    assert np.allclose(heard, expected.wav.numpy(), atol=2e-4)
    assert choice.message.content is None
    assert choice.finish_reason in ("stop", "length")
    ids = lm.vocabulary.encode(lm.with_units([prompt])[0], "speech")
    assert found.usage.prompt_tokens == len(ids)

    *chunks, last = create(
        **options,
        audio={"voice": "cora", "format": "pcm16"},
        stream=True,
        stream_options={"include_usage": True},
    )
    data = _stream_audio(chunks)
    samples = np.frombuffer(b"".join(data), "<i2")
    assert len(samples) == pytest.approx(1.5 * len(heard), abs=2)
    assert last.usage == found.usage
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason

    # What was said goes on from its units.
    again = create(
        model=MODEL,
        messages=[
            *messages,
            {"role": "assistant", "audio": {"id": audio.id}},
            {"role": "user", "content": "he said"},
        ],
        seed=1,
        max_tokens=5,
    )
    prompt = [*prompt, *expected, Text("he said")]
    text = lm.generate(prompt, "text", 5, seed=1).text
    assert again.choices[0].message.content == text
    assert again.choices[0].message.audio is None


def _stream_audio(chunks):
    """Return the audio of chunks, however the client's version shows it."""
    dumped = [chunk.model_dump() for chunk in chunks]
    deltas = [d["choices"][0]["delta"].get("audio") or {} for d in dumped]
    ids = {d["id"] for d in deltas if d.get("id")}
    assert len(ids) == 1
    assert any(d.get("expires_at") for d in deltas)
    return [base64.b64decode(d["data"]) for d in deltas if d.get("data")]


def test_it_streams_text(client, lm):
    expected = lm.generate([Text("the old man")], "text", 9, seed=2)
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "system", "content": "the old"},
                {"role": "user", "content": "man"},
            ],
            seed=2,
            max_tokens=9,
            stream=True,
        )
    )
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(deltas) == expected.text
    assert len({chunk.id for chunk in chunks}) == 1


def test_text_stays_text(client, lm):
    """Names of tokens in a text are letters."""
    for text in ("[Speech][Hu3][Hu4]", "</s>", "a[TTS]", "[Text]"):
        found = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            max_tokens=1,
            seed=0,
        )
        ids = lm.vocabulary.encode([Text(text)], "text")
        assert found.usage.prompt_tokens == len(ids)
        kinds = lm.vocabulary.kinds[
            ids[len(lm.vocabulary.text.prompt_start) + 1 :]
        ]
        assert (kinds == -1).all()


def test_many_at_once_get_their_own_answers(client, lm):
    """Of unlike settings, in fewer rows than there are requests."""
    cases = [
        (f"the {word}", (0.0, 0.8)[i % 2], i)
        for i, word in enumerate(["cat", "old man", "farmer", "queen"] * 3)
    ]

    def ask(case):
        text, temperature, seed = case
        found = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            temperature=temperature,
            seed=seed,
            max_tokens=6,
        )
        return found.choices[0].message.content

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, cases))
    for answer, (text, temperature, seed) in zip(found, cases):
        [expected] = lm.generate(
            [[Text(text)]], "text", 6, temperature, seed=seed
        )
        assert answer == expected.text


def test_styles_are_not_mixed_up(client, lm):
    """Of requests in one crowd, each is what it is alone."""
    styles = [None, "happy", "neutral", "sad", "2", "auto"]

    def ask(style):
        found = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "the cat"}],
            modalities=["audio"],
            audio={"voice": "ben", "format": "wav", "style": style},
            seed=4,
            max_tokens=90,
        )
        content = base64.b64decode(found.choices[0].message.audio.data)
        return soundfile.read(io.BytesIO(content), dtype="float32")[0]

    with ThreadPoolExecutor(len(styles)) as pool:
        found = dict(zip(styles, pool.map(ask, styles)))
    for style in styles[:4]:
        made = lm.generate(
            [Text("the cat")], "speech", 90, speaker="ben", seed=4, style=style
        )
        assert len(made.wav) == len(found[style]) > 16000
        assert np.allclose(found[style], made.wav.numpy(), atol=2e-4)
    assert np.array_equal(found["2"], found["sad"])
    assert np.array_equal(found["auto"], found[None])
    assert len({len(wav) for wav in found.values()}) > 1

    wavs, _ = lm.synthesize([TEXT], speaker="ben", seed=5, style="sad")
    heard = client.audio.speech.create(
        model=MODEL,
        input=TEXT,
        voice="ben",
        response_format="wav",
        extra_body={"seed": 5, "style": "sad"},
    )
    heard, _ = soundfile.read(io.BytesIO(heard.content), dtype="float32")
    assert np.allclose(heard, wavs[0].numpy(), atol=2e-4)
    with pytest.raises(openai.BadRequestError, match="'mad'; known: 0 .happy"):
        client.audio.speech.create(
            model=MODEL, input=TEXT, voice="ben", extra_body={"style": "mad"}
        )


# What is refused.


@pytest.fixture(scope="module")
def chat(begun):
    """Return the body of a chat with changes."""

    def make(content="hi", **changes):
        messages = [{"role": "user", "content": content}]
        return {"model": MODEL, "messages": messages, **changes}

    return make


def audio_part(data):
    return [{"type": "input_audio", "input_audio": {"data": data}}]


def wav_base64(seconds):
    return base64.b64encode(
        encode(torch.zeros(int(16000 * seconds)), "wav")
    ).decode()


REFUSED = {
    "path": (audio_part("/etc/passwd"), {}, "no base64"),
    "address": (audio_part("https://example.org/a.wav"), {}, "no base64"),
    "data address": (audio_part("data:audio/wav;base64,AAAA"), {}, "no base64"),
    "no audio": (audio_part("AAAA"), {}, "cannot read"),
    "empty audio": (audio_part(""), {}, "cannot read"),
    "long audio": (audio_part(wav_base64(7)), {}, "more than 6 s"),
    "short audio": (audio_part(wav_base64(0.01)), {}, "too short"),
    "image": (
        [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
        {},
        "type",
    ),
    "long text": ("a" * 201, {}, "limit here is 200"),
    "surrogate": ("\ud800", {}, "surrogate"),
    "empty": ("", {}, "empty"),
    "voice": (
        "hi",
        {"audio": {"voice": "x"}, "modalities": ["audio"]},
        "unknown speaker",
    ),
    "voice without end": (
        "hi",
        {"audio": {"voice": "9" * 5000}, "modalities": ["audio"]},
        "unknown speaker",
    ),
    "style": (
        "hi",
        {"audio": {"style": "\ud800"}, "modalities": ["audio"]},
        "unknown style",
    ),
    "long audio together": (
        [*audio_part(wav_base64(4)), *audio_part(wav_base64(3))],
        {},
        "last 7.0 s together; the limit here is 6",
    ),
    "no modality": ("hi", {"audio": {"voice": "anna"}}, "modality"),
    "stream format": (
        "hi",
        {"audio": {"format": "wav"}, "modalities": ["audio"], "stream": True},
        "pcm16",
    ),
    "unknown answer": (
        "hi",
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
        "no such answer",
    ),
    "choices": ("hi", {"n": 2}, "n is not supported"),
    "tool": ("hi", {"tools": [{}]}, "tools is not supported"),
    "no character": ("hi", {"\ud800": 1}, ""),
    "voice of none": (
        "hi",
        {"audio": {"voice": "\ud800"}, "modalities": ["audio"]},
        "unknown speaker",
    ),
    "infinite": ("hi", {"temperature": float("nan")}, "temperature"),
    "model": ("hi", {"model": "../../etc"}, "no such model"),
}


@pytest.mark.parametrize(
    "content, changes, message", REFUSED.values(), ids=REFUSED
)
def test_what_cannot_be_done_is_refused(port, chat, content, changes, message):
    status, body = request(
        port, "POST", "/v1/chat/completions", chat(content, **changes)
    )
    error = json.loads(body)["error"]
    assert status in (400, 404) and message in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "/work" not in error["message"] and "Traceback" not in body.decode()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 1}', b"[" * 100_000],
    ids=range(7),
)
@pytest.mark.parametrize(
    "path", ["chat/completions", "audio/speech", "audio/transcriptions"]
)
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data"])
def test_malformed_bodies(port, path, body, kind):
    status, answer = request(
        port, "POST", f"/v1/{path}", body, **{"Content-Type": kind}
    )
    assert status in (400, 422) and "error" in json.loads(answer)


def test_uploads_that_are_no_recordings(client, port):
    for content in (b"", b"RIFF", b"/etc/passwd", bytes(5000)):
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(
                model=MODEL, file=("../../a.wav", content)
            )
    form = b"--x\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n"
    body = form % (b"model", MODEL.encode()) + form % (b"file", b"/etc/passwd")
    status, answer = request(
        port,
        "POST",
        "/v1/audio/transcriptions",
        body + b"--x--\r\n",
        **{"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert status == 400 and b"file is no file" in answer
    with pytest.raises(openai.BadRequestError, match="language en alone"):
        client.audio.transcriptions.create(
            model=MODEL, file=("a", b""), language="fr"
        )
    with pytest.raises(openai.BadRequestError, match="prompt is not supp"):
        client.audio.transcriptions.create(
            model=MODEL, file=("a", b""), prompt="names"
        )


def test_a_large_body_is_refused(port, client):
    with pytest.raises(openai.APIStatusError) as error:
        client.audio.transcriptions.create(
            model=MODEL, file=("a.wav", bytes(700_000))
        )
    assert error.value.status_code == 413


def test_the_key_is_asked_for(port):
    for key in ("", "Bearer ", "Bearer other", "Basic a key"):
        status, body = request(port, "GET", "/v1/models", Authorization=key)
        assert status == 401 and b"API key" in body
    assert request(port, "GET", "/health", Authorization="")[0] == 200
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{port}/v1/conversation")
    assert refused.value.response.status_code in (401, 403)


def test_other_origins_and_addresses(port):
    origin = {"Origin": "https://example.org"}
    assert request(port, "GET", "/v1/models", **origin)[0] == 403
    assert request(port, "GET", "/v1/nothing")[0] == 404
    assert request(port, "GET", "/v1/chat/completions")[0] == 405
    with pytest.raises(InvalidStatus):
        with talk(port, origin="https://example.org"):
            pass


# Clients that leave.


def test_a_client_that_leaves_is_not_answered(port, app, chat):
    """At the next token, whether it waited for all or was sent pieces."""
    thread = app.state.server.models[MODEL]
    body = chat("the", modalities=["audio"], seed=3, max_tokens=900)
    for stream in (False, True):
        before = metric(port, 'spiritlm_tokens_total{direction="out"')
        content = json.dumps({**body, "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\n"
                b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
                % (KEY.encode(), len(content), content)
            )
            wait_until(lambda: thread._busy)
        wait_until(lambda: not thread._busy)
        made = metric(port, 'spiritlm_tokens_total{direction="out"') - before
        assert made < 300


def test_a_body_that_is_cut_off(port):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 999\r\n"
            b"Authorization: Bearer a key\r\n\r\n{"
        )
    assert request(port, "GET", "/health")[0] == 200


# A crowd, a quarter of whose requests are broken.


@pytest.mark.parametrize(
    "limits",
    [Settings(rows=4), Settings(rows=1, waiting=1, requests=3)],
    ids=["room", "full"],
)
def test_a_crowd(lm, limits):
    """No answer is lost or crossed, and nothing is left behind."""
    app = create_app({MODEL: lm}, limits)
    with running(app) as port:
        found = crowd(port, cases_of(lm, 1), 8, 20.0, 0.25, 24)
        model = app.state.server.models[MODEL]
        wait_until(lambda: not model._batches and not model._waiting)
        wait_until(lambda: metric(port, "spiritlm_running") == 0)
    assert not found.wrong and found.right
    assert set(found.statuses) <= {200, 400, 503}
    assert (found.statuses[503] > 0) == (limits.requests == 3)


def test_other_origins_may_send_what_their_clients_send(lm):
    app = create_app({MODEL: lm}, Settings(origins=("https://a.example",)))
    with running(app) as port:
        headers = {
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-stainless-lang",
        }
        assert request(port, "OPTIONS", "/v1/models", **headers)[0] == 200
        headers["Origin"] = "https://b.example"
        assert request(port, "OPTIONS", "/v1/models", **headers)[0] != 200


def test_what_was_said_stays_with_its_model(lm, begun):
    """Whose units are no other one's."""
    with running(create_app({"one": lm, "two": lm})) as port:
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none"
        )

        def ask(model, messages):
            return client.chat.completions.create(
                model=model,
                modalities=["audio"],
                audio={"voice": "anna", "format": "wav"},
                messages=messages,
                seed=1,
                max_tokens=20,
            ).choices[0]

        question = {"role": "user", "content": [begun]}
        audio = {"id": ask("one", [question]).message.audio.id}
        answer = {"role": "assistant", "audio": audio}
        assert ask("one", [question, answer]).message.audio
        with pytest.raises(openai.BadRequestError, match="an answer of one"):
            ask("two", [question, answer])
        with pytest.raises(openai.BadRequestError, match="in a message beside"):
            ask("one", [question, answer | {"content": "something else"}])

        with talk(port) as one:
            one.receive("ready")
            one.send("configure", model="two")
            one.receive("configured")
            one.send("text", text="the")
            one.send("configure", model="one", output="speech", seed=1)
            one.receive("configured")
            one.send("continue")
            messages, _ = one.answer()
            assert messages[-1]["turn"]
            one.send("configure", model="two")
            assert "units of one" in one.receive("error")["message"]
            one.send("clear")
            one.send("configure", model="two")
            assert one.receive("configured")["model"] == "two"


# Conversations.


class Talk:
    """A client's side of a conversation."""

    def __init__(self, socket):
        self.socket = socket

    def send(self, kind, **values):
        self.socket.send(json.dumps({"type": kind, **values}))

    def receive(self, kind):
        """Return the next message, which must be of a kind."""
        message = self.next()
        assert message["type"] == kind, message
        return message

    def next(self):
        """Return the next message."""
        return json.loads(self.socket.recv(timeout=20))

    def answer(self):
        """Return the messages of an answer, and its samples."""
        messages, samples = [], []
        while not messages or messages[-1]["type"] != "end":
            messages.append(self.next())
            assert messages[-1]["type"] != "error", messages[-1]
            if messages[-1]["type"] == "audio":
                samples.append(self.socket.recv(timeout=20))
                assert len(samples[-1]) == 2 * messages[-1]["samples"]
        return messages, np.frombuffer(b"".join(samples), "<i2") / 32767

    def speak(self, wav, rate=16000):
        samples = (wav * 32767).round().to(torch.int16).numpy().tobytes()
        self.send("audio.begin", sample_rate=rate)
        for begin in range(0, len(samples), 9999):
            self.socket.send(samples[begin : begin + 9999])
        self.send("audio.end")


@contextmanager
def talk(port, **options):
    key = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
    with connect(
        f"ws://127.0.0.1:{port}/v1/conversation",
        subprotocols=["spiritlm", f"key.{key}"],
        **options,
    ) as socket:
        assert socket.subprotocol == "spiritlm"
        yield Talk(socket)


def units_of(talk):
    """Return the user's units, joined."""
    streams = {"phonetic": [], "pitch": [], "style": []}
    while True:
        message = talk.receive("units")
        for name, stream in streams.items():
            stream += message[name]
        if message["final"]:
            return streams


def test_a_conversation(port, lm, said):
    samples = (said[:24000] * 32767).round().to(torch.int16)
    units = join_windows(lm.encode_stream([samples]))
    with talk(port) as client:
        ready = client.receive("ready")
        [model] = ready["models"]
        assert model["id"] == MODEL and "anna" in model["speakers"]
        assert model["styles"] == ["happy", "neutral", "sad"]
        assert model["kinds"] == ["phonetic", "pitch", "style"]
        assert ready["limits"]["audio_seconds"] == 6
        settings = {"speaker": "dan", "style": "happy", "seed": 7}
        client.send("configure", output="speech", **settings)
        assert client.receive("configured").items() >= settings.items()
        client.speak(said[:24000])
        streams = units_of(client)
        assert streams["phonetic"] == units.phonetic.tolist()
        assert streams["style"] == units.style.tolist()
        client.send("continue")
        messages, samples = client.answer()
        first = lm.generate([Speech(units)], "speech", **settings)
        assert np.allclose(samples, first.wav.numpy(), atol=2e-4)
        tokens = [
            token
            for m in messages
            if m["type"] == "tokens"
            for token in m["tokens"]
        ]
        assert [v for _, v in tokens] == first[0].stream.values.tolist()
        assert messages[-1]["seed"] == 7
        assert messages[-1]["reason"] == first.end_reason
        assert messages[-1]["first_audio_ms"] >= 0

        # The model's turn stays in the prompt, as units.
        client.send("text", text=" he said")
        client.send("configure", output="text", seed=8, max_new_tokens=7)
        client.receive("configured")
        client.send("continue")
        messages, _ = client.answer()
        prompt = [Speech(units), *first, Text(" he said")]
        second = lm.generate(prompt, "text", 7, seed=8)
        texts = [m["text"] for m in messages if m["type"] == "text"]
        assert "".join(texts) == second.text

        # Taken back, it is made again.
        client.send("undo")
        client.send("continue")
        again, _ = client.answer()
        assert [m for m in again if m["type"] == "text"] == [
            m for m in messages if m["type"] == "text"
        ]
        client.send("clear")
        client.send("continue")
        assert "first" in client.receive("error")["message"]


def test_an_answer_is_cancelled(port, app):
    with talk(port) as client:
        client.receive("ready")
        client.send(
            "configure",
            output="speech",
            max_new_tokens=900,
            seed=3,
            temperature=1,
        )
        client.receive("configured")
        client.send("text", text="the")
        client.send("continue")
        client.receive("tokens")
        client.send("text", text="more")
        client.send("cancel")
        kinds = []
        while not kinds or kinds[-1]["type"] != "end":
            message = client.socket.recv(timeout=20)
            if isinstance(message, str):
                kinds.append(json.loads(message))
        assert kinds[-1]["reason"] == "cancelled"
        assert kinds[-1]["tokens"] < 900
        [error] = [m for m in kinds if m["type"] == "error"]
        assert "being made" in error["message"] and not error["fatal"]
    thread = app.state.server.models[MODEL]
    wait_until(lambda: not thread._busy)


def test_messages_that_cannot_be_used(port):
    with talk(port) as client:
        client.receive("ready")
        for message, reason in (
            ("{", "no JSON"),
            ("3", "an object"),
            ('{"type": "dance"}', "type"),
            ('{"type": "configure", "voice": "x"}', "voice is not supported"),
            ('{"type": "configure", "speaker": "x"}', "unknown speaker"),
            ('{"type": "configure", "speaker": true}', "speaker"),
            ('{"type": "configure", "style": "x"}', "unknown style 'x'"),
            ('{"type": "configure", "style": 3}', "unknown style 3"),
            ('{"type": "configure", "model": "x"}', "no such model"),
            ('{"type": "configure", "max_new_tokens": 9999}', "at most"),
            ('{"type": "audio.begin", "sample_rate": 5}', "sample_rate"),
            ('{"type": "audio.end"}', "audio.begin"),
            ('{"type": "undo"}', "no turn"),
            ('{"type": "continue"}', "first"),
            (json.dumps({"type": "text", "text": "a" * 201}), "limit"),
            (b"\0\0", "audio.begin"),
        ):
            client.socket.send(message)
            error = client.receive("error")
            assert reason in error["message"] and not error["fatal"]
        for speaker in ("2", "auto", 2):
            client.send("configure", speaker=speaker)
            assert client.receive("configured")["speaker"] == speaker
        client.send("audio.begin", sample_rate=16000)
        for kind in ("text", "continue", "undo", "configure"):
            client.send(kind, **({"text": "a"} if kind == "text" else {}))
            assert "a recording is taken" in client.receive("error")["message"]
        client.send("audio.begin", sample_rate=16000)
        assert "a recording is taken" in client.receive("error")["message"]
        client.send("clear")
        client.speak(torch.zeros(7 * 16000))
        while (message := client.next())["type"] == "units":
            assert not message["final"]
        assert message["type"] == "error"
        assert "more than 6 s" in message["message"]
        client.socket.send(b"x" * 70_000)
        with pytest.raises(ConnectionClosed):
            while True:
                client.socket.recv(timeout=20)


def test_a_conversation_has_the_room_of_the_context(port, lm):
    with talk(port) as client:
        client.receive("ready")
        for _ in range(40):
            client.send("text", text=" many small houses" * 10)
        client.send("undo")
        client.send("configure", output="text", max_new_tokens=2)
        message = client.receive("error")
        while message["type"] == "error":
            assert f"context has {lm.context}" in message["message"]
            message = client.next()
        client.send("continue")
        client.answer()


# What others look at.


def test_health_and_metrics(port):
    status, body = request(port, "GET", "/health")
    assert status == 200
    assert json.loads(body) == {"status": "ready", "models": {MODEL: "ready"}}
    assert metric(port, "spiritlm_requests_total") > 10
    assert metric(port, "spiritlm_audio_seconds_total") > 1
    assert metric(port, "spiritlm_first_audio_seconds_count") >= 1
    wait_until(lambda: metric(port, "spiritlm_running") == 0)
    assert metric(port, "spiritlm_waiting") == 0
    _, text = request(port, "GET", "/metrics")
    assert b"passwd" not in text and b"nothing" not in text


def test_a_model_that_has_failed_is_told(lm):
    def load():
        raise OSError("no such file")

    with running(create_app({"good": lm, "bad": load})) as port:
        states = {"good": "ready", "bad": "failed"}
        expected = {"status": "failed", "models": states}
        wait_until(
            lambda: json.loads(request(port, "GET", "/health")[1]) == expected
        )
        assert request(port, "GET", "/health")[0] == 503
        form = {"model": "bad", "input": "a"}
        status, body = request(port, "POST", "/v1/audio/speech", form)
        assert status == 503 and b"no such file" not in body


def test_it_is_not_ready_before_the_model_is(lm):
    loaded = threading.Event()

    def load():
        loaded.wait(20)
        return lm

    with running(create_app({"late": load})) as port:
        status, body = request(port, "GET", "/health")
        assert status == 503 and json.loads(body)["models"]["late"] == "loading"
        status, body = request(
            port, "POST", "/v1/audio/speech", {"model": "late", "input": "a"}
        )
        assert status == 503 and b"being loaded" in body
        loaded.set()
        wait_until(lambda: request(port, "GET", "/health")[0] == 200)
