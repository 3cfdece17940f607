"""Read, resynthesize and continue a recording: ``make demo``.

Run as ``python -m spiritlm_plugin.demo my_recording.wav``. Without a model
it builds a very small one with random weights, to show what comes out where:
what that model says and speaks is noise.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio import audio_io
from torch import Tensor, nn

from spiritlm_plugin.dataio.audio import audio_seconds, read_windows
from spiritlm_plugin.dataio.segments import Speech, Text
from spiritlm_plugin.dataio.units import SAMPLE_RATE, SpeechUnits
from spiritlm_plugin.inference import Generation, SpiritLM
from spiritlm_plugin.integrations.release import VARIANTS
from spiritlm_plugin.plots import plot_units

_SOURCE_TREE = Path(__file__).resolve().parents[1]
HPARAMS = _SOURCE_TREE / "hparams"
_RECORDING = _SOURCE_TREE / "tests/conformance/small/audio/boats.wav"
# A longer recording is cut, so that the demo stays short.
_SECONDS = 10
_NEW_TOKENS = 120
_LOUDNESS = 0.05

RANDOM_WEIGHTS = (
    "THE WEIGHTS OF THIS MODEL ARE RANDOM. The files show what a model gives, "
    "not how good one is: what this one says and speaks is noise. Name trained "
    "weights with --release or --source."
)


@dataclass
class Report:
    """What the demo has done, for the console and ``report.md``.

    Arguments
    ---------
    folder : Path
        Where the files are.
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
        path = self.folder / "report.md"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path


def random_model(
    hparams_file: str | Path,
    recording: Tensor,
    seed: int = 0,
    run_opts: dict[str, Any] | None = None,
) -> SpiritLM:
    """Build a model with random weights that uses many of its units.

    A network fresh from initialization gives nearly the same features for
    all of a recording, so the last layers are scaled on one, as in
    data-dependent initialization (Krähenbühl et al., ICLR 2016).

    Arguments
    ---------
    hparams_file : str or Path
        Such as ``hparams/spiritlm_expressive_tiny.yaml``.
    recording : Tensor
        To scale on; 16 kHz, shape (samples,).
    seed : int
        Of the weights.
    run_opts : dict, optional
        As of `SpiritLM`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not Path(hparams_file).exists():
        raise FileNotFoundError(
            f"no {hparams_file}; it is in a source tree of the plugin, not in "
            "an installed package: clone the repository, or name trained "
            "weights"
        )
    with torch.random.fork_rng():
        with open(hparams_file, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, {"seed": seed})
        modules = hparams["modules"]
        for module in modules.values():
            module.eval()
        with torch.no_grad():
            _spread_units(modules["tokenizer"], recording)
            [units] = modules["tokenizer"]([recording])
            _raise_volume(modules["vocoder"], units)
    return SpiritLM(modules, hparams, run_opts)


def _spread_units(tokenizer: nn.Module, recording: Tensor) -> None:
    """Scale the last layers so that a recording meets many units."""
    wavs, lengths = recording[None], torch.tensor([len(recording)])
    phonetic, pitch, style = (
        tokenizer.phonetic,
        tokenizer.pitch,
        tokenizer.style,
    )
    features, _ = phonetic.encoder(wavs, lengths)
    *hidden, last = phonetic.quantizer.layers
    _standardize(last, nn.Sequential(*hidden)(features))
    features, _ = style.encoder(wavs, lengths)
    _standardize(style.classifier, style.projector(features))
    f0, voiced, frames = pitch.f0(wavs, lengths)
    codes, _ = pitch.quantizer.encode(
        torch.stack([f0 - f0.mean(), voiced], 1), frames
    )
    deviation, mean = torch.std_mean(codes, (0, 2))
    pitch.quantizer.codebook.mul_(deviation).add_(mean)


def _standardize(linear: nn.Linear, x: Tensor) -> None:
    """Bring each output of a layer to zero mean and unit variance."""
    deviation, mean = torch.std_mean(linear(x).flatten(0, 1), 0)
    deviation = deviation.clamp(min=1e-8)
    linear.bias.sub_(mean).div_(deviation)
    linear.weight.div_(deviation[:, None])


def _raise_volume(vocoder: nn.Module, units: SpeechUnits) -> None:
    """Scale the last layer so that a recording's units are audible."""
    output = vocoder.generator.output
    output.bias.zero_()
    [wav] = vocoder.synthesize([units], [vocoder.default_speaker])
    deviation, mean = torch.std_mean(wav.atanh())
    scale = _LOUDNESS / float(deviation)
    output.weight = output.weight * scale
    output.bias.fill_(-float(mean) * scale)


def load_model(
    options: argparse.Namespace, recording: Tensor, report: Report
) -> SpiritLM:
    """Return the model that was asked for, or a random one."""
    if options.release is not None:
        report.say(f"Model: {options.release}, {options.variant}.")
        return SpiritLM.from_release(options.release, options.variant)
    if options.source is not None:
        report.say(f"Model: {options.source}.")
        return SpiritLM.from_hparams(options.source)
    report.say(f"**{RANDOM_WEIGHTS}**")
    hparams_file = HPARAMS / "spiritlm_expressive_tiny.yaml"
    report.say(f"\nModel: hparams/{hparams_file.name}, seed {options.seed}.")
    return random_model(hparams_file, recording, options.seed)


def read_recording(audio: str | Path) -> tuple[Tensor, str]:
    """Return a recording, cut to the demo's length, and what it is."""
    wav = next(read_windows(audio))[: _SECONDS * SAMPLE_RATE]
    seconds = audio_seconds(audio)
    line = f"Recording: {audio}, {seconds:.2f} s"
    if seconds > _SECONDS:
        line += f", of which the first {_SECONDS} s are used"
    return wav, f"{line}."


