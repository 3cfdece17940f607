"""The template by which transformers writes a list of messages as a prompt.

The models know no roles and no turns: what the messages hold stands one behind
the other, as in the prompts of `Vocabulary.encode`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

_TEMPLATE = """\
{#- Prompts of a Spirit LM. It is no chat model: roles say nothing, and parts
stand one behind the other, with a marker where the modality changes.

    generation          [Text]the cat        [Speech][Hu3][Hu8]
    ... in speech       [Text]the cat[Speech]
    transcription       [Speech][Hu3][Hu8][ASR]
    reading             [Text]the cat[TTS]
    behind shots        [Speech][Hu3][Text]<START Transcript> a cat <END>[Speech][Hu8][Text]
                        [Text]a cat 'stop'[Speech][Hu3]
    classification      [Speech][Hu3][Text]A:

[ASR] and [TTS] are of models that are trained on these tasks, shots for all.

A message's content is a text, or a list of parts:
    {"type": "text", "text": "the cat"}      {"type": "speech", "speech": "[Hu3][Hu8]"}
    {"type": "asr", "text": "the cat"}       {"type": "tts", "speech": "[Hu3][Hu8]"}
    {"type": "break", "text": "\\n"}  ends a shot: the next part has its marker again
`output` ("text", "speech", "asr" or "tts") adds the marker of what is wanted:

    tokenizer.apply_chat_template(
        messages, output="speech", tokens=True, tokenize=True,
        tokenizer_kwargs={"split_special_tokens": False},
    )

`tokens` says that brackets are going to be tokens. Who does not say so, such as the chat
of a server, would read them as characters, and is refused.

A text that spells a token, such as [Hu3], is refused, since a string cannot say
that it is text: give the model the ids of tokenizer(text, add_special_tokens=False).
-#}
{%- set markers = <markers> -%}
{%- set counts = <counts> -%}
{%- set special = <special> -%}
{%- macro unit(name) -%}
{%- if name[:2] in counts and name[2:] == name[2:] | int | string
    and 0 <= name[2:] | int < counts[name[:2]] -%}yes{%- endif -%}
{%- endmacro -%}
{%- macro text(content, run) -%}
{%- for token in special if token in run -%}
{{- raise_exception("a text spells " ~ token ~ ", which would become a token; give ids") -}}
{%- endfor -%}
{%- for start in run.split("[")[1:] if "]" in start and unit(start.split("]")[0]) -%}
{{- raise_exception("a text spells [" ~ start ~ ", which would become a unit; give ids") -}}
{%- endfor -%}
{{- content -}}
{%- endmacro -%}
{%- macro speech(content) -%}
{%- for name in content.split("]")[:-1] if name[:1] != "[" or not unit(name[1:]) -%}
{{- raise_exception("no unit of this model: " ~ name ~ "]") -}}
{%- endfor -%}
{%- if content[-1:] != "]" -%}
{{- raise_exception("speech is a string of units, such as [Hu3][Hu8]") -}}
{%- endif -%}
{{- content -}}
{%- endmacro -%}
{%- macro marker(kind) -%}
{%- if kind not in markers -%}
{{- raise_exception("this model has no marker for " ~ kind) -}}
{%- endif -%}
{{- markers[kind] -}}
{%- endmacro -%}
{%- if tokens is not defined or not tokens -%}
{{- raise_exception("the brackets of a prompt would be characters; give ids, or tokens=True and split_special_tokens=False") -}}
{%- endif -%}
{{- <start> -}}
{#- What is read as one text, in as many parts as it may come: -#}
{%- set seen = namespace(kind="", run="") -%}
{%- for message in messages -%}
{%- set content = message["content"] -%}
{%- for part in ([{"type": "text", "text": content}] if content is string else content) -%}
{%- if part["type"] != seen.kind and (part["type"] != "break" or not seen.kind) -%}
{{- marker(part["type"]) -}}
{%- set seen.run = "" -%}
{%- endif -%}
{%- set seen.kind = part["type"] -%}
{%- if part["type"] in ("speech", "tts") -%}
{{- speech(part["speech"]) -}}
{%- else -%}
{%- set seen.run = seen.run ~ part["text"] -%}
{{- text(part["text"], seen.run) -}}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if output is defined and output not in ("any", seen.kind) -%}
{{- marker(output) -}}
{%- endif -%}
"""


def chat_template(
    markers: Mapping[str, str],
    counts: Mapping[str, int],
    special: Iterable[str],
    bos: bool,
    space: bool,
) -> str:
    """Return the template of a vocabulary.

    Arguments
    ---------
    markers : dict of str to str
        Tokens of the markers, by the kind of what follows.
    counts : dict of str to int
        Units of each kind, by the prefix of their names.
    special : iterable of str
        Other tokens that no text may become.
    bos, space : bool
        What stands in front of a prompt: the beginning of a sequence, and the
        sign of a space.

    Example
    -------
    >>> template = chat_template(
    ...     {"text": "[Text]", "speech": "[Speech]"}, {"Hu": 9}, ["</s>"], True, True
    ... )
    >>> '{%- set counts = {"Hu": 9} -%}' in template
    True
    """
    start = ["bos_token"] * bos + ['" "'] * space
    values = {
        "<markers>": json.dumps(dict(markers)),
        "<counts>": json.dumps(dict(counts)),
        "<special>": json.dumps(sorted({*special, *markers.values()})),
        "<start>": " ~ ".join(start) or '""',
    }
    template = _TEMPLATE
    for name, value in values.items():
        template = template.replace(name, value)
    return template
