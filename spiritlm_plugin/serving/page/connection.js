// One WebSocket, and the conversation that the server keeps behind it.

const KEY = "spiritlm.key";
// Samples of a message, of two bytes each.
const FRAME = 8192;

export class KeyNeeded extends Error {}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

// Raises KeyNeeded where the server has a key that we do not know.
export async function checkServer() {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { Authorization: `Bearer ${headerText(key)}` } : {};
  const answer = await fetch("v1/models", { headers });
  if (answer.status === 401) {
    throw new KeyNeeded(key ? "That key is not the server's." : "");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `The server says ${answer.status}.`);
  }
}

// A header has bytes; those of the key are UTF-8.
function headerText(key) {
  return String.fromCharCode(...new TextEncoder().encode(key));
}

function protocols() {
  const key = sessionStorage.getItem(KEY);
  if (!key) return ["spiritlm"];
  const letters = btoa(headerText(key));
  const safe = letters.replaceAll("+", "-").replaceAll("/", "_");
  return ["spiritlm", `key.${safe.replaceAll("=", "")}`];
}

// Does one thing at a time; what comes meanwhile belongs to it.
export class Connection {
  constructor(onClose) {
    this.onClose = onClose;
    this.accepted = { type: "configure" };
    this.task = null;
    this.header = null;
    this.left = false;
  }

  open() {
    const url = new URL("v1/conversation", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    return this.#run((message) => message.type === "ready", () => {
      this.socket = new WebSocket(url, protocols());
      this.socket.binaryType = "arraybuffer";
      this.socket.onmessage = (event) => this.#take(event.data);
      this.socket.onclose = () => this.#closed();
    });
  }

  close() {
    this.left = true;
    this.socket?.close();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  async configure(settings) {
    const message = { type: "configure", ...settings };
    await this.#run((m) => m.type === "configured", () => this.#send(message));
    this.accepted = message;
  }

  write(text) {
    return this.#order({ type: "text", text });
  }

  clear() {
    return this.#order({ type: "clear" });
  }

  undo() {
    return this.#order({ type: "undo" });
  }

  // Resolves with the units, after `endAudio`.
  beginAudio(rate, onUnits) {
    const heard = (message) => {
      if (message.type !== "units") return false;
      onUnits(message);
      return message.final;
    };
    return this.#run(heard, () =>
      this.#send({ type: "audio.begin", sample_rate: rate }));
  }

  pushAudio(samples) {
    for (let at = 0; at < samples.length; at += FRAME) {
      this.socket.send(samples.slice(at, at + FRAME));
    }
  }

  endAudio() {
    this.#send({ type: "audio.end" });
  }

  // Resolves with the end of the answer.
  answer(onPiece) {
    const heard = (message, samples) => {
      if (message.type === "end") return true;
      onPiece(message, samples);
      return false;
    };
    return this.#run(heard, () => this.#send({ type: "continue" }));
  }

  cancel() {
    this.#send({ type: "cancel" });
  }

  // The server answers nothing to some messages. What it has accepted
  // before, sent once more, is answered after them.
  #order(message) {
    return this.#run((m) => m.type === "configured", () => {
      this.task.waits = true;
      this.#send(message);
      this.#send(this.accepted);
    });
  }

  #send(message) {
    if (!this.isOpen) throw new Error("There is no connection to the server.");
    this.socket.send(JSON.stringify(message));
  }

  #run(heard, begin) {
    return new Promise((resolve, reject) => {
      if (this.task) throw new Error("One thing at a time, please.");
      this.task = { heard, resolve, reject, waits: false, error: null };
      try {
        begin();
      } catch (error) {
        this.task = null;
        throw error;
      }
    });
  }

  #take(data) {
    if (data instanceof ArrayBuffer) {
      const header = this.header;
      this.header = null;
      return this.#hear(header, new Int16Array(data));
    }
    const message = JSON.parse(data);
    if (message.type === "audio") {
      this.header = message; // its samples come next
    } else if (message.type === "error") {
      this.#fail(new Error(message.message));
    } else {
      this.#hear(message);
    }
  }

  #hear(message, samples) {
    if (!this.task?.heard(message, samples)) return;
    const { resolve, reject, error } = this.task;
    this.task = null;
    if (error) reject(error);
    else resolve(message);
  }

  #fail(error) {
    if (!this.task) return;
    this.task.error ??= error;
    if (this.task.waits) return;
    const { reject } = this.task;
    this.task = null;
    reject(error);
  }

  #closed() {
    const error = this.task?.error;
    if (this.task) {
      this.task.waits = false;
      this.#fail(error ?? new Error("The connection to the server has ended."));
    }
    if (!this.left) this.onClose();
  }
}
