"""What the voices and the styles of a vocoder are called."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from spiritlm_plugin.utils.arguments import shown


class VoiceNames:
    """A vocoder's voices and styles, by their names or numbers.

    Attributes
    ----------
    speakers : list of str
        Names of the voices.
    global_styles : list of str
        Names of the styles of a whole utterance (Base), if they have any.
    global_style_count : int
        How many there are.
    default_global_style : int
        The one that is used where none is asked for.
    styles : dict of str to list of int
        Style units that carry each style that has a name (Expressive).
    """

    speakers: list[str]
    global_styles: list[str]
    global_style_count: int
    default_global_style: int
    styles: dict[str, list[int]]

    @property
    @abstractmethod
    def expressive(self) -> bool:
        """Whether pitch and style units are needed."""

    def speaker_id(self, speaker: int | str | None) -> int | None:
        """Return a speaker's number; None where none is asked for.

        Raises
        ------
        ValueError
            If there is no such speaker; the known ones are named.
        """
        if speaker is None:
            return None
        if isinstance(speaker, str) and speaker in self.speakers:
            return self.speakers.index(speaker)
        number = _number_of(speaker, self.speakers, len(self.speakers))
        if number is None:
            raise ValueError(
                f"unknown speaker {shown(speaker)}; {_known(self.speakers)}"
            )
        return number

    @property
    def style_names(self) -> list[str]:
        """Names of the styles that can be asked for; they may have none."""
        return self.global_styles or [*self.styles]

    def style_id(self, global_style: int | str | None) -> int:
        """Return the number of a global style, the default's of None.

        Raises
        ------
        ValueError
            If there is no such style; those that there are, are named.
        """
        if global_style is None:
            return self.default_global_style
        names, count = self.global_styles, self.global_style_count
        number = _number_of(global_style, names, count)
        if number is None:
            known = f"this vocoder has {count}"
            if names:
                known = _known(names)
            elif count:
                known += ", by number: name them in hyperparams.yaml, as a "
                known += "list instead of global_styles' count"
            raise ValueError(
                f"unknown global style {shown(global_style)}; {known}"
            )
        return number

    def style_units(self, style: int | str | None) -> list[int] | None:
        """Return the style units that carry a style, None where any may come.

        So it is where no style is asked for, and in Base, which knows no
        style units: there the style is a global one.

        Raises
        ------
        ValueError
            If there is no such style; those that there are, are named.

        Example
        -------
        >>> vocoder = SpeechCodec.from_hparams("tinyspeech").mods.vocoder
        >>> set(vocoder.style_units("sad")) & set(vocoder.style_units("happy"))
        set()
        """
        if style is None:
            return None
        if not self.expressive:
            self.style_id(style)
            return None
        names = self.style_names
        number = _number_of(style, names, len(names))
        if number is None:
            known = _known(names)
            if not names:
                known = (
                    "this vocoder names none: say in hyperparams.yaml which "
                    "style units carry which, as styles: {happy: [3, 7]}"
                )
            raise ValueError(f"unknown style {shown(style)}; {known}")
        return self.styles[names[number]]


def check_styles(
    global_styles: Sequence[str], styles: Mapping[str, list[int]], count: int
) -> None:
    """Raise ValueError unless names, and the units of styles, are sound."""
    for name in (*global_styles, *styles):
        if not isinstance(name, str) or not name:
            raise ValueError(f"a style has a name, not {shown(name)}")
    if len(set(global_styles)) < len(global_styles):
        raise ValueError(f"global_styles {shown(global_styles)} repeat a name")
    for name, units in styles.items():
        if not units or any(
            _number_of(unit, (), count) is None for unit in units
        ):
            raise ValueError(
                f"the style {name!r} has the units {shown(units)}; it takes "
                f"one or more, each below {count}"
            )


def _number_of(value: Any, names: Sequence[str], count: int) -> int | None:
    """Return the number that a name or number means; None if it means none."""
    if isinstance(value, str):
        return names.index(value) if value in names else None
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value) if 0 <= int(value) < count else None
    return None


def _known(names: Sequence[str]) -> str:
    return "known: " + ", ".join(f"{i} ({n})" for i, n in enumerate(names))
