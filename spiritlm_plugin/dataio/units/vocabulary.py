"""The joint vocabulary of text and speech tokens.

Turns segments into token ids and back, and tells which ids an output in a
given modality may contain. Text goes through the text tokenizer alone, so it
never becomes a control or speech token.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.chat_template import chat_template
from spiritlm_plugin.dataio.units.segments import (
    Break,
    Segment,
    Speech,
    Text,
    as_prompt,
    parse_prompt,
)
from spiritlm_plugin.dataio.units.text_tokenizers import (
    TextTokenizer,
    load_text_tokenizer,
)
from spiritlm_plugin.dataio.units.tokenizer_files import spare_token
from spiritlm_plugin.dataio.units.units import (
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.utils.arguments import shown
from spiritlm_plugin.utils.files import write_file

# Names of the markers, with what each is followed by: is it text?
_MARKERS = {
    "text": ("[Text]", True),
    "speech": ("[Speech]", False),
    "asr": ("[ASR]", True),
    "tts": ("[TTS]", False),
}
OUTPUTS = (*_MARKERS, "any")
TEXT_KIND = -1
CONTROL_KIND = -2
SPARE_KIND = -3
# What tokenizers differ in: spaces, numbers, line ends, letters, words.
_PROBE = " It is  12 o'clock:\n\n\tdéjà vu, the cat's 日本 \U0001f600   "
_PREFIXES = {Kind.PHONETIC: "Hu", Kind.PITCH: "Pi", Kind.STYLE: "St"}


class Vocabulary:
    """Token ids of text, speech units and the markers in front of them.

    Arguments
    ---------
    text : TextTokenizer
        Of the text tokens.
    markers : dict
        Ids of the markers, ``{"text": id, "speech": id}``; of models that are
        trained on transcribing and reading also ``"asr"`` and ``"tts"``.
    units : dict
        For each `Kind` the ids of its units, in the order of the units; a
        Base model has no pitch and style.

    Raises
    ------
    ValueError
        If the ids overlap or lie among those of the text.

    Example
    -------
    >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=4)
    >>> ids = vocabulary.encode([("speech", SpeechUnits([3, 3, 1]))])
    >>> vocabulary.decode(ids)
    [Speech(2 phonetic units)]
    """

    def __init__(
        self,
        text: TextTokenizer,
        markers: Mapping[str, int],
        units: Mapping[Kind, Sequence[int]],
    ):
        if not units.get(Kind.PHONETIC):
            raise ValueError("the vocabulary has no phonetic units ([Hu0]...)")
        self.text = text
        self.markers = dict(markers)
        self.eos_id = text.eos_id
        self._unit_ids = {k: torch.tensor(list(v)) for k, v in units.items()}
        added = [*markers.values()]
        for ids in self._unit_ids.values():
            added.extend(ids.tolist())
        if len(set(added)) != len(added):
            raise ValueError("two tokens of the vocabulary share an id")
        for token, index in self.speech_tokens().items():
            if index < len(text) and text.token_id(token) != index:
                raise ValueError(
                    f"the id of {token}, {index}, is that of a text token; "
                    "speech tokens stand behind the text or are pieces of it"
                )
        self.size = max(len(text), max(added) + 1)
        # Token id -> kind and unit.
        self.kinds = torch.full((self.size,), SPARE_KIND)
        self.kinds[: len(text)] = TEXT_KIND
        self._values = torch.arange(self.size)
        self.kinds[list(markers.values())] = CONTROL_KIND
        # Kind and unit -> token id; -1 where there is none, as in the last column.
        most = max(map(len, self._unit_ids.values()))
        self._units_to_ids = np.full((len(Kind), most + 1), -1)
        for kind, ids in self._unit_ids.items():
            self.kinds[ids] = int(kind)
            self._values[ids] = torch.arange(len(ids))
            self._units_to_ids[kind, : len(ids)] = ids

    @classmethod
    def extend(
        cls,
        text: TextTokenizer,
        phonetic: int = 501,
        pitch: int = 0,
        style: int = 0,
    ) -> Vocabulary:
        """Put the speech tokens behind those of a text tokenizer.

        Arguments
        ---------
        text : TextTokenizer
            Of a text language model.
        phonetic, pitch, style : int
            Numbers of units.

        Example
        -------
        >>> text = example_text_tokenizer()
        >>> len(Vocabulary.extend(text, phonetic=10)) - len(text)
        14
        """
        first = len(text)
        units, end = {}, first + 2
        for kind, count in (
            (Kind.PHONETIC, phonetic),
            (Kind.PITCH, pitch),
            (Kind.STYLE, style),
        ):
            if count:
                units[kind] = range(end, end + count)
                end += count
        markers = {"text": first, "speech": first + 1}
        return cls(text, {**markers, "asr": end, "tts": end + 1}, units)

    @classmethod
    def load(cls, folder: str | Path) -> Vocabulary:
        """Read the vocabulary of a language model's folder.

        The text tokenizer is ``tokenizer.model`` (SentencePiece) or else a
        fast tokenizer of transformers. The speech tokens are its pieces, or
        added tokens in ``added_tokens.json``, ``tokenizer_config.json`` or
        ``tokenizer.json``.

        Raises
        ------
        FileNotFoundError
            If there is no tokenizer in the folder.
        ValueError
            If it has no speech tokens.
        """
        folder = Path(folder)
        text = load_text_tokenizer(folder)

        def token_id(token: str) -> int | None:
            found = text.token_id(token)
            return text.tail.get(token) if found is None else found

        found = {m: token_id(token) for m, (token, _) in _MARKERS.items()}
        markers = {m: i for m, i in found.items() if i is not None}
        if not {"text", "speech"} <= markers.keys():
            raise ValueError(
                f"the tokenizer in {folder} has no [Text] and [Speech] tokens; "
                "make a vocabulary from a text tokenizer with "
                "Vocabulary.extend"
            )
        units = {}
        for kind, prefix in _PREFIXES.items():
            ids: list[int] = []
            while (unit := token_id(f"[{prefix}{len(ids)}]")) is not None:
                ids.append(unit)
            if ids:
                units[kind] = ids
        return cls(text, markers, units)

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files into a language model's folder.

        With them ``AutoTokenizer`` of transformers gives these ids: brackets in
        a text are text, and are tokens with ``split_special_tokens=False``. A
        template writes lists of messages as prompts. Of models that the
        tokenizers library cannot have, SentencePiece's unigram models among
        them, there is a warning and no ``tokenizer.json``; of those that find
        such names in a text nevertheless, a warning.

        Raises
        ------
        ValueError
            If the text has a token of the name of one of speech.

        Example
        -------
        >>> from transformers import AutoTokenizer
        >>> vocabulary = Vocabulary.load(
        ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
        ... )
        >>> vocabulary.save(tmp)
        >>> tokenizer = AutoTokenizer.from_pretrained(tmp)
        >>> prompt = "[Text]the cat[Speech][Hu3]"
        >>> ids = tokenizer.encode(prompt, split_special_tokens=False)
        >>> ids == vocabulary.encode_string(prompt)
        True
        """
        tokens = self.speech_tokens()
        for token, index in tokens.items():
            if (own := self.text.token_id(token)) not in (None, index):
                raise ValueError(
                    f"{token} cannot be saved with the id {index}: the text "
                    f"has one of that name, {own}; take another text tokenizer"
                )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.text.save(folder, tokens):
            write_file(folder / "chat_template.jinja", self._chat_template())
            self._compare_with_transformers(folder)

    def _compare_with_transformers(self, folder: Path) -> None:
        """Warn if plain transformers reads the files in another way."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )
        tokens = self.speech_tokens()
        theirs = tokenizer.encode(
            f"{''.join(tokens)}[Text]{_PROBE}", split_special_tokens=False
        )
        ours = self.encode_string(f"[Text]{_PROBE}")
        start = len(self.text.prompt_start)
        if theirs != [*ours[:start], *tokens.values(), *ours[start:]]:
            warnings.warn(
                "AutoTokenizer of transformers will give other ids: "
                f"{type(tokenizer).__name__}, which it takes for models of this "
                "type, does not keep to tokenizer.json, or common text holds "
                "one of this model's special tokens. Load it with "
                "PreTrainedTokenizerFast, or give engines ids, not texts",
                stacklevel=3,
            )
            return
        names = [*sorted(self.text.special), *tokens]
        theirs = tokenizer(names, add_special_tokens=False).input_ids
        for name, found in zip(names, theirs):
            if found != self.encode_text(name):
                warnings.warn(
                    f"AutoTokenizer of transformers will read {name} in a text "
                    "as that token; give engines ids, not texts",
                    stacklevel=3,
                )
                break

    def _chat_template(self) -> str:
        """Return the template that writes messages as prompts."""
        start = self.text.prompt_start
        space = bool(self.text.decode(start))
        spare = (self.kinds == SPARE_KIND).nonzero().squeeze(1).tolist()
        return chat_template(
            {name: _MARKERS[name][0] for name in self.markers},
            {_PREFIXES[kind]: len(ids) for kind, ids in self._unit_ids.items()},
            {*self.text.special, *map(spare_token, spare)},
            bos=self.text.bos_id is not None,
            space=space,
        )

    def speech_tokens(self) -> dict[str, int]:
        """Return the ids of the markers and of all units by their names."""
        tokens = {_MARKERS[m][0]: index for m, index in self.markers.items()}
        for kind, ids in self._unit_ids.items():
            for unit, index in enumerate(ids.tolist()):
                tokens[f"[{_PREFIXES[kind]}{unit}]"] = index
        return tokens

    def __len__(self) -> int:
        """Return the number of ids."""
        return self.size

    @property
    def expressive(self) -> bool:
        """Whether the vocabulary has pitch units."""
        return Kind.PITCH in self._unit_ids

    def unit_count(self, kind: Kind) -> int:
        """Return the number of units of a kind."""
        return len(self._unit_ids.get(kind, ()))

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a text, without marker or prefix."""
        return self.text.encode(text)

    def encode_speech(self, stream: SpeechStream) -> list[int]:
        """Return the ids of a stream, without marker.

        Raises
        ------
        ValueError
            If a unit is out of range or of a kind that the model has not.
        """
        values = stream.values.numpy()
        last = self._units_to_ids.shape[1] - 1
        ids = self._units_to_ids[stream.kinds.numpy(), values.clip(max=last)]
        if (ids < 0).any():
            wrong = int((ids < 0).argmax())
            raise ValueError(
                self._out_of_range(
                    Kind(int(stream.kinds[wrong])), int(values[wrong])
                )
            )
        return ids.tolist()

    def check_units(self, units: SpeechUnits) -> None:
        """Raise ValueError if the model lacks one of these units.

        Example
        -------
        >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=4)
        >>> vocabulary.check_units(SpeechUnits([1, 4]))
        Traceback (most recent call last):
        ...
        ValueError: unit [Hu4] is out of range: this vocabulary has 4 phonetic units
        """
        for kind in Kind:
            stream = getattr(units, kind.name.lower())
            if stream is not None and len(stream):
                largest = int(stream.max())
                if largest >= self.unit_count(kind):
                    raise ValueError(self._out_of_range(kind, largest))

    def _out_of_range(self, kind: Kind, unit: int) -> str:
        count = self.unit_count(kind)
        return (
            f"unit [{_PREFIXES[kind]}{unit}] is out of range: this "
            f"vocabulary has {count} {kind.name.lower()} units"
            + ("; use SpeechUnits.base()" if not count else "")
        )

    def encode(
        self, prompt: Sequence[Segment | tuple], output: str = "any"
    ) -> list[int]:
        """Return the ids of a prompt.

        A marker stands before each change of modality or of task, behind
        each `Break`, and at the end if the output is of another than the last
        segment.

        Arguments
        ---------
        prompt : sequence of segments
            Speech segments must hold units.
        output : str
            ``"text"``, ``"speech"``, ``"asr"`` (text, behind ``[ASR]``),
            ``"tts"`` (speech, behind ``[TTS]``), or ``"any"``, which adds
            nothing.

        Returns
        -------
        list of int

        Raises
        ------
        ValueError
            If the prompt is empty, a unit is out of range, ``output`` is
            unknown, or the vocabulary lacks a marker.
        """
        check_output(output)
        ids = list(self.text.prompt_start)
        marker = None
        for parts in _between_markers(as_prompt(prompt)):
            ids.append(self._marker_id(parts[0].marker))
            ids.extend(self._encode_parts(parts))
            marker = parts[-1].marker
        if output not in ("any", marker):
            ids.append(self._marker_id(output))
        return ids

    def encode_continuation(
        self, continuation: Sequence[Segment | tuple]
    ) -> tuple[str, list[int]]:
        """Return the marker that a continuation starts with, and its ids.

        The marker in front of it belongs to the prompt: it is what ``output``
        of `encode` adds. Markers inside the continuation are part of it.
        """
        segments = as_prompt(continuation)
        ids = self.encode(segments)
        return segments[0].marker, ids[len(self.text.prompt_start) + 1 :]

    def encode_string(self, prompt: str) -> list[int]:
        """Return the ids of a prompt in the bracket notation.

        As in ``[Text]he said[Speech][Hu3]``; here, and only here, brackets
        in the string are tokens.

        Raises
        ------
        ValueError
            If the string is not in that notation.
        """
        ids = list(self.text.prompt_start)
        for segment in parse_prompt(prompt):
            ids.append(self._marker_id(segment.marker))
            ids.extend(self._encode_parts([segment]))
        return ids

    def _marker_id(self, marker: str) -> int:
        if marker not in self.markers:
            raise ValueError(
                f"this vocabulary has no {_MARKERS[marker][0]}; its model was "
                "not trained on such tasks"
            )
        return self.markers[marker]

    def _encode_parts(self, parts: Sequence[Segment]) -> list[int]:
        """Encode what stands behind one marker, text or speech, as one."""
        ids = []
        streams = [part.stream for part in parts if isinstance(part, Speech)]
        if streams:
            ids += self.encode_speech(SpeechStream.concatenate(streams))
        texts = [part.text for part in parts if isinstance(part, Text)]
        if texts:
            ids += self.encode_text("".join(texts))
        return ids

    def decode(self, ids: Sequence[int] | Tensor) -> list[Segment]:
        """Return the segments that ids stand for, in order.

        A segment ends where the modality changes, with or without a marker;
        a `Break` comes back as its text.
        Control tokens (markers, beginning and end of sequence) are dropped.

        Arguments
        ---------
        ids : Tensor or sequence of int
            Shape (tokens,).
        """
        ids = torch.as_tensor(ids, device="cpu").to(torch.int64)
        start = self.text.prompt_start
        if ids[: len(start)].tolist() == start:
            ids = ids[len(start) :]
        kinds = self.kinds[ids]
        bos_id = self.text.bos_id
        control = torch.tensor([self.eos_id, *[bos_id] * (bos_id is not None)])
        keep = (kinds > CONTROL_KIND) & ~torch.isin(ids, control)
        ids, kinds = ids[keep], kinds[keep]
        is_text = kinds == TEXT_KIND
        bounds = (is_text[1:] != is_text[:-1]).nonzero().squeeze(1) + 1
        segments: list[Segment] = []
        for start, end in zip([0, *bounds], [*bounds, len(ids)]):
            if start == end:
                continue
            if is_text[start]:
                segments.append(Text(self.text.decode(ids[start:end].tolist())))
            else:
                units = self._values[ids[start:end]]
                segments.append(Speech(SpeechStream(kinds[start:end], units)))
        return segments

    def allowed(
        self,
        output: str,
        rows: int,
        stop: bool = True,
        style_units: Sequence[int] | None = None,
    ) -> Tensor:
        """Return which ids an output may contain.

        Arguments
        ---------
        output : str
            As of `encode`.
        rows : int
            Rows of the model's embedding; those without a token are never
            allowed.
        stop : bool
            Whether speech may end with the end-of-sequence token, which text
            always may. The released code lets speech run to the token limit
            (False).
        style_units : sequence of int, optional
            The only ones that speech may have.

        Returns
        -------
        Tensor
            Of bool, shape (rows,).

        Raises
        ------
        ValueError
            If the embedding has fewer rows than there are ids.
        """
        check_output(output)
        if rows < self.size:
            raise ValueError(
                f"the model's embedding has {rows} rows, fewer than the "
                f"{self.size} ids of the vocabulary; resize the embedding"
            )
        allowed = torch.zeros(rows, dtype=torch.bool)
        if output == "any":
            allowed[: self.size] = self.kinds != SPARE_KIND
        elif _MARKERS[output][1]:
            allowed[: self.size] = self.kinds == TEXT_KIND
        else:
            allowed[: self.size] = self.kinds >= 0
            allowed[self.eos_id] = stop
        if style_units is not None:
            chosen = torch.tensor([*style_units], dtype=torch.int64)
            is_style = self.kinds == int(Kind.STYLE)
            allowed[: self.size] &= ~is_style | torch.isin(self._values, chosen)
        return allowed


def _between_markers(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Yield the segments that share a marker, those of a break with them."""
    parts: list[Segment] = []
    for segment in segments:
        if parts and not isinstance(segment, Break):
            if segment.marker != parts[0].marker or isinstance(
                parts[-1], Break
            ):
                yield parts
                parts = []
        parts.append(segment)
    yield parts


def check_output(output: str) -> None:
    """Raise ValueError unless ``output`` names an output."""
    if not isinstance(output, str) or output not in OUTPUTS:
        raise ValueError(
            f"output must be one of {', '.join(OUTPUTS)}, got {shown(output)}"
        )
