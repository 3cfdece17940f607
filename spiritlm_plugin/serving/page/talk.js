// A conversation: its turns, and the connections that they go through. Where
// two models are compared, each has a connection, and both hear the user.

import { Connection, checkServer } from "./connection.js";
import { title } from "./options.js";
import { Player } from "./player.js";
import { readFile, Recorder, toPcm } from "./recorder.js";
import { Turn } from "./turn.js";

const PIECE = 8192; // samples of a file that are sent at a time

export class Talk {
  // `place` takes the turns; `onState` hears what is done, `onClose` that a
  // connection has ended.
  constructor(options, { place, onState, onClose }) {
    Object.assign(this, { options, place, onState, onClose });
    this.rounds = []; // each of one turn, or of an answer of each model
    this.connections = [];
    this.models = [];
    this.player = new Player();
    this.recording = null;
    this.stopped = false;
  }

  get turns() {
    return this.rounds.flat();
  }

  get hasPrompt() {
    return this.turns.some((turn) => turn.inPrompt);
  }

  // Whether these models are those that it goes on with.
  isWith(models) {
    const ids = (some) => some.map(({ id }) => id).join();
    return ids(models) === ids(this.models);
  }

  // Begins anew, with what the user has said so far.
  async connect() {
    for (const connection of this.connections) connection.close();
    this.connections = [];
    for (const turn of this.turns) {
      if (turn.role === "assistant" && turn.inPrompt) turn.leavePrompt();
    }
    await checkServer();
    this.options.fill(await this.#open());
    if (this.options.compares) await this.#open();
    await this.#prepare();
    for (const turn of this.turns) {
      if (turn.role === "user") await this.#hand(turn);
    }
  }

  #open() {
    const connection = new Connection(() => this.onClose());
    this.connections.push(connection);
    return connection.open();
  }

