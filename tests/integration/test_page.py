"""The page of the server in a browser that hears, with the shipped models.

SPIRITLM_PICTURES=docs/images makes the pictures of the docs.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path

import pytest
import soundfile

from spiritlm_plugin import SpiritLM
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary

pytest.importorskip("fastapi")
sync_api = pytest.importorskip("playwright.sync_api")
Image = pytest.importorskip("PIL.Image")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

from spiritlm_plugin.serving import Settings, create_app  # noqa: E402
from tests.integration.browser import (  # noqa: E402
    CHROMIUM,
    launch,
    running,
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed"
)

sync_api.expect.set_options(timeout=30_000)

KEY = "clé of tests"
SENTENCE = "the old man saw the farmer and the bird"
SECONDS = 1.5
PHONE, DESKTOP = (360, 740), (1280, 860)
SHOWN = [("desktop", "light"), ("phone", "dark")]
# Those of a machine that runs tests are nothing to show.
WITHOUT_TIMES = """() => {
  for (const facts of document.querySelectorAll(".facts")) {
    facts.textContent = facts.textContent.replace(/first sound[^·]*· /, "");
  }
}"""


@pytest.fixture(scope="module")
def models():
    return {
        variant: SpiritLM.from_hparams(
            "tinyspeech", name, overrides={"language_model_dtype": "float32"}
        )
        for variant, name in (
            ("expressive", "hyperparams.yaml"),
            ("base", "hyperparams_base.yaml"),
        )
    }


@pytest.fixture(scope="module")
def sentence(models, tmp_path_factory):
    """A sentence, spoken by the model that ships."""
    wavs, _ = models["expressive"].synthesize(
        [SENTENCE], speaker="anna", seed=1
    )
    path = tmp_path_factory.mktemp("sentence") / "sentence.wav"
    soundfile.write(path, wavs[0].numpy(), 16000)
    return path


@pytest.fixture(scope="module")
def address(models):
    with running(create_app(models, Settings(key=KEY, characters=40))) as url:
        yield url


@pytest.fixture(scope="module")
def browser(sentence):
    with sync_api.sync_playwright() as playwright:
        chromium = launch(playwright, sentence)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    """The page, connected; nothing may be wrong in its console."""
    context = browser.new_context(
        viewport=dict(zip(("width", "height"), DESKTOP)),
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong = []
    page.on("console", lambda m: wrong.append(m.text) if is_wrong(m) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda r: None if is_own(r, address) else wrong.append(r.url)
    )
    response = page.goto(address)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    page.get_by_label("API key").fill(KEY)
    assert faults(page) == []
    page.get_by_role("button", name="Connect", exact=True).click()
    sync_api.expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    yield page
    context.close()
    assert wrong == []


def is_own(request, address):
    return request.url.startswith((address, "blob:", "data:"))


def is_wrong(message):
    # The browser writes down that a key was asked for.
    asked = message.location.get("url", "").endswith("/v1/models")
    return message.type in ("error", "warning") and not asked


def choose(page, seed=5, tokens=80, output="Speech"):
    page.get_by_label("Seed").fill(str(seed))
    page.get_by_label("Tokens at most").fill(str(tokens))
    page.get_by_role("radio", name=output).check()


# On a busy machine an answer can have ended before it is looked at.
NOTE_CLOCKS = """() => {
  window.clocks = [];
  const note = () => {
    const button = document.querySelector("[data-role=assistant] .play");
    if (button) clocks.push(button.textContent);
  };
  new MutationObserver(note).observe(document.body, {
    subtree: true, childList: true, characterData: true,
  });
}"""


@pytest.fixture
def endless(monkeypatch):
    """Answers that end where they have all their tokens, and not before."""
    allowed = Vocabulary.allowed
    monkeypatch.setattr(
        Vocabulary,
        "allowed",
        lambda self, output, rows, stop, style_units: allowed(
            self, output, rows, False, style_units
        ),
    )


def record(page, seconds=SECONDS):
    """Say the sentence's beginning, with the keyboard."""
    button = page.get_by_role("button", name="Record")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "s => parseFloat(document.querySelector('.facts')?.textContent) >= s",
        arg=seconds + 0.1,  # it rounds to tenths
    )
    page.keyboard.press("Enter")


