// The form of settings.

const BOTH = "both";
const byId = (id) => document.getElementById(id);

export class Options {
  constructor(onModel) {
    this.form = byId("options");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    for (const slider of this.form.querySelectorAll("[type=range]")) {
      slider.addEventListener("input", () => showValue(slider));
    }
    byId("model").addEventListener("change", () => {
      this.#fillVoices();
      onModel();
    });
  }

  // What the server has.
  fill({ models, limits }) {
    const before = byId("model").value;
    this.models = models;
    this.limits = limits;
    const choices = models.map(({ id }) => new Option(title(id), id));
    if (models.length === 2) {
      choices.push(new Option("Both, side by side", BOTH));
    }
    byId("model").replaceChildren(...choices);
    if (choices.some(({ value }) => value === before)) {
      byId("model").value = before;
    }
    const most = limits.new_tokens;
    if (most) {
      byId("tokens").max = most;
      byId("tokens").value = Math.min(byId("tokens").value, most);
    }
    if (limits.text_characters) byId("text").maxLength = limits.text_characters;
    this.#fillVoices();
  }

  #fillVoices() {
    const chosen = this.chosen;
    this.#offer("speaker", chosen.map(({ speakers }) => speakers));
    const styles = this.#offer("style", chosen.map(({ styles }) => styles));
    for (const element of [byId("style"), ...byId("style").labels]) {
      element.hidden = !styles.length;
    }
    for (const place of document.querySelectorAll("[data-rate]")) {
      const rate = chosen.at(-1).rates[place.dataset.rate];
      place.textContent = rate ? `, ${rate} a second` : ", not this model";
    }
  }

  // What all models have, beside what is theirs to choose.
  #offer(id, [first, ...others]) {
    const before = byId(id).value;
    const known = first.filter((name) =>
      others.every((names) => names.includes(name)));
    byId(id).replaceChildren(
      new Option("the model's choice", ""),
      ...known.map((name) => new Option(name, name)));
    if (known.includes(before)) byId(id).value = before;
    return known;
  }

  get compares() {
    return byId("model").value === BOTH;
  }

  // Models that answer, in the order of their names.
  get chosen() {
    const value = byId("model").value;
    if (value !== BOTH) return this.models.filter(({ id }) => id === value);
    return [...this.models].sort((a, b) => a.id.localeCompare(b.id));
  }

  get atOnce() {
    return byId("at-once").checked;
  }

  get aloud() {
    return byId("aloud").checked;
  }

  // Those of a model, as the server takes them.
  settings(model) {
    if (!this.form.reportValidity()) {
      throw new Error("A setting is not what it can be.");
    }
    const seed = byId("seed").value;
    return {
      model: model.id,
      output: document.querySelector("[name=output]:checked").value,
      speaker: byId("speaker").value || null,
      style: byId("style").value || null,
      temperature: Number(byId("temperature").value),
      top_p: Number(byId("top_p").value),
      max_new_tokens: Number(byId("tokens").value),
      seed: seed === "" ? null : Number(seed),
    };
  }
}

export function title(id) {
  return id.charAt(0).toUpperCase() + id.slice(1);
}

function showValue(slider) {
  slider.nextElementSibling.textContent = Number(slider.value).toFixed(2);
}
