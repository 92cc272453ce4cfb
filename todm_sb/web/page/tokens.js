// Labels as text: todm_sb/dataio/detokenizer.py in JavaScript.

const WORD_MARK = "\u2581";
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// The pieces of a tokens.txt, by id: each line holds a piece and its id.
export const readTokens = async (url) => piecesOf(await (await fetch(url)).text());

export const piecesOf = (tokens) =>
  tokens
    .trimEnd()
    .split("\n")
    .map((line) => pieceOf(line.slice(0, line.lastIndexOf(" "))));

// The text of label ids, as SentencePiece decodes them.
export function textOf(ids, pieces) {
  let text = "";
  let bytes = [];
  for (const id of ids) {
    const piece = pieces[id];
    if (typeof piece === "number") {
      bytes.push(piece);
      continue;
    }
    text += charactersOf(bytes);
    bytes = [];
    // A text does not begin with the mark of its first word.
    const said = text === "" && piece.startsWith(WORD_MARK) ? piece.slice(1) : piece;
    text += said.replaceAll(WORD_MARK, " ");
  }
  return text + charactersOf(bytes);
}

// Text, or the value of a byte; one below 128 is a character by itself.
function pieceOf(name) {
  if (name === "<blk>" || name === "<unk>") return " \u2047 ";
  const byte = /^<0x([0-9A-F]{2})>$/.exec(name);
  if (!byte) return name.replaceAll("<0x0A>", "\n");
  const value = parseInt(byte[1], 16);
  return value < 128 ? String.fromCharCode(value) : value;
}

// UTF-8; each byte of no character is U+FFFD.
function charactersOf(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const lead = bytes[at];
    const n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    try {
      text += UTF8.decode(Uint8Array.from(bytes.slice(at, at + n)));
      at += n;
    } catch {
      text += "\ufffd";
      at += 1;
    }
  }
  return text;
}
