// Draws a spectrogram with lanes of units.

const SOUND = 116; // pixels of height
const LANES = { phonetic: 34, pitch: 22, style: 22 };
const NARROWEST = 330; // pixels a second
const WIDEST = 8000;

export class Figure {
  constructor(element) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.scroll = element.querySelector(".scroll");
    this.spectrogram = null;
    this.units = null;
    this.rates = {};
    this.pending = false;
    new ResizeObserver(() => this.draw()).observe(element);
    addEventListener("themechange", () => this.draw());
  }

  show(spectrogram) {
    this.spectrogram = spectrogram;
    this.element.hidden = false;
    this.draw();
  }

  setUnits(units, rates) {
    this.units = units;
    this.rates = rates;
    this.draw();
  }

  draw() {
    if (this.pending || !this.spectrogram) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.#draw();
    });
  }

  #draw() {
    const seconds = Math.max(this.spectrogram.seconds, 0.5);
    const room = this.element.clientWidth;
    if (!room) return;
    const lanes = Object.keys(LANES).filter((kind) =>
      this.units?.[kind]?.length);
    const width = Math.min(WIDEST, Math.max(room, seconds * NARROWEST));
    const height = lanes.reduce((sum, kind) => sum + LANES[kind], SOUND);
    const pen = this.#pen(width, height);
    const scale = width / seconds;
    this.#drawSound(pen, Math.min(width, this.spectrogram.seconds * scale));
    let top = SOUND;
    for (const kind of lanes) {
      this.#drawLane(pen, kind, top, scale);
      top += LANES[kind];
    }
    this.canvas.setAttribute("aria-label", this.#words(lanes));
    if (!this.units) this.scroll.scrollLeft = width; // follows a recording
  }

  #pen(width, height) {
    const density = Math.min(devicePixelRatio, 2);
    this.canvas.width = width * density;
    this.canvas.height = height * density;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const pen = this.canvas.getContext("2d");
    pen.scale(density, density);
    return pen;
  }

  #drawSound(pen, width) {
    const image = this.spectrogram.image(this.#color("--ink"));
    const small = new OffscreenCanvas(image.width, image.height);
    small.getContext("2d").putImageData(image, 0, 0);
    pen.drawImage(small, 0, 0, width, SOUND);
  }

  #drawLane(pen, kind, top, scale) {
    const height = LANES[kind] - 3;
    const color = `rgb(${this.#color(`--${kind}`)})`;
    pen.font = "11px ui-monospace, monospace";
    pen.textBaseline = "middle";
    for (const run of runs(this.units[kind])) {
      const rate = this.rates[kind];
      const left = (run.first / rate) * scale;
      const width = (run.count / rate) * scale;
      pen.fillStyle = `rgb(${this.#color(`--${kind}-tint`)})`;
      pen.fillRect(left + 0.5, top + 2, width - 1, height);
      pen.fillStyle = color;
      pen.fillRect(left, top + 2, 1.5, height);
      if (kind === "phonetic") {
        pen.globalAlpha = 0.35;
        pen.fillRect(left, 0, 1, SOUND);
        pen.globalAlpha = 1;
      }
      write(pen, String(run.value), left, top + 2 + height / 2, width);
    }
  }

  // Values of red, green and blue of a color of the style sheet.
  #color(name) {
    this.canvas.style.color = `var(${name})`;
    const color = getComputedStyle(this.canvas).color;
    return color.match(/[\d.]+/g).slice(0, 3).map(Number);
  }

  #words(lanes) {
    const seconds = this.spectrogram.seconds.toFixed(1);
    const counts = lanes.map((kind) => `${this.units[kind].length} ${kind}`);
    const units = counts.length ? `, over it ${counts.join(", ")} units` : "";
    return `Spectrogram of ${seconds} seconds${units}`;
  }
}

// Upright, where there is no room for it as it should be.
function write(pen, label, left, middle, width) {
  const length = pen.measureText(label).width;
  if (length + 6 < width) {
    pen.fillText(label, left + 4, middle);
  } else if (width >= 12) {
    pen.save();
    pen.translate(left + width / 2 + 1, middle + length / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(label, 0, 0);
    pen.restore();
  }
}

// Equal units that follow each other.
export function runs(values) {
  const found = [];
  values.forEach((value, first) => {
    const last = found.at(-1);
    if (last?.value === value) last.count++;
    else found.push({ value, first, count: 1 });
  });
  return found;
}
