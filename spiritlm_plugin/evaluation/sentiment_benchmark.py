"""What STSP asks of a model, and who judges what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    STSPArchive,
)
from spiritlm_plugin.evaluation import loop
from spiritlm_plugin.evaluation.loop import (
    Items,
    ModelSettings,
)
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.metrics.sentiment_classifiers import (
    find_classifier,
    load_classifier,
)
from spiritlm_plugin.utils.seeds import derive_seed

# Classifiers by modality: of contents, texts or waveforms, to sentiments.
Classifiers = Mapping[str, Any]
# What the benchmark's own script is run with.
RELEASED: dict[str, Any] = {
    "max_new_tokens": {"t2t": 50, "t2s": 300, "s2s": 300, "s2t": 50},
    "temperature": 0.8,
    "top_p": 0.95,
    "speaker": 2,
    "tries": 3,
    "judge_empty": True,
}


class SentimentSettings(ModelSettings):
    """What the evaluation of sentiment preservation reads."""

    data_folder: str
    directions: list[Literal["t2t", "t2s", "s2s", "s2t"]]
    text_datasets: list[str]
    speech_datasets: list[str]
    prompts: int | None
    shots: list[int]
    runs: int
    text_classifier: str | None
    text_labels: list[str] | None
    text_tokenizer: str | None
    speech_classifier: str | None
    speech_labels: list[str] | None
    context: int | None
    max_new_tokens: dict[str, int]
    temperature: float
    top_p: float
    speaker: int | str | None
    tries: int
    judge_empty: bool
    released_settings: bool
    sample_count: int


def settle(
    hparams: SentimentSettings, arguments: Sequence[str]
) -> SentimentSettings:
    """Return the settings, those of the benchmark's script where asked for.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's; ``released_settings`` puts `RELEASED` in their place.
    arguments : sequence of str
        Of the command line.

    Raises
    ------
    ValueError
        If the command line names another value for one of them.

    Example
    -------
    >>> settle({"released_settings": True, "top_p": 0.5}, [])["speaker"]
    2
    >>> settle({"released_settings": True, "top_p": 0.5}, ["--top_p=0.5"])
    Traceback (most recent call last):
        ...
    ValueError: --top_p is 0.5, of the released settings 0.95; leave one of ...
    """
    if not hparams["released_settings"]:
        return hparams
    named = {argument.partition("=")[0] for argument in arguments}
    for name, value in RELEASED.items():
        given = hparams.get(name)
        if f"--{name}" in named and given != value:
            raise ValueError(
                f"--{name} is {given}, of the released settings {value}; leave "
                "one of the two options out"
            )
    return cast("SentimentSettings", {**hparams, **RELEASED})


class Condition(NamedTuple):
    """A run in a direction behind so many shots."""

    direction: str
    shots: int
    run: int

    @property
    def name(self) -> str:
        """As files of predictions are called."""
        return f"{self.direction}_{self.shots}shot_run{self.run}"


class Benchmark:
    """What is asked, in all conditions.

    Arguments
    ---------
    hparams : SentimentSettings
        The recipe's.

    Raises
    ------
    FileNotFoundError, ArchiveError
        As of `STSPArchive`.
    ValueError
        If nothing is asked.
    """

    def __init__(self, hparams: SentimentSettings):
        _check(hparams)
        archive = STSPArchive(hparams["data_folder"])
        modalities = {DIRECTIONS[d].prompt for d in hparams["directions"]}
        datasets = {
            "text": hparams["text_datasets"],
            "speech": hparams["speech_datasets"],
        }
        self.records = {}
        for modality in sorted(modalities):
            found = archive.records(
                datasets[modality], hparams["split"], modality
            )
            # So that some of them are balanced, too.
            found.sort(key=lambda record: (record.dataset, record.sentiment))
            self.records[modality] = spread(found, hparams["prompts"])
        self.conditions = [
            Condition(direction, count, run)
            for direction in hparams["directions"]
            for count in hparams["shots"]
            for run in range(hparams["runs"])
        ]
        self.shots = {
            c: archive.draw_shots(
                c.direction, c.shots, derive_seed(hparams["seed"], c.run)
            )
            for c in self.conditions
        }
        # By the id of each question its condition and its record.
        self.questions = {
            f"{c.name}/{record.id}": (c, record)
            for c in self.conditions
            for record in self.records[DIRECTIONS[c.direction].prompt]
        }

    def asked(self) -> tuple[Items, Items]:
        """Return what decides about answers, as plain values."""
        records: Items = {
            f"{modality} {record.id}": {
                "sentiment": record.sentiment,
                "prompt": str(record.prompt),
            }
            for modality, records in self.records.items()
            for record in records
        }
        shots: Items = {
            c.name: {"shots": str(s)} for c, s in self.shots.items()
        }
        return records, shots


def _check(hparams: SentimentSettings) -> None:
    """Raise ValueError for no direction, number of shots or run."""
    if not hparams["directions"]:
        raise ValueError(
            f"directions are some of {', '.join(DIRECTIONS)}, got none"
        )
    shots = hparams["shots"]
    if not shots or min(shots) < 0:
        raise ValueError(
            f"shots are numbers such as [0, 3, 6, 9], got {shots!r}"
        )
    for name, count in (("run", hparams["runs"]), ("try", hparams["tries"])):
        if count < 1:
            raise ValueError(f"there is 1 {name} at least, got {count}")


def load_classifiers(hparams: SentimentSettings, device: Any) -> Classifiers:
    """Return the classifiers by modality, of all that is to be judged.

    Raises
    ------
    FileNotFoundError
        If none is named and the archive has none.
    """
    labels = {
        "text": hparams["text_labels"],
        "speech": hparams["speech_labels"],
    }
    return {
        modality: load_classifier(
            source,
            modality,
            device,
            labels[modality],
            hparams["text_tokenizer"] if modality == "text" else None,
            hparams["judge_empty"],
        )
        for modality, source in classifier_sources(hparams).items()
    }


def classifier_sources(hparams: SentimentSettings) -> dict[str, str]:
    """Return folders or names of the classifiers, by the modality they judge.

    Raises
    ------
    FileNotFoundError
        As of `load_classifiers`.
    """
    named = {
        "text": hparams["text_classifier"],
        "speech": hparams["speech_classifier"],
    }
    needed = {
        modality
        for name in hparams["directions"]
        for modality in DIRECTIONS[name][1:]
    }
    folder = Path(hparams["data_folder"]) / "model"
    return {
        modality: named[modality] or str(find_classifier(folder, modality))
        for modality in sorted(needed)
    }


def settings_of(
    hparams: SentimentSettings,
    run_opts: Any,
    lm: SpeechCodec,
    classifiers: Classifiers,
    benchmark: Benchmark,
) -> dict[str, Any]:
    """Return all that decides what is answered, and how it is judged."""
    settings = loop.settings_of(hparams, run_opts, lm, *benchmark.asked())
    settings["classifiers"] = {
        modality: digest_weights(classifier.model)
        for modality, classifier in classifiers.items()
    }
    return settings
