"""Recordings read by threads, ahead of who uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Batches, so that none has to wait for the last file of the one in front of it.
_DEPTH = 2

Source = TypeVar("Source")
Read = TypeVar("Read")


def read_ahead(
    batches: Sequence[Sequence[Source]],
    read: Callable[[Source], Read],
    threads: int,
) -> Iterator[list[Read]]:
    """Yield what was read of each batch, while the next two are read.

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
    ahead: deque[list[Future[Read]]] = deque()
    try:
        for batch in batches:
            ahead.append([pool.submit(read, source) for source in batch])
            if len(ahead) > _DEPTH:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