  #each(action) {
    return Promise.all(this.connections.map(action));
  }

  async #prepare() {
    const models = this.models = this.options.chosen;
    await this.#each((connection, i) =>
      connection.configure(this.options.settings(models[i])));
  }

  // Gives a turn of the user to the model.
  async #hand(turn) {
    if (turn.text) {
      await this.#each((connection) => connection.write(turn.text));
      return;
    }
    const heard = this.#hearUnits(turn, turn.rate);
    for (const chunk of turn.chunks) this.#push(chunk);
    this.#endAudio();
    await heard;
  }

  // Shows the units of the last model, which has most kinds of them.
  #hearUnits(turn, rate) {
    const shown = this.connections.length - 1;
    const rates = this.options.chosen.at(-1).rates;
    turn.units = null;
    return this.#each((connection, i) =>
      connection.beginAudio(rate, (units) => {
        if (i === shown) turn.addUnits(units, rates);
      }));
  }

  #push(samples) {
    for (const connection of this.connections) connection.pushAudio(samples);
  }

  #endAudio() {
    for (const connection of this.connections) connection.endAudio();
  }

  #begin(role, name) {
    const turn = new Turn(role, name);
    turn.playButton.addEventListener("click", () => this.#togglePlay(turn));
    this.place.append(turn.element);
    return turn;
  }

  // Takes a turn that `give` hands over; it goes again if that fails.
  async #said(give) {
    const turn = this.#begin("user", "You");
    try {
      await give(turn);
    } catch (error) {
      turn.element.remove();
      throw error;
    }
    turn.allowPlay();
    this.rounds.push([turn]);
  }

  async write(text) {
    await this.#prepare();
    await this.#said(async (turn) => {
      turn.addText(text);
      await this.#hand(turn);
    });
  }

  async addFile(file) {
    const most = this.options.limits.audio_seconds;
    const { samples, rate } = await readFile(file, most);
    await this.#prepare();
    await this.#said(async (turn) => {
      for (let at = 0; at < samples.length; at += PIECE) {
        turn.addSound(toPcm(samples.subarray(at, at + PIECE)), rate);
      }
      turn.state(`${turn.seconds.toFixed(1)} s, ${file.name}`);
      await this.#hand(turn);
    });
  }

  // Records until `stopRecording`; resolves when the units are there.
  async record() {
    this.player.stop();
    await this.#prepare();
    await this.#said(async (turn) => {
      const recorder = await Recorder.start((samples) =>
        this.#record(turn, recorder.rate, samples));
      try {
        const heard = this.#hearUnits(turn, recorder.rate);
        const stopped = new Promise((resolve) => {
          this.recording = { stop: resolve };
        });
        heard.catch(() => this.stopRecording());
        recorder.begin();
        this.onState("recording");
        await stopped;
        await recorder.stop();
        this.onState("hearing");
        if (this.connections.every(({ task }) => task)) this.#endAudio();
        await heard;
      } finally {
        this.recording = null;
        await recorder.stop();
      }
    });
  }

  #record(turn, rate, samples) {
    const most = this.options.limits.audio_seconds - samples.length / rate;
    if (turn.seconds >= most) {
      this.stopRecording();
      return;
    }
    const pcm = toPcm(samples);
    turn.addSound(pcm, rate);
    turn.state(`${turn.seconds.toFixed(1)} s`);
    if (this.connections.every(({ task }) => task)) this.#push(pcm);
  }

  stopRecording() {
    this.recording?.stop();
  }

  // Lets the model go on; one after the other where there are two.
  async answer() {
    this.stopped = false;
    this.player.stop();
    await this.#prepare();
    const models = this.options.chosen;
    const round = [];
    this.rounds.push(round);
    try {
      for (const [i, connection] of this.connections.entries()) {
        if (this.stopped) break;
        await this.#answer(connection, models[i], round);
      }
    } finally {
      if (!round.length) this.rounds.pop();
    }
  }

  async #answer(connection, model, round) {
    const turn = this.#begin("assistant", title(model.id));
    turn.settings = connection.accepted;
    turn.element.classList.toggle("half", this.connections.length > 1);
    const playing = this.options.aloud ? await this.#play(turn) : null;
    this.onState("answering", turn);
    try {
      turn.finish(await connection.answer((message, samples) => {
        take(turn, message, samples);
        if (samples) playing?.push(samples, turn.rate);
      }));
      round.push(turn);
    } catch (error) {
      if (turn.isEmpty) {
        turn.element.remove();
      } else {
        turn.leavePrompt();
        round.push(turn);
      }
      throw error;
    } finally {
      playing?.finish();
    }
  }

  cancel() {
    this.stopped = true;
    this.player.stop();
    for (const connection of this.connections) {
      if (connection.isOpen) connection.cancel();
    }
  }

  async clear() {
    this.player.stop();
    await this.#each((connection) => connection.clear());
    this.rounds = [];
    this.place.replaceChildren();
  }

  // Takes back the last turn, of each model where there are two.
  async undo() {
    this.player.stop();
    const round = this.rounds.at(-1);
    await this.#each(async (connection, i) => {
      const turn = round.length > 1 ? round[i] : round[0];
      const answered = turn.role === "user" || round.length > i;
      if (answered && turn.inPrompt && !turn.isEmpty) await connection.undo();
    });
    this.rounds.pop();
    for (const turn of round) turn.element.remove();
  }

  async #togglePlay(turn) {
    const playing = turn.playButton.dataset.playing;
    this.player.stop();
    if (playing) return;
    const play = await this.#play(turn);
    for (const chunk of turn.chunks) play.push(chunk, turn.rate);
    play.finish();
  }

  async #play(turn) {
    await this.player.wake(turn.rate || undefined);
    return this.player.begin(
      (seconds) => turn.showPlaying(seconds),
      () => turn.showPlaying(null),
    );
  }
}

function take(turn, message, samples) {
  if (message.type === "tokens") turn.addTokens(message.tokens);
  else if (message.type === "text") turn.addText(message.text);
  else if (samples) turn.addSound(samples, message.sample_rate);
}
