// The event streams of all tabs of a browser, which opens six connections to a host and no more: tabs that follow the
// same pattern share one. It runs in a SharedWorker, or in the page where there is none, and talks through ports:
// { follow: pattern, after: id }, { here: true } and { bye: true } come in; { link, text, problem } and
// { type, data, id } go out.

const MOST = 4;              // streams; two connections are left for everything else
const QUIET_MS = 200000;     // a tab that has said nothing for so long is gone; hidden ones get to it once a minute
const LONGEST_MS = 30000;    // the ceiling of the pauses between tries
const TYPES = ["message", "limits", "place", "gap"];

class Stream {
  constructor(base, pattern, after, ended) {
    Object.assign(this, { base, pattern, after, ended, ports: new Set(), patience: 1000, told: { link: "wait", text: "connecting" } });
    this.connect();
  }

  add(port) {
    this.ports.add(port);
    port.postMessage(this.told);
  }

  remove(port) {
    this.ports.delete(port);
    if (!this.ports.size) this.end();
  }

  end() {
    clearTimeout(this.retrying);
    this.source.close();
    this.ended();
  }

  tell(message) {
    for (const port of this.ports) port.postMessage(message);
  }

  show(link, text, problem = "") {
    this.told = { link, text, problem };
    this.tell(this.told);
  }

  connect() {
    const url = new URL("events", this.base);
    url.searchParams.set("topic", this.pattern);
    if (this.after) url.searchParams.set("lastEventID", this.after);
    const source = this.source = new EventSource(url);
    source.onopen = () => {
      this.patience = 1000;
      this.show("good", "live");
    };
    for (const type of TYPES) {
      source.addEventListener(type, ({ data, lastEventId }) => {
        this.after = lastEventId;
        this.tell({ type, data, id: lastEventId });
      });
    }
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) this.explain(url, source);
      else this.show("wait", "reconnecting");
    };
  }

  // A browser gives up on any answer but 200, and tells the script nothing: ask again what the answer was.
  async explain(url, failed) {
    let status = 0;
    try {
      status = (await fetch(url, { method: "HEAD", cache: "no-store" })).status;
    } catch {
      // no answer at all: as good as a 503
    }
    if (this.source !== failed || !this.ports.size) return;
    if (status === 400) {
      this.show("bad", "not connected", `“${this.pattern}” is not a topic pattern: words are separated by single dots, `
        + "and * and # stand for whole words.");
      return;
    }
    const words = { 401: "login needed: load the page again", 503: "the daemon is busy" };
    this.show("wait", words[status] ?? "reconnecting");
    this.retrying = setTimeout(() => this.connect(), this.patience * (1 + Math.random()));
    this.patience = Math.min(this.patience * 2, LONGEST_MS);
  }
}

export class Streams {
  constructor(base) {
    this.base = base;          // the page's address, without the login that was typed into the address bar
    this.streams = new Map();  // by pattern
    this.tabs = new Map();     // by port: { stream, heard }
    setInterval(() => this.forget(), QUIET_MS / 4);
  }

  add(port) {
    port.onmessage = ({ data }) => this.take(port, data);
  }

  take(port, { follow, after, bye }) {
    const tab = this.tabs.get(port) ?? {};
    tab.heard = Date.now();
    if (bye) this.leave(port);
    else if (follow !== undefined) {
      this.leave(port);
      this.follow(port, follow, after);
    } else if (!tab.stream) port.postMessage({ lost: true });  // it slept, and was taken for gone
  }

  follow(port, pattern, after) {
    if (!this.streams.has(pattern) && this.streams.size >= MOST) {
      port.postMessage({ link: "bad", text: "not connected", problem:
        `Other tabs of this browser follow ${MOST} other patterns, and it has no connections for more: `
        + "follow one of theirs, or close a tab." });
      return;
    }
    if (!this.streams.has(pattern)) {
      this.streams.set(pattern, new Stream(this.base, pattern, after, () => this.streams.delete(pattern)));
    }
    const stream = this.streams.get(pattern);
    this.tabs.set(port, { stream, heard: Date.now() });
    stream.add(port);
  }

  leave(port) {
    this.tabs.get(port)?.stream.remove(port);
    this.tabs.delete(port);
  }

  forget() {
    for (const [port, { heard }] of this.tabs) if (heard < Date.now() - QUIET_MS) this.leave(port);
  }
}
