"""The whole job on one machine: read, transcribe, continue, speak, train.

Run as ``python -m spiritlm_plugin.demo my_recording.wav``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import audio_seconds, read_windows
from spiritlm_plugin.dataio.units.segments import (
    Reading,
    Segment,
    Speech,
    Text,
)
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE, SpeechUnits
from spiritlm_plugin.demo.report import Report
from spiritlm_plugin.demo.training import TinyCorpus, train_a_little
from spiritlm_plugin.evaluation.plots import plot_units
from spiritlm_plugin.inference import Generation, SpiritLM
from spiritlm_plugin.inference.few_shot import READING_TEMPERATURE
from spiritlm_plugin.integrations.release import VARIANTS

_SHIPPED = "tinyspeech"
# A longer recording is cut, so that the demo stays short.
_SECONDS = 10
_NEW_TOKENS = 200
_BEAMS = 4  # of the transcript
_SENTENCE = "the happy children found a small dog near the river"
_VOICES = 2


def load_model(options: argparse.Namespace, report: Report) -> SpiritLM:
    """Return the model that was asked for, or the one that ships."""
    if options.release is not None:
        report.say(f"Model: {options.release}, {options.variant}.")
        return SpiritLM.from_release(options.release, options.variant)
    report.say(f"Model: {options.source}.")
    return SpiritLM.from_hparams(options.source)


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
    merged = units.merge()
    report.say(
        f"\nMerged and without repeats, as the language model reads them: "
        f"{len(merged)} tokens, {len(merged) / seconds:.1f} a second."
    )
    path = report.path(
        "units.txt", "the units as the language model reads them"
    )
    path.write_text(merged.to_string() + "\n")
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


def resynthesize(
    lm: SpiritLM, units: SpeechUnits, speaker: str | None, report: Report
) -> None:
    """Speak the units of the recording with the vocoder."""
    vocoder = lm.mods.vocoder
    voice = vocoder.speaker_id(speaker)
    if voice is None:
        voice = vocoder.speaker_of(units.phonetic)
    wavs, _ = lm.decode_batch([units], speaker=voice, seed=0)
    name = lm.speakers[voice] if lm.speakers else "the only voice"
    report.save_wav(
        "resynthesis.wav", wavs[0], f"the units, spoken by the vocoder ({name})"
    )


def transcribe(
    lm: SpiritLM, units: SpeechUnits, text: str | None, report: Report
) -> None:
    """Write down what is said."""
    answer = lm.generate(
        [Speech(units)], "asr", temperature=0.0, num_beams=_BEAMS
    )
    report.say(f"\n## Transcript\n\n- heard: {_quoted(answer.text)}")
    if text is not None:
        report.say(f"- said: {_quoted(text)}")


def continue_recording(
    lm: SpiritLM,
    units: SpeechUnits,
    speaker: str | None,
    seed: int,
    report: Report,
) -> None:
    """Continue the first half of a recording as speech and as text."""
    report.say("\n## Continuations of the first half\n")
    begun = units.cut(0.0, units.duration / 2)
    for output in ("speech", "text"):
        generation = lm.generate(
            [Speech(begun)],
            output,
            max_new_tokens=_NEW_TOKENS,
            seed=seed,
            speaker=speaker,
        )
        _show_generation(generation, output, report)


def _show_generation(
    generation: Generation, output: str, report: Report
) -> None:
    report.say(f"- `{output}`, ended by `{generation.end_reason}`")
    if generation.text:
        report.say(f"    - {_quoted(generation.text)}")
    if generation.wav is not None and len(generation.wav):
        seconds = len(generation.wav) / SAMPLE_RATE
        report.say(f"    - speech of {seconds:.2f} s")
        report.save_wav(
            f"continuation_{output}.wav",
            generation.wav,
            f"the speech of the `{output}` continuation",
        )


def speak(
    lm: SpiritLM,
    examples: dict[str, SpeechUnits],
    seed: int,
    report: Report,
) -> None:
    """Speak a sentence in some voices, in the style of each example."""
    report.say(f"\n## Speaking\n\n{_quoted(_SENTENCE)}\n")
    voices: list[str | None] = [*lm.speakers[:_VOICES]] or [None]
    for style, units in examples.items():
        # The style token that the example begins with, and its first pitch.
        start = Reading(units.merge()[: 2 if lm.expressive else 0])
        prompt: list[Segment] = [Text(_SENTENCE)]
        prompt += [start] if lm.expressive else []
        for voice in voices:
            spoken = lm.generate(
                prompt,
                "tts",
                max_new_tokens=2 * _NEW_TOKENS,
                temperature=READING_TEMPERATURE,
                seed=seed,
                speaker=voice,
            )
            name = f"spoken_{style}_{voice}.wav"
            if spoken.wav is not None:
                report.save_wav(name, spoken.wav, f"{voice}, {style}")
            report.say(f"- {voice}, {style}: ended by `{spoken.end_reason}`")


def _quoted(text: str) -> str:
    """Return a text on one line, safe in Markdown and a terminal."""
    text = json.dumps(text.strip(), ensure_ascii=False)
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return f"`{text.replace('`', chr(0x2CB))}`"


def run(options: argparse.Namespace) -> Path:
    """Run the demo and return the path of its report."""
    report = Report(Path(options.output))
    corpus = None
    if options.audio is None or options.steps:
        corpus = TinyCorpus(report.folder / "corpus")
    audio, text, speaker = options.audio, None, None
    if audio is None and corpus is not None:
        audio, text, speaker = corpus.held_out()
    wav, what = read_recording(audio)
    lm = load_model(options, report)
    if speaker not in lm.speakers:
        speaker = None
    report.say(f"\n{what}")
    report.save_wav("recording.wav", wav, "the recording, 16 kHz mono")
    with torch.inference_mode():
        units = show_units(lm, wav, Path(audio).name, report)
        resynthesize(lm, units, speaker, report)
        if "asr" in lm.vocabulary.markers:
            transcribe(lm, units, text, report)
        continue_recording(lm, units, speaker, options.seed, report)
        if "tts" in lm.vocabulary.markers and corpus is not None:
            examples = {
                style: lm.encode_file(path)
                for style, path in corpus.styles().items()
            }
            speak(lm, examples, options.seed, report)
    if options.steps and corpus is not None:
        train_a_little(corpus, options.steps, report)
    path = report.write()
    print(f"\nWritten: {path}")
    return path


def main(arguments: list[str] | None = None) -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m spiritlm_plugin.demo",
        description="Read a recording as speech units, speak these again, "
        "transcribe and continue the recording, speak a sentence in two voices "
        "and two styles, and train for a few steps. Writes wav files, plots "
        "and report.md.",
        epilog="The model that ships with the package knows six synthetic "
        "voices and the words of a small world. What it makes of other "
        "recordings is not worth much.",
    )
    parser.add_argument(
        "audio",
        nargs="?",
        metavar="AUDIO",
        help=f"a recording; its first {_SECONDS} s are used (default: one of "
        "TinySpeech that the model has not heard, made on the spot)",
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
        default=_SHIPPED,
        help="a SpeechBrain pretrained folder or the name of a Hub repository "
        "(default: %(default)s, which ships with the package)",
    )
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        default="expressive",
        help="which of Meta's models (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=40,
        help="of the pretraining recipe; 0 leaves it out (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of what is drawn (default: %(default)s)",
    )
    try:
        run(parser.parse_args(arguments))
    except (FileNotFoundError, ImportError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
