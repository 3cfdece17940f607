// Plays chunks one after another, without gaps, while they come.

const LEAD = 0.08; // seconds between the first chunk and its sound

export class Player {
  constructor() {
    this.context = null;
    this.sources = new Set();
    this.playings = new Set();
    this.next = 0;
  }

  // A browser plays nothing before the user has done something.
  async wake(rate = 16000) {
    if (this.context?.sampleRate !== rate) {
      await this.context?.close();
      // At the rate of the chunks: none is resampled by itself.
      this.context = new AudioContext({ sampleRate: rate });
      this.next = 0;
    }
    if (this.context.state === "suspended") await this.context.resume();
  }

  // `onClock` is called with the seconds played; `onEnd` at the end.
  begin(onClock, onEnd) {
    const playing = new Playing(this, onClock, onEnd);
    this.playings.add(playing);
    return playing;
  }

  schedule(samples, rate, onEnd) {
    const buffer = this.context.createBuffer(1, samples.length, rate);
    const channel = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) channel[i] = samples[i] / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    const now = this.context.currentTime;
    const at = this.next > now ? this.next : now + LEAD;
    source.start(at);
    this.next = at + buffer.duration;
    this.sources.add(source);
    source.onended = () => {
      if (this.sources.delete(source)) onEnd(buffer.duration);
    };
  }

  stop() {
    const sources = [...this.sources];
    this.sources.clear();
    for (const source of sources) source.stop();
    for (const playing of [...this.playings]) playing.end();
    this.next = 0;
  }
}

class Playing {
  constructor(player, onClock, onEnd) {
    Object.assign(this, { player, onClock, onEnd });
    this.waiting = 0;
    this.played = 0;
    this.whole = false;
  }

  push(samples, rate) {
    if (!this.player.playings.has(this)) return; // stopped
    this.waiting++;
    this.player.schedule(samples, rate, (seconds) => {
      this.waiting--;
      this.onClock((this.played += seconds));
      this.#look();
    });
  }

  // Nothing more comes.
  finish() {
    this.whole = true;
    this.#look();
  }

  end() {
    if (this.player.playings.delete(this)) this.onEnd();
  }

  #look() {
    if (this.whole && !this.waiting) this.end();
  }
}
