// Memory of the page with its workers, in bytes; null where a browser does not tell.
export async function measurePage() {
  if (!crossOriginIsolated || !performance.measureUserAgentSpecificMemory) return null;
  return (await performance.measureUserAgentSpecificMemory()).bytes;
}