def rest(page):
    """Wait until nothing is done."""
    sync_api.expect(page.locator("#record")).to_be_enabled()
    sync_api.expect(page.locator("#record")).to_have_text("Record")


def saved(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    with open(download.value.path(), encoding="utf-8") as file:
        return json.load(file)


def faults(page):
    """What axe finds, at the levels A and AA of WCAG 2.2."""
    found = axe.Axe().run(
        page,
        options={
            "runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"],
        },
    )
    return [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in found.response["violations"]
    ]


def test_it_records_answers_and_saves(page, models, endless):
    choose(page)
    page.evaluate(NOTE_CLOCKS)
    record(page)
    # The answer is heard: the clock of its player runs, to its end.
    page.wait_for_function(
        "() => clocks.some((text) => /Stop [0-9.]*[1-9]/.test(text))"
    )
    rest(page)
    answer = page.locator("[data-role=assistant]")
    sync_api.expect(answer.locator(".play")).to_have_text("Play")
    assert not page.locator("#alert").is_visible()
    user = page.locator("[data-role=user]")
    assert re.search(
        r"Spectrogram of [\d.]+ seconds, over it \d+ phonetic, \d+ pitch, "
        r"\d+ style units",
        user.locator("canvas").get_attribute("aria-label"),
    )
    assert answer.locator(".token.phonetic").count() > 5

    said, heard = saved(page)["turns"]
    wav, rate = soundfile.read(
        io.BytesIO(base64.b64decode(said["wav"])), dtype="int16"
    )
    assert len(wav) >= SECONDS * rate and abs(wav).max() > 1500
    [units] = models["expressive"].encode_batch([wav], sample_rate=rate)
    assert said["units"]["phonetic"] == units.phonetic.tolist()
    assert heard["end"]["seed"] == heard["settings"]["seed"] == 5
    assert heard["end"]["tokens"] >= len(heard["tokens"]) > 5
    wav, rate = soundfile.read(io.BytesIO(base64.b64decode(heard["wav"])))
    assert rate == 16000 and len(wav) > rate / 2 and abs(wav).max() > 0.01


def test_models_side_by_side(page, sentence, pictures):
    page.get_by_label("Model", exact=True).select_option("both")
    rest(page)
    choose(page)
    page.get_by_label("Play while it is made").uncheck()
    page.locator("#file").set_input_files(sentence)
    rest(page)
    answers = page.locator("[data-role=assistant]")
    assert answers.locator("h3").all_text_contents() == ["Base", "Expressive"]
    base, expressive = answers.all()
    assert base.locator(".token.phonetic").count()
    assert not base.locator(".token.style").count()
    assert expressive.locator(".token.style, .token.pitch").count()
    left, right = base.bounding_box(), expressive.bounding_box()
    assert left["y"] == right["y"] and left["x"] < right["x"]

    for name, (width, height) in (("desktop", DESKTOP), ("phone", PHONE)):
        page.set_viewport_size({"width": width, "height": height})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            assert faults(page) == []
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
            if (name, theme) in SHOWN:
                pictures(page, f"page_{name}_{theme}")

    # One model alone begins anew with what the user has said.
    page.set_viewport_size(dict(zip(("width", "height"), DESKTOP)))
    page.get_by_label("Model", exact=True).select_option("base")
    sync_api.expect(page.locator("#status")).to_contain_text("Begun anew")
    page.get_by_role("button", name="Continue").click()
    rest(page)
    assert answers.count() == 3
    turns = saved(page)["turns"]
    assert [turn["in_prompt"] for turn in turns] == [True, False, False, True]

    # So does another one, whose units are not those of the answer.
    page.get_by_label("Model", exact=True).select_option("expressive")
    sync_api.expect(page.locator("#status")).to_contain_text("Begun anew")
    page.get_by_role("button", name="Continue").click()
    rest(page)
    assert answers.count() == 4
    turns = saved(page)["turns"]
    assert [turn["in_prompt"] for turn in turns] == [True, *[False] * 3, True]


