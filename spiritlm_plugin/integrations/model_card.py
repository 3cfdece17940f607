"""The model card of a pretrained folder: what is known of it, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from torch import nn

from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.integrations.reports import Report, shown
from spiritlm_plugin.lobes.language_model import LanguageModel

# By the first word of a report's title: what the Hub calls such a task.
_TASKS = {
    "Transcripts": "automatic-speech-recognition",
    "Readings": "text-to-speech",
    "Labels": "audio-classification",
}
_METRICS = {"WER": "wer", "CER": "cer", "accuracy": "accuracy"}
_TOLD = {
    "date": "begun",
    "steps": "steps",
    "step_tokens": "tokens a step",
    "seed": "seed",
    "processes": "processes",
    "device": "device",
    "codec": "speech tokenizer and vocoder",
    "commit": "commit of the package",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def describe(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return what there is to say of a model that is loaded.

    Arguments
    ---------
    modules : dict
        Of its YAML: ``language_model``, ``tokenizer`` and ``vocoder``.

    Example
    -------
    >>> facts = describe(SpiritLM.from_hparams("tinyspeech").mods)
    >>> facts["units"], facts["context"]
    ('200 phonetic, 64 pitch, 24 style', '1,024 tokens')
    """
    lm: Any = modules["language_model"]
    assert isinstance(lm, LanguageModel)
    units = [
        f"{count} {kind.name.lower()}"
        for kind in reversed(Kind)
        if (count := lm.vocabulary.unit_count(kind))
    ]
    vocoder: Any = modules["vocoder"]
    return {
        "kind": "Expressive" if lm.vocabulary.expressive else "Base",
        "units": ", ".join(units),
        "vocabulary": f"{len(lm.vocabulary.text):,} text tokens, "
        f"{len(lm.vocabulary) - len(lm.vocabulary.text):,} of speech",
        "language model": f"{lm.model.config.model_type}, "
        f"{lm.model.num_parameters():,} parameters, "
        f"{str(lm.model.dtype).removeprefix('torch.')}",
        "context": f"{lm.context:,} tokens",
        "voices": ", ".join(map(str, vocoder.speakers)),
    }


