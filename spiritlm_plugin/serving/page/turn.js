// One turn of the conversation: what it has, and how it is shown.

import { Figure } from "./figure.js";
import { Spectrogram } from "./spectrogram.js";

export const SIGNS = { phonetic: "Hu", pitch: "Pi", style: "St" };
const REASONS = {
  end_of_sequence: "the model ended it",
  max_new_tokens: "all the tokens that were asked for",
  max_seconds: "all the seconds that were asked for",
  context_full: "the model's context is full",
  cancelled: "cancelled",
};

export class Turn {
  constructor(role, title) {
    const template = document.getElementById("turn");
    this.element = template.content.cloneNode(true).firstElementChild;
    this.element.dataset.role = role;
    this.role = role;
    this.title = title;
    this.text = "";
    this.tokens = [];
    this.units = null;
    this.chunks = [];
    this.rate = 0;
    this.end = null;
    this.settings = null;
    this.inPrompt = true;
    this.#find("h3").textContent = title;
    this.showPlaying(null);
    this.figure = new Figure(this.#find(".sound"));
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  get playButton() {
    return this.#find(".play");
  }

  // The server keeps no turn in which nothing was said.
  get isEmpty() {
    return !this.tokens.length && !this.text && !this.chunks.length;
  }

  get seconds() {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0) /
      (this.rate || 1);
  }

  // So many seconds have been played; null where it is not playing.
  showPlaying(seconds) {
    const button = this.playButton;
    const plays = seconds !== null;
    if (plays) button.hidden = false;
    button.dataset.playing = plays ? "yes" : "";
    button.textContent = plays ? `Stop ${seconds.toFixed(1)} s` : "Play";
    button.setAttribute("aria-label", `${button.textContent}, ${this.title}`);
  }

  state(words) {
    this.#find(".facts").textContent = words;
  }

  addText(text) {
    this.text += text;
    const said = this.#find(".said");
    said.hidden = !this.text.trim();
    said.textContent = this.text;
  }

  addSound(samples, rate) {
    if (!this.spectrogram) {
      this.rate = rate;
      this.spectrogram = new Spectrogram(rate);
      this.figure.show(this.spectrogram);
    }
    this.chunks.push(samples);
    this.spectrogram.push(Float32Array.from(samples, (s) => s / 32768));
    this.figure.draw();
  }

  addUnits(units, rates) {
    if (!this.units) this.#find(".tokens").replaceChildren();
    this.units ??= { start: units.start };
    const list = Object.keys(SIGNS).flatMap((kind) =>
      (units[kind] ?? []).map((value) => [kind, value]));
    for (const [kind, value] of list) (this.units[kind] ??= []).push(value);
    this.figure.setUnits(this.units, rates);
    this.#append(list);
    this.#summarize("unit", Object.keys(SIGNS).flatMap((kind) =>
      (this.units[kind] ?? []).map((value) => [kind, value])));
  }

  addTokens(tokens) {
    this.tokens.push(...tokens);
    this.#append(tokens);
    this.#find(".stream").open = true;
    this.#summarize("token", this.tokens);
  }

  #append(tokens) {
    const pieces = tokens.flatMap(([kind, value]) => {
      const span = document.createElement("span");
      span.className = `token ${kind}`;
      span.textContent = kind === "text" ? value : `${SIGNS[kind]}${value}`;
      return [span, kind === "text" ? "" : " "];
    });
    this.#find(".tokens").append(...pieces);
  }

  #summarize(name, list) {
    this.#find(".stream").hidden = !list.length;
    const counts = {};
    for (const [kind] of list) counts[kind] = (counts[kind] ?? 0) + 1;
    const words = Object.entries(counts).map(([kind, n]) => `${n} ${kind}`);
    const s = list.length === 1 ? "" : "s";
    this.#find(".stream summary").textContent =
      `${list.length} ${name}${s}: ${words.join(", ")}`;
  }

  finish(end) {
    this.end = end;
    const facts = [REASONS[end.reason] ?? end.reason, `seed ${end.seed}`];
    if (end.first_audio_ms != null) {
      facts.unshift(`first sound after ${end.first_audio_ms} ms`);
    }
    if (this.chunks.length) facts.unshift(`${this.seconds.toFixed(1)} s`);
    this.state(facts.join(" · "));
    this.allowPlay();
  }

  allowPlay() {
    this.playButton.hidden = !this.chunks.length;
  }

  // The server does not have it any more.
  leavePrompt() {
    this.inPrompt = false;
    this.element.classList.add("past");
    this.#find("h3").textContent = `${this.title}, no longer in the prompt`;
  }
}
