// Figures and models as text.

export const seconds = (value) => `${value.toFixed(value < 10 ? 3 : 1)} s`;

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;

// What a list of models calls one.
export const title = (model) => `${model.name}, ${model.precision}, ${megabytes(model.bytes)}`;

// What is known of a model.
export function describe({ cost, description, error_rates: rates, precision, sample_rate: rate }) {
  const known = [];
  if (cost?.params) known.push(`${(cost.params / 1e6).toFixed(2)} M parameters`);
  if (description) known.push(description);
  known.push(`${rate} Hz`);
  // Error rates were measured before rounding to 8 bits.
  if (rates?.WER !== undefined && precision === "float32") known.push(`WER ${rates.WER.toFixed(2)} %`);
  return known.join(" · ");
}

// {features: 0.1, encoder: 0.3} -> "features 0.100 s, encoder 0.300 s"
export const shares = (times) =>
  Object.entries(times)
    .map(([part, time]) => `${part} ${seconds(time)}`)
    .join(", ");
