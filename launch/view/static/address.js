// What the page shows is in its address, after #: run, source, filters, order, and the key of the open session.

/** Parameters that don't change which sessions are listed. */
const OF_ONE_SESSION = ["key", "colour"];

export function read() {
  return new URLSearchParams(location.hash.slice(1));
}

/** The address with some parameters changed; "" and null remove one. */
export function changed(changes, from = read()) {
  const params = new URLSearchParams(from);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") params.delete(name);
    else params.set(name, String(value));
  }
  return `#${params}`;
}

/** Go to an address. With `replace`, going back passes it over. */
export function go(address, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = address;
  }
}

/** The parameters that say which sessions are listed. */
export function ofList(params) {
  const found = new URLSearchParams(params);
  for (const name of OF_ONE_SESSION) found.delete(name);
  return found;
}
