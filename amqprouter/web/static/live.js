// The live page. What devices send reaches the document as text only: textContent, never markup.

const MAX_EVENTS = 100;      // rows in the list, and events that wait while it is paused
const MAX_DEVICES = 500;     // devices remembered; the one silent longest is forgotten first
const SHOWN_DEVICES = 100;   // rows in the table
const RATE_SECONDS = 10;     // a device's rate is its mean over so many seconds
const HISTORY = 60;          // points in a tile's curve, one a second
const DRAW_MS = 250;         // the list is redrawn this often, however many events arrive

// document.baseURI may hold the login that was typed into the address bar, and fetch refuses such addresses.
const address = (path) => new URL(path, location.origin);
const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// --- How the daemon is -----------------------------------------------------------------------------------------------

const sum = (figures) => Object.values(figures).reduce((total, figure) => total + figure, 0);
const TILES = [
  { title: "Received", read: (status) => status.counters.received },
  { title: "Stored", read: (status) => status.counters.stored },
  { title: "Throttled", read: (status) => status.counters.throttled, alarming: true },
  { title: "Rejected", read: (status) => sum(status.counters.rejected), alarming: true,
    note: (status) => reasons(status.counters.rejected) },
  { title: "Delivered to users", read: (status) => status.counters.events_delivered },
  { title: "Subscribers", read: (status) => status.gauges.subscribers, level: true,
    note: (status) => `${count(status.counters.slow_subscribers)} were too slow` },
];

let previous = null;

function count(figure) {
  return figure.toLocaleString("en", { maximumFractionDigits: figure < 10 ? 1 : 0 });
}

function reasons(rejected) {
  const [most] = Object.entries(rejected).sort((one, other) => other[1] - one[1]);
  return `${count(sum(rejected))} in all` + (most ? `, mostly ${most[0]}` : "");
}

function makeTile(tile) {
  const box = element("div");
  const term = element("dt", "", tile.title);
  const figure = element("dd", "figure", "–");
  const total = element("dd", "total", "\u00a0");
  const curve = element("dd");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${HISTORY - 1} 30`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const [area, line] = ["area", "curve"].map((name) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", name);
    svg.append(path);
    return path;
  });
  curve.append(svg);
  box.append(term, figure, total, curve);
  byId("tiles").append(box);
  Object.assign(tile, { figure, total, area, line, points: [] });
}

function rate(tile, status) {
  const more = previous ? tile.read(status) - tile.read(previous) : 0;
  const seconds = previous ? status.now - previous.now : 0;
  return more > 0 && seconds > 0 ? more / seconds : 0;  // less than before: the daemon was started again
}

function showTile(tile, status) {
  const now = tile.read(status);
  const value = tile.level ? now : rate(tile, status);
  tile.figure.replaceChildren(count(value), element("span", "unit", tile.level ? "" : " /s"));
  tile.figure.classList.toggle("alarm", Boolean(tile.alarming && value > 0));
  tile.total.textContent = tile.note ? tile.note(status) : `${count(now)} in all`;
  tile.total.title = tile.total.textContent;
  if (!previous && !tile.level) return;
  tile.points.push(value);
  if (tile.points.length > HISTORY) tile.points.shift();
  const top = Math.max(1, ...tile.points);
  const left = HISTORY - tile.points.length;
  const steps = tile.points.map((point, index) => `${left + index} ${(29 - (point / top) * 27).toFixed(1)}`);
  tile.line.setAttribute("d", `M${steps.join("L")}`);
  tile.area.setAttribute("d", `M${left} 30L${steps.join("L")}L${HISTORY - 1} 30Z`);
}

function showParts(parts) {
  byId("parts").replaceChildren(...Object.entries(parts).map(([name, problem]) => {
    const item = element("li", "", problem ? `${name}: ${problem}` : name);
    item.dataset.state = problem ? "bad" : "good";
    return item;
  }));
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

async function poll() {
  try {
    const response = await fetch(address("/status"), { cache: "no-store" });
    if (response.ok) {
      const status = await response.json();
      TILES.forEach((tile) => showTile(tile, status));
      showParts(status.parts);
      byId("about").textContent = `${status.user} · up ${span(status.uptime)} · ${status.version}`;
      previous = status;
    }
  } catch {
    byId("parts").replaceChildren();  // nobody answers, and the link to the events says so
  }
  setTimeout(poll, 1000);
}

// --- Devices ---------------------------------------------------------------------------------------------------------

const devices = new Map();  // the one heard of last is last

function noteDevice(event) {
  const device = devices.get(event.device) ?? { name: event.device, fresh: 0, bins: [], row: null };
  devices.delete(event.device);
  devices.set(event.device, device);
  device.fresh += 1;
  device.event = event;
  device.seen = Date.now();
  if (devices.size > MAX_DEVICES) {
    const [oldest] = devices.values();
    oldest.row?.remove();
    devices.delete(oldest.name);
  }
}

function makeRow(device) {
  const row = element("tr");
  const button = element("button", "", device.name);
  button.type = "button";
  button.title = `Only events of ${device.name}`;
  button.addEventListener("click", () => follow(`${device.name}.#`));
  const classes = ["", "number", "topic", "value", "number"];
  const [name, rateCell, topicCell, valueCell, ageCell] = classes.map((one) => row.appendChild(element("td", one)));
  name.append(button);
  Object.assign(device, { row, rateCell, topicCell, valueCell, ageCell });
}

