"""An answer of a conversation, told while it is made."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from fastapi import WebSocketDisconnect

from spiritlm_plugin.dataio.units.segments import Segment
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.inference.streaming import StreamPiece
from spiritlm_plugin.serving.answers import Answer, Options
from spiritlm_plugin.serving.audio import samples_of
from spiritlm_plugin.serving.errors import RequestError
from spiritlm_plugin.serving.messages import tokens_of
from spiritlm_plugin.serving.state import Said

logger = logging.getLogger(__name__)


class Talk(Protocol):
    """A conversation, as its answers see it."""

    async def ask(self, prompt: list[Segment], options: Options) -> Answer:
        """Return the model's answer."""

    async def tell(
        self, message: dict[str, Any], binary: bytes | None = None
    ) -> None:
        """Send a message and the samples that belong to it."""

    def remember(self, turn: list[Segment]) -> None:
        """Keep what the model has said as a turn."""


class AnswerTurn:
    """An answer of the model while it is made."""

    def __init__(self, talk: Talk, seed: int):
        self.talk = talk
        self.seed = seed
        self.said = Said()
        self.tokens = 0
        self.begun = time.perf_counter()
        self.first_audio: float | None = None

    async def make(self, prompt: list[Segment], options: Options) -> None:
        """Tell what is made; keep it as a turn, also when it is cancelled."""
        reason = "cancelled"
        try:
            async with await self.talk.ask(prompt, options) as answer:
                async for piece in answer:
                    self.said.add(piece)
                    self.tokens = answer.tokens
                    await self._tell(piece)
            reason = self.said.end_reason
        except asyncio.CancelledError:
            pass
        except RequestError as error:
            await self._end_with(str(error.detail))
            return
        except (WebSocketDisconnect, RuntimeError):
            return  # The client has left.
        except Exception:
            logger.exception("an answer could not be made")
            await self._end_with("the server has failed")
            return
        self.talk.remember(self.said.segments)
        with suppress(WebSocketDisconnect, RuntimeError):
            await self.talk.tell(self._end(reason))

    async def _tell(self, piece: StreamPiece) -> None:
        if piece.kind == "text":
            await self._tokens([["text", piece.text]])
            await self.talk.tell({"type": "text", "text": piece.text})
        if piece.units is not None:
            await self._tokens(tokens_of(piece.units))
        if piece.wav is not None:
            if self.first_audio is None:
                self.first_audio = time.perf_counter() - self.begun
            samples = samples_of(piece.wav)
            message = {
                "type": "audio",
                "samples": len(samples),
                "sample_rate": SAMPLE_RATE,
            }
            await self.talk.tell(message, samples.astype("<i2").tobytes())

    async def _tokens(self, tokens: Sequence[Sequence[Any]]) -> None:
        await self.talk.tell(
            {"type": "tokens", "role": "assistant", "tokens": tokens}
        )

    async def _end_with(self, fault: str) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            await self.talk.tell(
                {"type": "error", "message": fault, "fatal": False}
            )

    def _end(self, reason: str) -> dict[str, Any]:
        first = self.first_audio
        return {
            "type": "end",
            "reason": reason,
            "turn": bool(self.said.segments),
            "seed": self.seed,
            "tokens": self.tokens,
            "first_audio_ms": None if first is None else round(1000 * first),
            "seconds": round(time.perf_counter() - self.begun, 3),
        }
