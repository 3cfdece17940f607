// The spectrogram of a recording in mel bands, and units over it.

const BANDS = 72;
const HOP = 0.008; // seconds
const WINDOW = 0.025;
const HIGHEST = 8000; // Hz
const RANGE = 7; // of log magnitude, below the loudest

// Of complex numbers, in place; lengths are powers of two.
export function fft(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= n; size *= 2) {
    const half = size / 2;
    for (let k = 0; k < half; k++) {
      const angle = (-2 * Math.PI * k) / size;
      const c = Math.cos(angle);
      const s = Math.sin(angle);
      for (let at = k; at < n; at += size) {
        const other = at + half;
        const r = real[other] * c - imaginary[other] * s;
        const i = real[other] * s + imaginary[other] * c;
        real[other] = real[at] - r;
        imaginary[other] = imaginary[at] - i;
        real[at] += r;
        imaginary[at] += i;
      }
    }
  }
}

const toMel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
const toHertz = (mel) => 700 * (10 ** (mel / 2595) - 1);

// Columns of a spectrogram, as samples come.
export class Spectrogram {
  constructor(rate) {
    this.rate = rate;
    this.length = Math.round(WINDOW * rate);
    this.size = 2 ** Math.ceil(Math.log2(this.length));
    this.columns = [];
    this.samples = new Float32Array(0);
    this.dropped = 0;
    this.seconds = 0;
    this.edges = this.#edges();
  }

  // Bins at which bands begin; each band has one at least.
  #edges() {
    const top = toMel(Math.min(HIGHEST, this.rate / 2));
    const bins = this.size / 2;
    return Array.from({ length: BANDS + 1 }, (_, band) => {
      const hertz = toHertz((top * band) / BANDS);
      return Math.min(bins - 1, Math.round((hertz / this.rate) * this.size));
    });
  }

  push(samples) {
    const all = new Float32Array(this.samples.length + samples.length);
    all.set(this.samples);
    all.set(samples, this.samples.length);
    this.seconds += samples.length / this.rate;
    let at = Math.round(this.columns.length * HOP * this.rate) - this.dropped;
    while (at + this.length <= all.length) {
      this.columns.push(this.#column(all.subarray(at, at + this.length)));
      at = Math.round(this.columns.length * HOP * this.rate) - this.dropped;
    }
    this.samples = all.slice(at);
    this.dropped += Math.min(at, all.length);
  }

  #column(samples) {
    const real = new Float32Array(this.size);
    const imaginary = new Float32Array(this.size);
    const turn = (2 * Math.PI) / this.length;
    for (let i = 0; i < this.length; i++) {
      real[i] = samples[i] * (0.5 - 0.5 * Math.cos(turn * i));
    }
    fft(real, imaginary);
    return Float32Array.from({ length: BANDS }, (_, band) => {
      const first = this.edges[band];
      const last = Math.max(first + 1, this.edges[band + 1]);
      let sum = 0;
      for (let k = first; k < last; k++) {
        sum += real[k] ** 2 + imaginary[k] ** 2;
      }
      return Math.log(1e-6 + Math.sqrt(sum / (last - first)));
    });
  }

  // Ink of so many values of red, green and blue; one pixel a value.
  image([red, green, blue]) {
    const width = Math.max(1, this.columns.length);
    const image = new ImageData(width, BANDS);
    let top = -6;
    for (const column of this.columns) {
      for (const value of column) if (value > top) top = value;
    }
    this.columns.forEach((column, x) => {
      column.forEach((value, band) => {
        const at = 4 * ((BANDS - 1 - band) * width + x);
        const share = Math.max(0, 1 - (top - value) / RANGE);
        image.data.set([red, green, blue, 255 * share ** 1.6], at);
      });
    });
    return image;
  }
}