def test_a_style_is_chosen_by_keys(page, models):
    style = page.get_by_label("Style", exact=True)
    names = style.locator("option").all_text_contents()
    assert names == ["the model's choice", "happy", "neutral", "sad"]
    choose(page, tokens=120)
    style.focus()
    page.keyboard.type("sad")
    box = page.get_by_label("Text", exact=True).first
    box.fill("the old man")
    box.press("Enter")
    rest(page)
    *_, answer = saved(page)["turns"]
    assert answer["settings"]["style"] == "sad"
    units = [unit for kind, unit in answer["tokens"] if kind == "style"]
    assert units and set(units) <= {*models["expressive"].style_units("sad")}

    # Base has it, too; it stays chosen.
    page.get_by_label("Model", exact=True).select_option("base")
    rest(page)
    assert style.input_value() == "sad"


def test_a_model_without_names_offers_no_style(browser, load, checkpoints):
    app = create_app({"released": load(checkpoints, "expressive")})
    with running(app) as url:
        page = browser.new_page()
        page.goto(url)
        voice = page.get_by_label("Voice")
        sync_api.expect(voice.locator("option").nth(1)).to_be_attached()
        assert voice.is_visible()
        assert not page.locator("#style").is_visible()
        assert not page.get_by_text("Style", exact=True).is_visible()
        page.close()


def test_text_undo_cancel_clear_and_errors(page, endless):
    choose(page, output="Text", tokens=5)
    box = page.get_by_label("Text", exact=True).first
    box.fill("the old man")
    box.press("Enter")
    rest(page)
    turns = page.locator(".turn")
    assert turns.count() == 2
    page.get_by_role("button", name="Undo").click()
    rest(page)
    assert turns.count() == 1

    # The server is asked for what it does not allow: it says so, and the
    # conversation goes on.
    page.evaluate("document.getElementById('text').maxLength = 1000")
    box.fill("the old man " * 10)
    box.press("Enter")
    alert = page.get_by_role("alert")
    sync_api.expect(alert).to_contain_text("characters")
    assert faults(page) == []
    rest(page)
    assert turns.count() == 1

    page.locator("#file").set_input_files(
        {"name": "no.wav", "mimeType": "audio/wav", "buffer": b"no sound"}
    )
    sync_api.expect(alert).to_contain_text("cannot read no.wav")

    # An answer is cancelled.
    choose(page, tokens=900)
    page.get_by_role("button", name="Continue").click()
    tokens = turns.last.locator(".token.phonetic")
    sync_api.expect(tokens.first).to_be_attached()
    page.keyboard.press("Escape")
    rest(page)
    facts = turns.last.locator(".facts").text_content()
    assert "cancelled" in facts and "seed" in facts
    page.get_by_role("button", name="Clear").click()
    rest(page)
    assert turns.count() == 0
    assert page.get_by_text("Say the beginning").is_visible()


def test_everything_is_reached_by_keys(page):
    page.set_viewport_size(dict(zip(("width", "height"), PHONE)))
    assert faults(page) == []
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"theme", "record", "file", "text"} <= reached
    theme = page.locator("#theme")
    theme.press("Enter")
    theme.press("Enter")
    assert theme.text_content() == "Theme: dark"
    color = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(color) == "rgb(23, 22, 19)"


def test_a_wrong_key_is_said(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Connect", exact=True).click()
    sync_api.expect(page.locator("#key-note")).to_have_text(
        "That key is not the server's."
    )
    page.close()


@pytest.fixture
def pictures():
    """Keep pictures of a page where SPIRITLM_PICTURES names a folder."""
    folder = os.environ.get("SPIRITLM_PICTURES")

    def take(page, name):
        page.evaluate(WITHOUT_TIMES)
        picture = Image.open(io.BytesIO(page.screenshot()))
        if folder:
            few_colors = picture.convert("RGB").quantize(
                256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
            )
            few_colors.save(Path(folder) / f"{name}.png", optimize=True)

    return take
