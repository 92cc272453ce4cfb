// Labels as text.

// The pieces of a tokens.txt, by id: each line holds a piece and its id.
export async function readTokens(url) {
  const lines = (await (await fetch(url)).text()).trimEnd().split("\n");
  return lines.map((line) => line.slice(0, line.lastIndexOf(" ")));
}

// The words of label ids; pieces mark the beginning of a word by "\u2581".
export const textOf = (ids, pieces) =>
  ids
    .map((id) => pieces[id])
    .join("")
    .replaceAll("\u2581", " ")
    .trim();