def model_card(
    repo_id: str,
    models: Mapping[str, Mapping[str, str]],
    licence: str,
    languages: Sequence[str] = (),
    datasets: Sequence[str] = (),
    reports: Sequence[Report] = (),
    record: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Return the card of a model.

    Arguments
    ---------
    repo_id : str
        ``namespace/name``.
    models : dict
        What `describe` says of each YAML file.
    licence : str
        Of the weights, as the Hub names it, such as ``apache-2.0``.
    languages : sequence of str
        Two or three letters each.
    datasets : sequence of str
        Names on the Hub, of what it was trained on.
    reports : sequence of Report
        Of its evaluations.
    record : dict, optional
        As of `training_record`.

    Example
    -------
    >>> facts = {"kind": "Base", "units": "501 phonetic"}
    >>> card = model_card("me/lm", {"hyperparams.yaml": facts}, "apache-2.0")
    >>> card.data.license, "501 phonetic" in card.text
    ('apache-2.0', True)
    """
    name = repo_id.rpartition("/")[2]
    trainings = list(_trainings(record))
    bases = [t["started_from"] for t in trainings if _is_on_hub(t)]
    results = list(_results(reports))
    data = ModelCardData(
        license=licence,
        library_name="speechbrain",
        language=list(languages) or None,
        datasets=list(datasets) or None,
        base_model=bases or None,
        tags=["spirit-lm", "speech", "text", "language-model"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    sections = [
        f"# {name}",
        _introduction(models),
        _use(repo_id, models),
        _section("What it is", _model_table(models)),
        _section("Data and training", *_training_parts(trainings)),
        _section("Figures", *_figure_parts(reports)),
        _section("Licence and limits", *_limits(licence, bases)),
    ]
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _section(heading: str, *parts: str) -> str:
    content = "\n\n".join(part for part in parts if part)
    return f"## {heading}\n\n{content}" if content else ""


def _introduction(models: Mapping[str, Mapping[str, str]]) -> str:
    kinds = " and ".join(facts["kind"] for facts in models.values())
    return (
        f"A Spirit LM ({kinds}): a language model that reads and writes text "
        "and speech in one stream of tokens, with the speech tokenizer and "
        "the vocoder that belong to it. Method: Nguyen et al., “SpiRit-LM: "
        "Interleaved Spoken and Written Language Model”, TACL 2025. A model "
        "of the package `spiritlm_plugin`, a plugin to SpeechBrain; not one "
        "of the paper’s."
    )


def _use(repo_id: str, models: Mapping[str, Any]) -> str:
    others = "".join(
        f'SpiritLM.from_hparams("{repo_id}", hparams_file="{file}")\n'
        for file in models
        if file != "hyperparams.yaml"
    )
    return _section(
        "Use",
        "```python\nfrom speechbrain.inference import SpiritLM\n\n"
        f'lm = SpiritLM.from_hparams("{repo_id}")\n{others}```',
        "`language_model` is a stock folder of transformers, for it and for "
        "engines such as vLLM:",
        f"```sh\nhf download {repo_id} --include 'language_model/*' "
        f"--local-dir {repo_id.rpartition('/')[2]}\n```",
    )


def _model_table(models: Mapping[str, Mapping[str, str]]) -> str:
    names = dict.fromkeys(name for facts in models.values() for name in facts)
    rows = [
        [name, *(facts.get(name, "") for facts in models.values())]
        for name in names
    ]
    return _table(["", *models], rows)


def _trainings(record: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a model and of those before it, the first first."""
    if not isinstance(record, Mapping):
        return
    yield from _trainings(record.get("before"))
    yield record


def _is_on_hub(training: Mapping[str, Any]) -> bool:
    source = str(training.get("started_from", ""))
    return bool(_HUB_NAME.fullmatch(source))


def _training_parts(trainings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for number, training in enumerate(trainings, 1):
        if len(trainings) > 1:
            yield f"### Training {number} of {len(trainings)}"
        yield _data_table(training)
        if "command" in training:
            is_one = training.get("processes", 1) == 1
            program = "python" if is_one else "torchrun"
            yield f"```sh\n{program} {_plain(training['command'])}\n```"
        yield _table(["", ""], _told(training))


def _data_table(training: Mapping[str, Any]) -> str:
    corpora = training.get("corpora")
    corpora = corpora if isinstance(corpora, list) else []
    rows = [
        [
            f"{corpus.get('name', '')}, speech",
            _grouped(corpus.get("utterances")),
            _grouped(corpus.get("hours")),
        ]
        for corpus in corpora
        if isinstance(corpus, Mapping)
    ]
    texts = training.get("texts")
    texts = texts if isinstance(texts, list) else []
    rows += [[f"{name}, text", "", ""] for name in texts]
    return _table(["data", "utterances", "hours"], rows)


def _told(training: Mapping[str, Any]) -> Iterator[list[str]]:
    if source := training.get("started_from"):
        how = "shape of" if training.get("random_weights") else "started from"
        before = "the training before" if "before" in training else source
        yield [how, before]
    for key, name in _TOLD.items():
        if training.get(key) is not None:
            value = training[key]
            yield [name, value if key == "seed" else _grouped(value)]
    for key, name in (("forms", "shares of tokens"), ("versions", "versions")):
        if isinstance(values := training.get(key), Mapping):
            yield [name, ", ".join(f"{k} {v}" for k, v in values.items())]


def _grouped(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if type(value) in (int, float) else str(value)


def _figure_parts(reports: Sequence[Report]) -> Iterator[str]:
    for report in reports:
        title = report.title or report.split
        yield f"### {_inline(': '.join(filter(None, (report.name, title))))}"
        rows = [[f.name, shown(f.value), f.spread] for f in report.figures]
        yield _table(["", "", "95% interval, or ± standard deviation"], rows)
        settings = [
            f"{name} {value}" for name, value in report.settings.items()
        ]
        if settings:
            yield f"Settings: {_inline(', '.join(settings))}."


def _results(reports: Iterable[Report]) -> Iterator[EvalResult]:
    """Yield the figures that the Hub has names for."""
    for report in reports:
        task = _TASKS.get(report.title.partition(" ")[0])
        if task is None:
            continue
        for figure in report.figures:
            if figure.name in _METRICS:
                yield EvalResult(
                    task_type=task,
                    dataset_type=report.name,
                    dataset_name=report.name,
                    dataset_split=report.split or None,
                    metric_type=_METRICS[figure.name],
                    metric_name=figure.name,
                    metric_value=round(figure.value, 2),
                )


def _limits(licence: str, bases: Sequence[str]) -> Iterator[str]:
    yield f"Licence of the weights: {_inline(licence)}."
    for base in bases:
        yield (
            f"They were made from [{_inline(base)}]"
            f"(https://huggingface.co/{base}), whose licence holds for them "
            "as well."
        )
    yield (
        "What it says and writes need not be true, and may repeat what is "
        "wrong or hurtful in its data. Speech that it makes is synthetic: say "
        "so where you use it. Where no figure is given above, none is claimed."
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [[_inline(cell) for cell in row] for row in rows]
    if not lines:
        return ""
    lines = [list(header), ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: Any) -> str:
    return " ".join(str(value).split()).replace("```", "'''")


def _inline(value: Any) -> str:
    """Return text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
