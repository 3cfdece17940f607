// A conversation as a file.

export function save(turns) {
  const content = {
    format: "spiritlm-conversation",
    version: 1,
    saved: new Date().toISOString(),
    turns: turns.map(written),
  };
  const type = "application/json";
  const blob = new Blob([JSON.stringify(content, null, 1)], { type });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `conversation-${content.saved.replaceAll(":", "-")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function written(turn) {
  return {
    role: turn.role,
    text: turn.text,
    units: turn.units,
    tokens: turn.tokens,
    settings: turn.settings,
    end: turn.end,
    in_prompt: turn.inPrompt,
    wav: turn.chunks.length ? base64(wav(turn.chunks, turn.rate)) : null,
  };
}

// RIFF WAVE of 16 bits and one channel.
function wav(chunks, rate) {
  const count = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const bytes = new Uint8Array(44 + 2 * count);
  const view = new DataView(bytes.buffer);
  const letters = (at, word) =>
    [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  letters(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  letters(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const chunk of chunks) {
    for (const sample of chunk) {
      view.setInt16(at, sample, true);
      at += 2;
    }
  }
  return bytes;
}

function base64(bytes) {
  let letters = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    letters += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(letters);
}
