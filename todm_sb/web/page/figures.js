// Figures and models as text.

export const seconds = (value) => `${value.toFixed(value < 10 ? 3 : 1)} s`;

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;

// Error rates were measured before rounding to 8 bits.
function errorRate({ error_rates: rates, precision }) {
  if (rates?.WER === undefined) return "not measured";
  return `${rates.WER.toFixed(2)} %${precision === "float32" ? "" : " in float32"}`;
}

const parameters = ({ cost }) => (cost?.params ? `${(cost.params / 1e6).toFixed(2)} M` : "");

// What a list of models calls one.
export const title = (model) =>
  `${model.name}, ${model.precision}, ${megabytes(model.bytes)}, WER ${errorRate(model)}`;

// A model's row in the table of them.
export const columns = (model) => [
  model.name,
  model.precision,
  megabytes(model.bytes),
  parameters(model),
  errorRate(model),
];

// What is known of a model.
export function describe(model) {
  const { cost, description, error_rates: rates, sample_rate: rate, scored } = model;
  const known = [];
  if (cost?.params) known.push(`${parameters(model)} parameters`);
  if (description) known.push(description);
  known.push(`${rate} Hz`);
  if (rates?.WER !== undefined) {
    const of = scored ? ` of ${scored.utterances} utterances, ${scored.words} words` : "";
    known.push(`WER ${errorRate(model)}${of}`);
  }
  return known.join(" · ");
}

// {features: 0.1, encoder: 0.3} -> "features 0.100 s, encoder 0.300 s"
export const shares = (times) =>
  Object.entries(times)
    .map(([part, time]) => `${part} ${seconds(time)}`)
    .join(", ");