function showDevices() {
  for (const device of devices.values()) {
    device.bins.push(device.fresh);
    device.fresh = 0;
    if (device.bins.length > RATE_SECONDS) device.bins.shift();
    device.rate = device.bins.reduce((total, bin) => total + bin, 0) / device.bins.length;
  }
  const body = byId("devices");
  // Rows stay where they are while somebody points at them or moves among them with the keyboard.
  const held = body.matches(":hover") || body.contains(document.activeElement);
  const all = [...devices.values()];
  const shown = held ? all.filter((device) => device.row?.isConnected)
    : all.sort((one, other) => other.rate - one.rate || (one.name < other.name ? -1 : 1)).slice(0, SHOWN_DEVICES);
  for (const device of shown) {
    if (!device.row) makeRow(device);
    device.rateCell.textContent = device.rate.toFixed(device.rate < 10 ? 1 : 0);
    device.topicCell.textContent = device.event.topic;
    device.valueCell.textContent = preview(device.event.body);
    device.ageCell.textContent = span((Date.now() - device.seen) / 1000);
  }
  const rows = shown.map((device) => device.row);
  const moved = rows.length !== body.children.length || rows.some((row, index) => body.children[index] !== row);
  if (moved && !held) body.replaceChildren(...rows);
  byId("devices-empty").hidden = devices.size > 0;
  byId("devices-note").textContent = devices.size > rows.length ? `busiest ${rows.length} of ${devices.size}`
    : devices.size ? `${devices.size} seen` : "";
}

// --- Events ----------------------------------------------------------------------------------------------------------

const list = byId("events");
let waiting = [];
let missed = 0;
let paused = false;

function preview(body) {
  if (typeof body === "string") return body.slice(0, 200);
  if (body && typeof body.base64 === "string" && Object.keys(body).length === 1) {
    return `binary, ${count(Math.floor(body.base64.replace(/=+$/, "").length * 0.75))} bytes`;
  }
  return JSON.stringify(body).slice(0, 200);
}

function clock(iso) {
  const moment = new Date(iso);
  if (Number.isNaN(moment.getTime())) return "–";
  return moment.toLocaleTimeString("en-GB") + "." + String(moment.getMilliseconds()).padStart(3, "0");
}

function eventRow(event) {
  const item = element("li");
  if (event.gap) {
    item.append(element("p", "gap", event.gap));
    return item;
  }
  const details = element("details");
  const summary = element("summary");
  const time = element("time", "", clock(event.received_at));
  time.dateTime = event.received_at;
  const key = element("span", "key", event.device);
  key.append(element("span", "topic", ` ${event.topic}`));
  key.title = `${event.device}.${event.topic}`;
  summary.append(time, key, element("span", "value", preview(event.body)));
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.children.length === 1) details.append(element("pre", "", JSON.stringify(event, null, 2)));
  });
  item.append(details);
  return item;
}

