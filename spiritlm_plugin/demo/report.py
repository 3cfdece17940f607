"""What the demo has done, for the console and ``report.md``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from speechbrain.dataio import audio_io
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE


@dataclass
class Report:
    """Lines and files of a report.

    Arguments
    ---------
    folder : Path
        Where the files are; made with the first of them.

    Example
    -------
    >>> report = Report(tmp)
    >>> report.say("Hello.")
    Hello.
    >>> report.save_wav("a.wav", torch.zeros(16000), "silence")
    >>> report.write().read_text().splitlines()[-1]
    '| [a.wav](a.wav) | silence (1.00 s) |'
    """

    folder: Path
    lines: list[str] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        """Print a line and keep it."""
        print(line, flush=True)
        self.lines.append(line)

    def path(self, name: str, what: str) -> Path:
        """Return where a file goes, and list it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files.append((name, what))
        return self.folder / name

    def save_wav(self, name: str, wav: Tensor, what: str) -> None:
        """Write a waveform, and list it."""
        seconds = len(wav) / SAMPLE_RATE
        path = self.path(name, f"{what} ({seconds:.2f} s)")
        audio_io.save(str(path), wav.cpu(), SAMPLE_RATE)

    def write(self) -> Path:
        """Write ``report.md``."""
        table = [f"| [{n}]({n}) | {what} |" for n, what in self.files]
        lines = ["# Spirit LM demo", "", *self.lines, "", "## Files", ""]
        lines += ["| file | what it is |", "|---|---|", *table, ""]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "report.md"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path
