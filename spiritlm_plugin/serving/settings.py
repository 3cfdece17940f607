"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from spiritlm_plugin.utils.arguments import number, whole_number


@dataclass(frozen=True)
class Settings:
    """Limits of a server, and who may use it.

    Arguments
    ---------
    key : str, optional
        What clients have to know; none by default.
    origins : tuple of str
        Pages of other servers that may use it, as ``https://example.org``.
    hosts : tuple of str
        Names that the server is called by; any if there are none.
    language : str
        That the models know.
    body_bytes : int
        Of a request.
    total_bytes : int
        Of all requests that are answered at a time; more are refused.
    body_seconds : float
        That a request may take to arrive.
    send_seconds : float
        That a client may take to read a piece of an answer.
    audio_seconds : float
        Of each recording.
    characters : int
        Of the texts of a request.
    new_tokens : int
        Of an output.
    rows : int
        Outputs that a model makes at a time.
    waiting : int
        Requests that wait for a model; more are refused.
    requests : int
        Requests that are read or answered at a time; more are refused.
    connections : int
        WebSockets at a time.
    request_seconds : float
        From a request to the end of its answer.
    idle_seconds : float
        That a WebSocket may be silent.
    remembered : int
        Outputs that messages may refer to later.

    Raises
    ------
    TypeError, ValueError
        If a number is none, or too small.

    Example
    -------
    >>> Settings(rows=0)
    Traceback (most recent call last):
        ...
    ValueError: rows must be >= 1, got 0
    """

    key: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    language: str = "en"
    body_bytes: int = 25_000_000
    total_bytes: int = 250_000_000
    body_seconds: float = 30.0
    send_seconds: float = 30.0
    audio_seconds: float = 60.0
    characters: int = 4096
    new_tokens: int = 1000
    rows: int = 16
    waiting: int = 32
    requests: int = 64
    connections: int = 32
    request_seconds: float = 120.0
    idle_seconds: float = 600.0
    remembered: int = 256

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if name.endswith("_seconds"):
                if number(name, value) <= 0:
                    raise ValueError(f"{name} must be positive, got {value}")
            elif name not in ("key", "origins", "hosts", "language"):
                whole_number(name, value)
