// The gateway's JSON API. Each request carries the token in a header that no other page can send.

const KEY = "toolgate-token";

/** A request that the gateway refused, or that did not reach it. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// `null` where the gateway asks for none, because a socket protects it.
let token = null;

/** Takes the token of the address that the gateway printed, and removes it from the address. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    history.replaceState(null, "", "#approvals");
    setToken(given);
  } else {
    token = sessionStorage.getItem(KEY);
  }
}

export function setToken(given) {
  token = given;
  if (given === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, given);
}

function headers(more = {}) {
  const own = { "X-Toolgate-Operator": "1", ...more };
  if (token) own.Authorization = `Bearer ${token}`;
  return own;
}

async function failure(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Not from the gateway: the status says enough.
  }
  if (response.status === 401) document.dispatchEvent(new CustomEvent("signed-out"));
  return new ApiError(response.status, body.error ?? `The gateway answered ${response.status}.`);
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "omit", cache: "no-store", redirect: "error", ...options });
  } catch {
    throw new ApiError(0, "The gateway does not answer.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export async function get(path) {
  return (await request(path, { headers: headers() })).json();
}

/** The oldest pending requests, and the number of all. */
export async function pending() {
  const response = await request("/api/approvals", { headers: headers() });
  return [await response.json(), Number(response.headers.get("x-toolgate-pending"))];
}

export async function post(path, body) {
  const options = {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
  };
  return (await request(path, options)).json();
}

// The gateway sends a comment every 15 seconds. A connection that is silent for longer is broken.
const SILENCE = 40_000;

/**
 * Follows the gateway's events until the page is closed. `EventSource` cannot send the token, so this
 * reads the stream itself. `on(event, data)` is called for each event, `state(isLive)` for changes.
 */
export async function follow(on, state) {
  let wait = 1000;
  for (;;) {
    try {
      await readEvents(on, () => {
        wait = 1000;
        state(true);
      });
    } catch (error) {
      if (error.status === 401 || error.status === 403) return state(false);
    }
    state(false);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 15_000);
  }
}

async function readEvents(on, connected) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), SILENCE);
  try {
    const response = await request("/api/events", { headers: headers(), signal: stop.signal });
    connected();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      blocks.forEach((block) => emit(block, on));
    }
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

function emit(block, on) {
  let event = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) data += line.slice(5);
  }
  if (data) on(event, JSON.parse(data));
}
