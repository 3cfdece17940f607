// The microphone, and files.

export function toPcm(samples) {
  return Int16Array.from(samples, (sample) =>
    Math.round(Math.max(-1, Math.min(1, sample)) * 32767));
}

export class Recorder {
  // `onSamples` is called with samples from -1 to 1, as they come.
  static async start(onSamples) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(
        "Browsers give a microphone to localhost and https only. Choose a file.");
    }
    const recorder = new Recorder();
    try {
      recorder.media = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1 },
      });
    } catch (error) {
      throw new Error(explain(error), { cause: error });
    }
    recorder.context = new AudioContext();
    try {
      await recorder.#listen(onSamples);
    } catch (error) {
      await recorder.#close();
      throw error;
    }
    return recorder;
  }

  async #listen(onSamples) {
    await this.context.audioWorklet.addModule(
      new URL("recorder-worklet.js", import.meta.url));
    const source = this.context.createMediaStreamSource(this.media);
    this.node = new AudioWorkletNode(this.context, "recorder", {
      numberOfOutputs: 0,
    });
    this.ended = new Promise((resolve) => {
      this.node.port.onmessage = ({ data }) =>
        (data ? onSamples(data) : resolve());
    });
    this.begin = () => source.connect(this.node);
  }

  get rate() {
    return this.context.sampleRate;
  }

  // Resolves when the last samples have been handed on.
  stop() {
    this.stopping ??= this.#stop();
    return this.stopping;
  }

  async #stop() {
    this.node.port.postMessage("stop");
    await this.ended;
    await this.#close();
  }

  async #close() {
    for (const track of this.media.getTracks()) track.stop();
    await this.context.close();
  }
}

function explain(error) {
  if (error.name === "NotAllowedError") {
    return "The browser has not given the microphone to this page.";
  }
  if (error.name === "NotFoundError") return "There is no microphone.";
  return `The microphone cannot be used: ${error.message}`;
}

// Returns samples of one channel, and their rate.
export async function readFile(file, mostSeconds) {
  const context = new AudioContext();
  try {
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    if (sound.duration > mostSeconds) {
      throw new RangeError(
        `${file.name} lasts ${sound.duration.toFixed(1)} s; ` +
        `the server takes ${mostSeconds} s at most.`);
    }
    if (!sound.length) throw new RangeError(`${file.name} holds no sound.`);
    return { samples: mixed(sound), rate: sound.sampleRate };
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new Error(`The browser cannot read ${file.name} as sound.`, {
      cause: error,
    });
  } finally {
    await context.close();
  }
}

function mixed(sound) {
  const sum = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let i = 0; i < sum.length; i++) {
      sum[i] += samples[i] / sound.numberOfChannels;
    }
  }
  return sum;
}