function enqueue(event) {
  waiting.push(event);
  if (waiting.length > MAX_EVENTS) waiting.shift();
  missed += 1;
}

function drawEvents() {
  if (paused) {
    byId("pause").textContent = missed ? `Resume (${count(missed)})` : "Resume";
    return;
  }
  if (!waiting.length) return;
  list.prepend(...waiting.reverse().map(eventRow));
  waiting = [];
  missed = 0;
  while (list.children.length > MAX_EVENTS) list.lastElementChild.remove();
  byId("events-empty").hidden = true;
}

function togglePause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Resume" : "Pause";
  drawEvents();
}

// --- The link to the daemon ------------------------------------------------------------------------------------------

let source = null;
let pattern = "#";
let lastId = "";
let patience = 1000;
let retrying = null;

function showLink(state, text) {
  byId("link").dataset.state = state;
  byId("link").textContent = text;
}

function connect() {
  clearTimeout(retrying);
  source?.close();
  const url = address("/events");
  url.searchParams.set("topic", pattern);
  if (lastId) url.searchParams.set("lastEventID", lastId);
  const mine = source = new EventSource(url);
  mine.onopen = () => {
    patience = 1000;
    showLink("good", "live");
  };
  mine.onmessage = (message) => {
    lastId = message.lastEventId;
    const event = JSON.parse(message.data);
    noteDevice(event);
    enqueue(event);
  };
  mine.addEventListener("gap", (message) => {
    lastId = message.lastEventId;
    enqueue({ gap: "Some events are missing here: the daemon no longer has them." });
  });
  mine.onerror = () => {
    if (mine.readyState === EventSource.CLOSED) explain(url, mine);
    else showLink("wait", "reconnecting");
  };
}

// A browser gives up on any answer but 200, and tells the script nothing: ask again what the answer was.
async function explain(url, failed) {
  let status = 0;
  try {
    status = (await fetch(url, { method: "HEAD", cache: "no-store" })).status;
  } catch {
    // no answer at all: as good as a 503
  }
  if (source !== failed) return;
  if (status === 400) {
    showLink("bad", "not connected");
    byId("events-empty").hidden = true;
    byId("problem").textContent = `“${pattern}” is not a topic pattern: words are separated by single dots, `
      + "and * and # stand for whole words.";
    return;
  }
  const words = { 401: "login needed: load the page again", 503: "the daemon is busy" };
  showLink("wait", words[status] ?? "reconnecting");
  retrying = setTimeout(connect, patience * (1 + Math.random()));
  patience = Math.min(patience * 2, 30000);
}

function follow(wanted) {
  pattern = wanted.trim() || "#";
  byId("pattern").value = pattern;
  byId("problem").textContent = "";
  history.replaceState(null, "", pattern === "#" ? location.pathname : `#${encodeURIComponent(pattern)}`);
  waiting = [];
  missed = 0;
  lastId = "";
  list.replaceChildren();
  byId("events-empty").hidden = false;
  showLink("wait", "connecting");
  connect();
}

// --- Begin -----------------------------------------------------------------------------------------------------------

byId("filter").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  follow(byId("pattern").value);
});
byId("pause").addEventListener("click", togglePause);
document.addEventListener("keydown", (pressed) => {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || pressed.target.matches("input")) return;
  if (pressed.key === "/") {
    pressed.preventDefault();
    byId("pattern").select();
  } else if (pressed.key === "p") togglePause();
});

TILES.forEach(makeTile);
poll();
setInterval(showDevices, 1000);
setInterval(drawEvents, DRAW_MS);

let wanted = "#";
try {
  wanted = decodeURIComponent(location.hash.slice(1));
} catch {
  // not of our making: begin with everything
}
follow(wanted);
