// Cuts long audio where it is quiet: todm_sb/inference/segments.py in JavaScript.

const BLOCK = 0.1; // seconds between places where a cut is thought of, each the quietest in its block
const WINDOW = 0.2; // seconds around a cut whose level counts
const STEP = 0.01; // seconds of which a level is taken at once
const CUT = 2; // decibels that each cut costs
const LENGTH = 15; // decibels that a part costs that is as long as a part may be
const QUIETEST = -80; // decibels below full scale; digital silence is no quieter

// Where the parts of some audio begin and end, [begin, end] each in samples; none is longer than
// `longest` seconds, which are one at least.
export function segmentsOf(samples, sampleRate, longest) {
  const most = Math.floor(longest * sampleRate);
  if (samples.length <= most) return [[0, samples.length]];
  const { places, costs } = placesOf(samples, sampleRate, longest);
  const cuts = cheapest([0, ...places, samples.length], [0, ...costs, 0], most);
  return cuts.slice(1).map((end, i) => [cuts[i], end]);
}

// The quietest place of each block, and what a cut there costs.
function placesOf(samples, sampleRate, longest) {
  const step = Math.max(1, round(STEP * sampleRate));
  const block = round(BLOCK / STEP);
  const nBlocks = Math.floor(samples.length / (step * block));
  const levels = levelsOf(samples, step, nBlocks * block);
  const quietest = Array.from({ length: nBlocks }, (_, i) => lowest(levels, i * block, (i + 1) * block));
  const lows = quietest.map((at) => levels[at]);
  const reach = round(longest / BLOCK);
  const nearby = lows.map((_, i) => lows[lowest(lows, i - reach, i + reach + 1)]);
  return {
    // In the middle of the step: never at the beginning.
    places: quietest.map((at) => at * step + Math.floor(step / 2)),
    costs: lows.map((low, i) => low - nearby[i] + CUT),
  };
}

// The level around each of the first steps, in decibels.
function levelsOf(samples, step, nSteps) {
  const power = new Float64Array(nSteps);
  for (let i = 0; i < nSteps; i++) {
    for (let k = i * step; k < (i + 1) * step; k++) power[i] += Math.fround(samples[k] ** 2);
    power[i] /= step;
  }
  const width = round(WINDOW / STEP);
  return power.map((_, i) => {
    const begin = i - width / 2;
    let mean = 0;
    for (const value of power.subarray(Math.max(0, begin), begin + width)) mean += value / width;
    return Math.max(10 * Math.log10(mean + 1e-12), QUIETEST);
  });
}

// The cheapest of these places, the first and the last among them, that are never more than `most`
// samples apart.
function cheapest(places, costs, most) {
  const best = [0];
  const before = [0];
  let first = 0;
  for (let i = 1; i < places.length; i++) {
    while (places[first] < places[i] - most) first++;
    best[i] = Infinity;
    for (let k = first; k < i; k++) {
      const total = best[k] + LENGTH * ((places[i] - places[k]) / most) ** 2;
      if (total < best[i]) [best[i], before[i]] = [total, k];
    }
    best[i] += costs[i];
  }
  const found = [places.length - 1];
  while (found[0]) found.unshift(before[found[0]]);
  return found.map((i) => places[i]);
}

// The index of the lowest value from begin on, before end.
function lowest(values, begin, end) {
  let at = Math.max(0, begin);
  for (let i = at + 1; i < Math.min(end, values.length); i++) if (values[i] < values[at]) at = i;
  return at;
}

// As Python does it: halves become even.
const round = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
