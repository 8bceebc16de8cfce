// Asks the inbox's server, with the token that the person typed. It stays in this tab.

const TOKEN = "agile-ray inbox token";

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

/** The reply to a request; with a body, it is a POST. */
export async function request(path, body = null) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN) ?? ""}` };
  const response = await fetch(`/api/${path}`, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(found.error ?? `the server answered ${response.status}`, response.status);
  return found;
}
