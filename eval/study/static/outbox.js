// Talking to the server. An answer stays in the browser's storage until the server has said that it is on disk, so
// neither a server that is down nor a closed window loses it. Each has an id of its own: sent twice, it counts once.

export const HTTP_PROBLEM = "HttpProblem";

export class Server {
  constructor(said) {
    this.said = said; // called with a line to show, or null when all is well
    this.code = "";
    this.key = "";
  }

  open(key, code) {
    this.key = `moviegen-study-${key}`;
    this.code = code;
    this.remember("code", code);
  }

  // One request; errors with `status` were answered by the server, others mean that it was not reached.
  async ask(method, path, body) {
    const headers = { "X-Code": this.code };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const answer = await fetch(path, { method, headers, body: body === undefined ? (method === "POST" ? "" : undefined) : JSON.stringify(body), cache: "no-store" });
    const value = await answer.json().catch(() => ({}));
    if (answer.ok) return value;
    const error = new Error(value.error || `the server answered ${answer.status}`);
    error.name = HTTP_PROBLEM;
    error.status = answer.status;
    throw error;
  }

  // Repeats a request until the server has answered it.
  async persist(method, path, body, again) {
    for (let tries = 0; ; tries += 1) {
      try {
        const value = await this.ask(method, path, body);
        this.said(null);
        return value;
      } catch (error) {
        if (error.name === HTTP_PROBLEM && error.status < 500 && error.status !== 429) { this.said(null); throw error; }
        this.said("No connection to the server. Your answer is kept here and sent as soon as it is back.");
        await new Promise((resolve) => setTimeout(resolve, Math.min(8000, 300 * 2 ** tries) * (0.7 + 0.6 * Math.random())));
        if (again) again();
      }
    }
  }

  // Sends an answer for as long as it takes; returns the state after it.
  async vote(cast) {
    this.remember("outbox", JSON.stringify(cast));
    try {
      return await this.persist("POST", "api/rater/vote", cast, () => { cast.details.sent_again += 1; });
    } finally {
      this.remember("outbox", null); // saved, or refused for good
    }
  }

  // An answer of this rater that an earlier page could not send.
  unsent() {
    try {
      const value = JSON.parse(localStorage.getItem(`${this.key}-outbox-${this.code}`));
      return value && value.id ? value : null;
    } catch { return null; }
  }

  remember(what, value) {
    const name = what === "outbox" ? `${this.key}-outbox-${this.code}` : `${this.key}-${what}`;
    try {
      if (value === null) localStorage.removeItem(name); else localStorage.setItem(name, value);
    } catch { /* storage is switched off: the page still works while it is open */ }
  }

  recall(key) {
    try { return localStorage.getItem(`moviegen-study-${key}-code`) || ""; } catch { return ""; }
  }
}

// Videos by url, loaded whole and kept while they are needed.
export class Videos {
  constructor() { this.known = new Map(); }

  get(url) {
    if (!this.known.has(url)) {
      const loading = this.fetch(url);
      loading.catch(() => this.known.delete(url));
      this.known.set(url, loading);
    }
    return this.known.get(url);
  }

  async fetch(url) {
    for (let tries = 0; ; tries += 1) {
      try {
        const answer = await fetch(url);
        if (!answer.ok) throw new Error(`video: the server answered ${answer.status}`);
        return URL.createObjectURL(await answer.blob());
      } catch (error) {
        if (tries === 8) throw error;
        await new Promise((resolve) => setTimeout(resolve, Math.min(8000, 300 * 2 ** tries)));
      }
    }
  }

  keepOnly(urls) {
    for (const [url, loading] of this.known) {
      if (!urls.includes(url)) {
        this.known.delete(url);
        loading.then((blob) => URL.revokeObjectURL(blob), () => {});
      }
    }
  }
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
