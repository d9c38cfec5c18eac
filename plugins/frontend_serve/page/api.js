// Talks to the server this page came from.

// The server cannot be reached.
export class Lost extends Error {}

// The server said no, and why.
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

let token = "";
try { token = sessionStorage.getItem("camelbell.token") ?? ""; } catch { /* forbidden */ }

export function useToken(given) {
  token = given;
  try { sessionStorage.setItem("camelbell.token", given); } catch { /* forbidden */ }
}

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let reply;
  try {
    reply = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Lost(error.message);
  }
  if (reply.ok) return reply;
  const told = await reply.json().catch(() => null);
  throw new Refused(reply.status, told?.error?.message ?? reply.statusText, reply.headers.get("Retry-After"));
}

export async function models() {
  return (await (await call("v1/models")).json()).data;
}

export async function story(name, when, language) {
  return (await call(`camelbell/story/${encodeURIComponent(name)}/${when}?language=${language}`)).json();
}

// Yields the chunks of a streamed reply.
export async function* ask(request, signal) {
  const reply = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true }),
    signal,
  });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Lost(error.message);
    }
    if (piece.done) throw new Lost("the reply broke off");
    const lines = (text + piece.value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") return;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Refused(500, chunk.error.message);
      yield chunk;
    }
  }
}

// Returns once the server answers again.
export async function waitForServer() {
  for (;;) {
    await new Promise((done) => setTimeout(done, 1000));
    if (await fetch("healthz", { cache: "no-store" }).then((reply) => reply.ok, () => false)) return;
  }
}
