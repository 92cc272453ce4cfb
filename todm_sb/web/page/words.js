// Words as a text: todm_sb/dataio/script.py in JavaScript.

// Characters that are words by themselves, for their scripts have no spaces: the wide ones but Hangul.
const WIDE =
  "[\\u2329\\u232a\\u3001-\\u312f\\u3190-\\u3247\\u3250-\\u4dbf\\u4e00-\\ua4cf\\uf900-\\ufaff" +
  "\\ufe10-\\ufe6b\\uff01-\\uff60\\u{16fe0}-\\u{1b2ff}\\u{20000}-\\u{3fffd}]";
const [BEGINS, ENDS] = [new RegExp(`^${WIDE}`, "u"), new RegExp(`${WIDE}$`, "u")];

// A space between two, unless one of them is written without.
export const joinWords = (words) =>
  words.reduce((text, word) => {
    const close = !text || !word || ENDS.test(text) || BEGINS.test(word);
    return text + (close ? "" : " ") + word;
  }, "");
