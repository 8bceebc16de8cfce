// Asks the viewer's server; nothing else is ever asked.

const running = new Map();

/** Drop what is being asked on a channel. */
export function stop(channel) {
  running.get(channel)?.abort();
}

/** The answer to a question. A later question on the same channel ends this one, which then returns null. */
export async function ask(path, params, channel) {
  stop(channel);
  const control = new AbortController();
  running.set(channel, control);
  try {
    const response = await fetch(`/api/${path}?${params}`, { signal: control.signal });
    const found = await response.json();
    if (!response.ok) throw new Error(found.error ?? `the server answered ${response.status}`);
    return found;
  } catch (error) {
    if (control.signal.aborted) return null;
    throw error;
  } finally {
    if (running.get(channel) === control) running.delete(channel);
  }
}
