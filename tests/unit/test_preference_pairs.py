"""What becomes of answers that were judged: pairs to train on, and to validate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.evaluation.preference_tasks import (
    ContinuationTask,
    ReadingTask,
    SentimentTask,
)
from spiritlm_plugin.evaluation.preferences import held_out, make_pairs


def row(task, name, words):
    return f"{task}/{name}", {"task": task, "prompt": [["text", words]]}


ROWS = st.lists(
    st.builds(row, *map(st.sampled_from, ("ab", "12345", "xyzuvw")))
).map(dict)


@given(ROWS, st.floats(0.01, 0.99))
def test_no_prompt_and_no_name_is_of_training_and_validation(rows, share):
    held = held_out(rows, share)
    assert held <= {*rows}

    def marks(ids):
        names = {("name", key.partition("/")[2]) for key in ids}
        return names | {str(rows[key]["prompt"]) for key in ids}

    assert not marks(held) & marks({*rows} - held)


def test_the_share_of_validation():
    rows = dict(row("a", str(i), f"word {i}") for i in range(40))
    assert len(held_out(rows, 0.25)) == 10
    assert len(held_out(rows, 0.001)) == 1
    assert len(held_out(rows, 0.999)) == 39
    assert not held_out(dict([row("a", "1", "x")]), 0.5)
    assert not held_out({}, 0.5)


READING = {"manifest_folder": "", "max_new_tokens": 9}
CONTINUATION = READING | {"direction": "t2t", "text_model": "gpt"}
SENTIMENT = {"data_folder": "", "classifier": "", "max_new_tokens": 9}


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (ReadingTask, READING | {"max_new_tokens": 0}, "max_new_tokens must"),
        (ReadingTask, READING | {"prompts": 0}, "prompts must be >= 1"),
        (ReadingTask, READING | {"margin": -1}, "margin must be 0 or more"),
        (ReadingTask, READING | {"margin": float("nan")}, "margin must be fin"),
        (
            ContinuationTask,
            CONTINUATION | {"prompt_seconds": 0},
            "prompt_seconds must be above 0",
        ),
        (
            ContinuationTask,
            CONTINUATION | {"direction": "x2t"},
            "no such direction: 'x2t'; there are t2t",
        ),
        (
            SentimentTask,
            SENTIMENT | {"direction": "s2x"},
            "no such direction: 's2x'",
        ),
        (
            SentimentTask,
            SENTIMENT | {"direction": "s2t", "share": 0},
            "share is of a recording",
        ),
    ],
)
def test_settings_of_tasks(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("temperature", "message"),
    [
        (0, "all answers to a prompt are the same"),
        (float("nan"), "temperature must be finite"),
        (1.0, "the task voices has no prompts"),
    ],
)
def test_nothing_is_loaded_where_there_would_be_no_pair(
    monkeypatch, temperature, message
):
    monkeypatch.setattr(SentimentTask, "ask", lambda self: {})
    task = SentimentTask(**SENTIMENT, direction="t2s")
    hparams = {"candidates": 2, "valid_share": 0.1, "tasks": {"voices": task}}
    hparams["temperature"] = temperature
    with pytest.raises(ValueError, match=message):
        make_pairs(hparams, {})
