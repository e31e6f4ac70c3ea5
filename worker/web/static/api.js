// Owns how the page talks to the API: always its own origin, never for long, and every failure with words to show.

const TIMEOUT_MS = 8000;

/** What the API would not do, or that it was not there: `kind` is "away", "signed-out" or "refused". */
export class ApiError extends Error {
  constructor(kind, message, code = null) {
    super(message);
    this.kind = kind;
    this.code = code;
  }
}

/** Read an address of the API. */
export function read(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return ask("GET", query.size ? `${path}?${query}` : path);
}

/** Have something done. */
export function act(path) {
  return ask("POST", path);
}

async function ask(method, path) {
  let answer;
  let body;
  try {
    answer = await fetch(path, {
      method,
      headers: { accept: "application/json" },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    body = await answer.json();
  } catch (error) {
    throw new ApiError("away", answer ? "its answer cannot be read" : "it does not answer");
  }
  if (answer.ok) return body;
  if (answer.status === 401) throw new ApiError("signed-out", "the session has ended", body.code);
  const words = body.detail ?? body.title ?? `status ${answer.status}`;
  throw new ApiError(answer.status >= 500 ? "away" : "refused", words, body.code);
}