def show_units(
    lm: SpiritLM, wav: Tensor, name: str, report: Report
) -> SpeechUnits:
    """Encode a recording, count and plot its units."""
    [units] = lm.encode_batch([wav])
    seconds = len(wav) / SAMPLE_RATE
    report.say("\n## Units\n\n| stream | units | a second | different |")
    report.say("|---|---:|---:|---:|")
    for stream in ("phonetic", "pitch", "style"):
        values = getattr(units, stream)
        if values is None:
            continue
        rate = len(values) / seconds
        report.say(
            f"| {stream} | {len(values)} | {rate:.1f} | "
            f"{len(values.unique())} |"
        )
    stream = units.merge()
    report.say(
        f"\nMerged and without repeats, as the language model reads them: "
        f"{len(stream)} tokens, {len(stream) / seconds:.1f} a second."
    )
    path = report.path(
        "units.txt", "the units as the language model reads them"
    )
    path.write_text(stream.to_string() + "\n")
    path = report.path("units.png", "the units under the sound")
    plot_units(wav, units, path, _f0(lm, wav), name)
    return units


def _f0(lm: SpiritLM, wav: Tensor) -> Tensor | None:
    """Return the F0 of a recording, NaN where unvoiced, if the model has it."""
    pitch = lm.mods.tokenizer.pitch
    if pitch is None:
        return None
    wavs, lengths = wav[None].to(lm.device), torch.tensor([len(wav)])
    f0, voiced, _ = pitch.f0(wavs, lengths.to(lm.device))
    return f0[0].where(voiced[0] > 0, torch.nan)


def resynthesize(lm: SpiritLM, units: SpeechUnits, report: Report) -> None:
    """Speak the units of the recording with the vocoder."""
    wavs, _ = lm.decode_batch([units], seed=0)
    voice = lm.mods.vocoder.default_speaker
    name = lm.speakers[voice] if lm.speakers else "the only voice"
    report.save_wav(
        "resynthesis.wav", wavs[0], f"the units, spoken by the vocoder ({name})"
    )


def continue_recording(
    lm: SpiritLM, units: SpeechUnits, report: Report, seed: int
) -> None:
    """Continue the recording as speech, as text, and as either."""
    report.say("\n## Continuations\n")
    for output in ("speech", "text", "any"):
        generation = lm.generate(
            [Speech(units)], output, max_new_tokens=_NEW_TOKENS, seed=seed
        )
        _show_generation(generation, output, report)
    report.say(
        "\nIn `any`, pieces of speech of fewer than 25 phonetic units are "
        "dropped."
    )


def _show_generation(
    generation: Generation, output: str, report: Report
) -> None:
    report.say(
        f"- `{output}`: {len(generation)} segment"
        f"{'' if len(generation) == 1 else 's'}, ended by "
        f"`{generation.end_reason}`"
    )
    for segment in generation[:6]:
        report.say(f"    - {_describe(segment)}")
    if len(generation) > 6:
        report.say(f"    - and {len(generation) - 6} more")
    if generation.wav is not None and len(generation.wav):
        report.save_wav(
            f"continuation_{output}.wav",
            generation.wav,
            f"the speech of the `{output}` continuation",
        )


def _describe(segment: Speech | Text) -> str:
    """Return a segment on one line, safe in Markdown and a terminal."""
    if isinstance(segment, Text):
        text = json.dumps(segment.text, ensure_ascii=False)
        text = "".join(c if c.isprintable() else "\ufffd" for c in text)
        return f"text `{text.replace('`', chr(0x2CB))}`"
    units = f"{len(segment.units)} phonetic units"
    return f"speech of {len(segment.wav) / SAMPLE_RATE:.2f} s, {units}"


def run(options: argparse.Namespace) -> Path:
    """Run the demo and return the path of its report."""
    wav, what = read_recording(options.audio)
    report = Report(Path(options.output))
    lm = load_model(options, wav, report)
    report.folder.mkdir(parents=True, exist_ok=True)
    report.say(f"\n{what}")
    report.save_wav("recording.wav", wav, "the recording, 16 kHz mono")
    with torch.inference_mode():
        units = show_units(lm, wav, Path(options.audio).name, report)
        resynthesize(lm, units, report)
        continue_recording(lm, units, report, options.seed)
    path = report.write()
    print(f"\nWritten: {path}")
    return path


def main(arguments: list[str] | None = None) -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m spiritlm_plugin.demo",
        description="Read a recording as speech units, plot them, speak them "
        "again, and continue the recording as speech, text, and either. "
        "Writes wav files, units.png and report.md.",
        epilog="Without --release or --source the model is very small and its "
        "weights are random: what it says and speaks is noise.",
    )
    parser.add_argument(
        "audio",
        nargs="?",
        metavar="AUDIO",
        default=_RECORDING,
        help=f"a recording; its first {_SECONDS} s are used (default: "
        f"{_RECORDING.relative_to(_SOURCE_TREE)} of the source tree)",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        default="demo_output",
        help="where the files go (default: %(default)s)",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--release",
        metavar="FOLDER",
        help="Meta's checkpoints, as downloaded",
    )
    weights.add_argument(
        "--source",
        metavar="FOLDER",
        help="a SpeechBrain pretrained folder or the name of a Hub repository",
    )
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        default="expressive",
        help="which of Meta's models (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the continuations, and of random weights (default: "
        "%(default)s)",
    )
    try:
        run(parser.parse_args(arguments))
    except (FileNotFoundError, ImportError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
