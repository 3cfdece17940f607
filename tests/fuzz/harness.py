"""Cases from a seed, each run where it can hang or crash without harm.

A fuzz is a module of this folder, ``tests/fuzz/<name>.py``, that has

- ``prepare() -> tools``: what all cases share, such as a model; called once in
  a process, on nobody's time;
- ``make_case(rng, folder) -> Case``: an input, made with a
  ``numpy.random.Generator`` alone, so that seed and number give it again;
  ``folder`` is empty, and the case's own;
- ``run_case(case, tools) -> None``: gives the input to the package and checks
  what comes. It returns if all is well, lets the package's errors through,
  raises `SilentLoss` if less came than is there and nobody was told, and
  `WrongResult` if something else came than should. What must be refused and is
  taken is a `WrongResult` too. Warnings are read with `logged_warnings`.

An error is *named*, and therefore fine, if it is of a documented type
(`DOCUMENTED`), was raised in ``spiritlm_plugin`` itself (its innermost frame is
there), and its message has one of the case's ``names``: the file's, or the
argument's. An error of a valid case is never fine. A case has `TIME_LIMIT`
seconds and `MEMORY_LIMIT` bytes beyond what its process has when it starts, so
a module imports all that it needs at its top.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import resource
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

TIME_LIMIT = 10.0
MEMORY_LIMIT = 4 * 2**30
DOCUMENTED = (ValueError, TypeError, OSError)
GOOD = ("ok", "named error")
_PACKAGE = Path(str(find_spec("spiritlm_plugin").origin)).parent
# To load the package and its models, in seconds.
_START_LIMIT = 300.0


class SilentLoss(Exception):
    """Less came than is there, without a word."""


class WrongResult(Exception):
    """Something else came than should."""


@dataclass
class Case:
    """An input.

    Arguments
    ---------
    kind : str
        In a few words, counted in the report.
    content : Any
        What ``run_case`` needs.
    names : tuple of str
        An error must name one of them.
    is_valid : bool
        Whether an error is a fault, however well it is named.
    """

    kind: str
    content: Any
    names: tuple[str, ...]
    is_valid: bool = False


@dataclass
class Outcome:
    """What came of a case: the number, a word, and why."""

    number: int
    word: str
    kind: str = ""
    detail: str = ""


@contextlib.contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """Collect the warnings that the package logs meanwhile.

    Example
    -------
    >>> with logged_warnings() as warnings:
    ...     logging.getLogger("spiritlm_plugin.x").warning("a.wav is short")
    >>> warnings
    ['a.wav is short']
    """
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("spiritlm_plugin")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def is_named(error: BaseException, names: tuple[str, ...]) -> bool:
    """Tell whether the package raised an error on purpose, and about what."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and Path(frames[-1].filename).is_relative_to(_PACKAGE)
    named = any(name in str(error) for name in names)
    return isinstance(error, DOCUMENTED) and ours and named


def _run(fuzz: Any, case: Case, tools: Any) -> tuple[str, str]:
    try:
        fuzz.run_case(case, tools)
    except SilentLoss as error:
        return "SILENT LOSS", str(error)
    except WrongResult as error:
        return "WRONG RESULT", str(error)
    except BaseException as error:
        if not is_named(error, case.names):
            return "UNNAMED ERROR", traceback.format_exc()
        if case.is_valid:
            return "REFUSED", traceback.format_exc()
        return "named error", str(error)
    return "ok", ""


def _work(name: str, seed: int, connection: Any) -> None:
    """Run the cases whose numbers come, in a process of its own."""
    logger = logging.getLogger("spiritlm_plugin")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    fuzz = importlib.import_module(f"tests.fuzz.{name}")
    tools = fuzz.prepare()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send("ready")
    while (number := _next(connection)) is not None:
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng([seed, number])
            case = fuzz.make_case(rng, Path(folder))
            connection.send(case.kind)
            connection.send(_run(fuzz, case, tools))


def _next(connection: Any) -> int | None:
    try:
        return connection.recv()
    except EOFError:
        return None


class Worker:
    """A process that runs cases, and is replaced when it hangs or dies.

    Arguments
    ---------
    name : str
        Of the fuzz.
    seed : int
    """

    def __init__(self, name: str, seed: int):
        self.name = name
        self.seed = seed
        self._process: Any = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._connection.close()  # It ends by itself then.
            self._process.join(TIME_LIMIT)
            self._stop()

    def run(self, number: int) -> Outcome:
        """Run a case, whatever comes of it."""
        if self._process is None:
            self._start()
        self._connection.send(number)
        kind = ""
        try:
            kind = self._receive(_START_LIMIT)
            word, detail = self._receive(TIME_LIMIT)
        except TimeoutError:
            self._stop()
            return Outcome(number, "HANG", kind)
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._stop()
            word = "CRASH" if kind else "NOT MADE"
            return Outcome(number, word, kind, f"exit code {code}")
        return Outcome(number, word, kind, detail)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(self.name, self.seed, theirs), daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            self._receive(_START_LIMIT)
        except (EOFError, TimeoutError) as error:
            self._stop()
            raise RuntimeError(f"{self.name} cannot be prepared") from error

    def _receive(self, seconds: float) -> Any:
        if not self._connection.poll(seconds):
            raise TimeoutError
        return self._connection.recv()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def fuzz(name: str, count: int, seed: int) -> dict[str, Any]:
    """Run the first cases of a seed; return counts, and what was bad.

    Arguments
    ---------
    name : str
        Of a module of this folder.
    count : int
        Of cases.
    seed : int
        Of all of them.
    """
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    outcomes: Counter[str] = Counter()
    bad = []
    bar = tqdm(range(count), desc=name, unit="case")
    with Worker(name, seed) as worker:
        for number in bar:
            outcome = worker.run(number)
            outcomes[outcome.word] += 1
            kinds[outcome.kind][outcome.word] += 1
            if outcome.word not in GOOD:
                bad.append(vars(outcome))
                bar.write(f"{outcome.word}: case {number}, {outcome.kind}")
    return {
        "fuzz": name,
        "seed": seed,
        "count": count,
        "outcomes": dict(outcomes),
        "kinds": {kind: dict(kinds[kind]) for kind in sorted(kinds)},
        "bad": bad,
    }


def print_report(report: dict[str, Any]) -> None:
    """Say what came of a fuzz, and how to make again what was bad."""
    counts = ", ".join(f"{n} {w}" for w, n in report["outcomes"].items())
    print(f"{report['fuzz']}, seed {report['seed']}: {counts}")
    for kind, words in report["kinds"].items():
        counts = ", ".join(f"{n} {word}" for word, n in words.items())
        print(f"  {kind}: {counts}")
    for bad in report["bad"]:
        print(
            f"{bad['word']}: {bad['kind']}\n{bad['detail']}\n  again: python "
            f"-m tests.fuzz {report['fuzz']} --seed {report['seed']} --case "
            f"{bad['number']}"
        )
