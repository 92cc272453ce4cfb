// Files as samples.

// The mean of the channels at the sampling rate that the network takes.
export async function decode(blob, sampleRate, name) {
  // A context decodes to its own rate; nothing is rendered with it.
  const context = new OfflineAudioContext(1, 1, sampleRate);
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error(`${name} cannot be read as audio`);
  }
  if (audio.length === 0) throw new Error(`${name} holds no audio`);
  const mean = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    audio.getChannelData(channel).forEach((sample, i) => (mean[i] += sample / audio.numberOfChannels));
  }
  return mean;
}
