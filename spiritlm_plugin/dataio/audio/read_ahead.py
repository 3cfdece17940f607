"""Recordings read by threads, ahead of who uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Source = TypeVar("Source")
Read = TypeVar("Read")


def read_ahead(
    batches: Sequence[Sequence[Source]],
    read: Callable[[Source], Read],
    threads: int,
) -> Iterator[list[Read]]:
    """Yield what was read of each batch, while the next one is read.

    Decoding leaves Python to the others: threads do as well as processes, and
    start at once.

    Arguments
    ---------
    batches : sequence
        Of sequences of recordings, such as paths.
    read : callable
        A recording to what is wanted of it.
    threads : int
        How many read; 0 is the one that asks, when it asks.

    Raises
    ------
    Exception
        What reading raises, where the batch would be.

    Example
    -------
    >>> list(read_ahead([["a.wav", "b.wav"], ["c.wav"]], str.upper, threads=2))
    [['A.WAV', 'B.WAV'], ['C.WAV']]
    """
    if not threads:
        yield from ([read(source) for source in batch] for batch in batches)
        return
    pool = ThreadPoolExecutor(threads)
    ahead: list[Future[Read]] = []
    try:
        for batch in [*batches, []]:
            now, ahead = ahead, [pool.submit(read, source) for source in batch]
            if now:
                yield [future.result() for future in now]
    finally:
        pool.shutdown(cancel_futures=True)
