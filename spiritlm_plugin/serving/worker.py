"""A model in a thread of its own, which answers many at a time.

A thread owns each model and alone runs it. Requests wait in a queue; those of
like settings share a batch, which one that comes later joins and one that ends
leaves, so that what a request gets depends on its seed and not on others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

import torch

from spiritlm_plugin.dataio.units.segments import Segment
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.decoders.continuous import Piece
from spiritlm_plugin.decoders.joining import Joining
from spiritlm_plugin.inference.generation import Speaking, Turn
from spiritlm_plugin.inference.spiritlm import SpiritLM
from spiritlm_plugin.inference.streaming import Output, StreamPiece
from spiritlm_plugin.serving.answers import Answer, Job, Options, put
from spiritlm_plugin.serving.batches import WholeOutputs, new_batch
from spiritlm_plugin.serving.errors import BUSY, RequestError, busy, refused
from spiritlm_plugin.serving.metrics import Metrics
from spiritlm_plugin.serving.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Requests whose speech is tokenized together, while outputs wait.
_TOGETHER = 4
# Tokens of an answer that is sent whole, between two looks at what they say;
# and outputs for which those of all others wait for a token more.
_UNSEEN_TOKENS = 50
_OUTPUTS_PER_TOKEN = 2
# Loading sets what all threads see, such as the default type.
_LOADING = threading.Lock()


class ModelThread:
    """A model, and the thread that runs it.

    Arguments
    ---------
    name : str
        Of the model.
    load : callable
        Returns it; called in the thread.
    settings : Settings
        Of the server.
    metrics : Metrics
        Of the server.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], SpiritLM],
        settings: Settings,
        metrics: Metrics,
    ):
        self.name = name
        self.settings = settings
        self.metrics = metrics
        self._load = load
        self._lm: SpiritLM | None = None
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._waiting: deque[Job] = deque()
        self._batches: dict[tuple[Any, ...], Joining | WholeOutputs] = {}
        self._running: dict[tuple[Any, ...], dict[int, Job]] = {}
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run, name=f"model {name}", daemon=True
        )

    @property
    def state(self) -> Literal["ready", "loading", "failed"]:
        """Whether it is loaded and runs, or will, or will not any more."""
        is_alive = self._thread.is_alive()
        if self._lm is not None and is_alive:
            return "ready"
        has_begun = self._thread.ident is not None
        return "failed" if has_begun and not is_alive else "loading"

    @property
    def lm(self) -> SpiritLM:
        """The model, for what needs no computing.

        Raises
        ------
        RequestError
            If it is not loaded.
        """
        state = self.state
        if state == "loading":
            raise busy(f"the model {self.name} is being loaded", state)
        if self._lm is None or state == "failed":
            raise RequestError(
                BUSY,
                f"the model {self.name} has failed; the server's log says why",
                code=state,
            )
        return self._lm

    def require(self, marker: str, task: str) -> None:
        """Raise RequestError if the model has not learned a task.

        Arguments
        ---------
        marker : str
            The key of its token.
        task : str
            What to call it.
        """
        if marker not in self.lm.vocabulary.markers:
            raise RequestError(
                400,
                f"{self.name} was not trained to {task}",
                "model",
                "unsupported_model",
            )

    def start(self) -> None:
        """Load the model, and wait for requests."""
        self._thread.start()

    def stop(self) -> None:
        """Give up all requests; return when the thread has ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    async def ask(self, prompt: Sequence[Segment], options: Options) -> Answer:
        """Return the answer to a prompt, when it has begun.

        Raises
        ------
        RequestError
            If too many wait, the prompt cannot be used, or it took too long.
        """
        try:
            self.lm.speaker_id(options.speaker)
        except ValueError as error:
            raise refused(error, "voice") from error
        try:
            self.lm.style_units(options.style)
        except ValueError as error:
            raise refused(error, "style") from error
        if len(self._waiting) >= self.settings.waiting:
            raise busy(
                f"{len(self._waiting)} requests wait already; ask later",
                "queue_full",
            )
        seconds = self.settings.request_seconds
        answer = Answer(prompt, options, seconds, self.cancel)
        with self._changed:
            self._waiting.append(answer.job)
            self._count_waiting()
            self._changed.notify()
        try:
            await answer.begun()
        except (ValueError, TypeError) as error:
            raise refused(error) from error
        except BaseException:
            answer.close()
            raise
        return answer

    async def call(self, function: Callable[[SpiritLM], T]) -> T:
        """Return what a function gives that runs in the thread.

        Raises
        ------
        RequestError
            If the model is not loaded.
        """
        lm = self.lm
        loop = asyncio.get_running_loop()
        result: asyncio.Queue[Any] = asyncio.Queue()

        def run() -> None:
            try:
                put(loop, result, (function(lm), None))
            except Exception as error:
                put(loop, result, (None, error))

        with self._changed:
            self._calls.append(run)
            self._changed.notify()
        value, error = await result.get()
        if error is not None:
            raise error
        return value

    def cancel(self, job: Job) -> None:
        """Give up a request, before the next token of it is made."""
        with self._changed:
            job.cancelled = True
            with suppress(ValueError):
                self._waiting.remove(job)
            self._count_waiting()
            self._changed.notify()

    def _count_waiting(self) -> None:
        self.metrics.waiting.labels(self.name).set(len(self._waiting))

    def _run(self) -> None:
        try:
            with _LOADING:
                self._lm = self._load()
        except Exception:
            logger.exception("the model %s cannot be loaded", self.name)
            return
        logger.info("the model %s is ready", self.name)
        with torch.inference_mode():
            while self._wait():
                while self._calls:
                    self._calls.popleft()()
                self._admit(self._lm)
                for key in list(self._batches):
                    self._advance(key, self._lm)

    @property
    def _busy(self) -> int:
        """Outputs that are made."""
        return sum(map(len, self._running.values()))

    def _wait(self) -> bool:
        """Wait for something to do; False at the end."""
        self.metrics.running.labels(self.name).set(self._busy)
        with self._changed:
            while not (
                self._stopped or self._calls or self._waiting or self._batches
            ):
                self._changed.wait()
            return not self._stopped

    def _admit(self, lm: SpiritLM) -> None:
        """Take requests for which there is room."""
        room = self.settings.rows - self._busy
        jobs: list[Job] = []
        with self._changed:
            while self._waiting and len(jobs) < min(room, _TOGETHER):
                jobs.append(self._waiting.popleft())
            self._count_waiting()
        if not jobs:
            return
        try:
            prompts = lm.with_units([job.prompt for job in jobs])
        except Exception:  # one by one, to see whose it was
            prompts = [list(job.prompt) for job in jobs]
        for job, prompt in zip(jobs, prompts):
            try:
                self._begin(lm, job, lm.with_units([prompt])[0])
            except Exception as error:
                job.deliver(error)

    def _begin(self, lm: SpiritLM, job: Job, prompt: Sequence[Segment]) -> None:
        """Put a request into the batch of its settings."""
        options = job.options
        ids = lm.vocabulary.encode(prompt, options.output)
        if len(ids) >= lm.context:
            raise ValueError(
                f"the prompt of {len(ids)} tokens leaves no room in the "
                f"model's context of {lm.context}; shorten it"
            )
        job.prompt, job.prompt_tokens = prompt, len(ids)
        units = lm.style_units(options.style)
        key = (
            options.output,
            options.temperature,
            options.top_p,
            None if units is None else tuple(units),
        )
        if key not in self._batches:
            self._batches[key] = new_batch(lm, *key, self.settings.rows)
            self._running[key] = {}
        index = self._batches[key].add(
            ids, options.seed, options.max_new_tokens
        )
        self._running[key][index] = job
        self.metrics.tokens.labels(self.name, "in").inc(len(ids))
        job.deliver(None)

    def _advance(self, key: tuple[Any, ...], lm: SpiritLM) -> None:
        """Make the next tokens of a batch."""
        batch, jobs = self._batches[key], self._running[key]
        for index, job in list(jobs.items()):
            if job.cancelled:
                batch.drop(index)
                del jobs[index]
        try:
            pieces = batch.step() if len(batch) else []
        except Exception as error:
            logger.exception("the model %s has failed", self.name)
            for job in jobs.values():
                job.deliver(error)
            del self._batches[key], self._running[key]
            return
        for piece in pieces:
            job = jobs[piece.prompt]
            try:
                ended = self._say(lm, job, piece)
            except Exception as error:
                logger.exception("the model %s has failed", self.name)
                job.deliver(error)
                ended = True
            if ended:
                del jobs[piece.prompt]
                batch.drop(piece.prompt)
        if not len(batch):
            del self._batches[key], self._running[key]

    def _say(self, lm: SpiritLM, job: Job, piece: Piece) -> bool:
        """Deliver what new tokens say; True at the end of an output."""
        job.tokens += len(piece.ids)
        self.metrics.tokens.labels(self.name, "out").inc(len(piece.ids))
        job.unseen += piece.ids
        if len(job.unseen) < self._worth(job) and not piece.end_reason:
            return False
        ids, job.unseen = job.unseen, []
        if job.output is None:
            job.output = _output(lm, job, ids)
        with lm.inference_ctx:
            for item in job.output.push(ids):
                self._deliver(job, item)
            if piece.end_reason:
                for item in job.output.finish(piece.end_reason):
                    self._deliver(job, item)
        return job.output.ended

    def _worth(self, job: Job) -> int:
        """Return for how many tokens it is worth to look at what they say.

        First audio is not kept waiting, nor does its voice, where none is
        asked for, depend on other outputs.
        """
        if not job.options.stream:
            return _UNSEEN_TOKENS
        return 1 + (self._busy // _OUTPUTS_PER_TOKEN if job.spoken else 0)

    def _deliver(self, job: Job, piece: StreamPiece) -> None:
        if piece.wav is not None:
            if not job.spoken:
                waited = time.perf_counter() - job.asked
                self.metrics.first_audio.labels(self.name).observe(waited)
            job.spoken = True
            seconds = len(piece.wav) / SAMPLE_RATE
            self.metrics.audio.labels(self.name, "out").inc(seconds)
        job.deliver(piece)


def _output(lm: SpiritLM, job: Job, ids: Sequence[int]) -> Output:
    """Return the output of a request, told its first tokens."""
    options = job.options
    turn = Turn(
        Speaking(lm.mods.vocoder, lm.vocabulary, options.style),
        job.prompt,
        lm._continues_speech(torch.tensor(ids)),
    )
    return Output(
        0,
        turn,
        lm.speaker_id(options.speaker),
        options.seed,
        options.min_speech_units,
        vocode=options.vocode,
    )
