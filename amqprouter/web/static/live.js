// The live page. What devices send reaches the document as text only: textContent, never markup.

const MAX_EVENTS = 100;      // rows in the list, and events that wait while it is paused
const MAX_DEVICES = 500;     // devices remembered; the one silent longest is forgotten first
const SHOWN_DEVICES = 100;   // rows in the table
const RATE_SECONDS = 10;     // a rate counted here, for want of the daemon's, is the mean over so many seconds
const HISTORY = 300;         // seconds in the plot, and at first
const LEAST_HISTORY = 60;
const STALE_SECONDS = 4;     // without an answer, which comes every second
const DRAW_MS = 250;         // the list is redrawn this often, however many events arrive

// document.baseURI may hold the login that was typed into the address bar, and fetch refuses such addresses.
// Everything is beside the page, wherever a proxy has put that.
const address = (path) => new URL(path, location.origin + location.pathname);
const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// --- How the daemon is -----------------------------------------------------------------------------------------------

const sum = (figures) => Object.values(figures ?? {}).reduce((total, figure) => total + figure, 0);
const ran = (scheduled) => sum(Object.fromEntries(Object.entries(scheduled).filter(([key]) => key.startsWith("run "))));
// A parked message is acknowledged twice: where it came from, and where it was parked.
const settled = ({ counters }) => counters.settled - (counters.parked ?? 0);
const STAGES = [
  { title: "Received", read: ({ counters }) => counters.received },
  { title: "Authenticated", read: ({ counters }) => counters.authenticated },
  { title: "Scheduled", read: ({ counters }) => ran(counters.scheduled),
    note: ({ gauges }) => gauges.waiting ? `${count(gauges.waiting)} wait for their turn` : "" },
  { title: "Routed", read: ({ counters }) => counters.routed,
    note: ({ gauges }) => gauges.in_flight ? `${count(gauges.in_flight)} under way` : "" },
  { title: "Delivered", read: ({ counters }) => counters.stored + counters.published,
    note: ({ counters }) => `${count(counters.stored)} stored in all` },
  { title: "Settled", read: settled,
    note: ({ gauges }) => gauges.unacked ? `${count(gauges.unacked)} not yet` : "" },
];
const refused = ({ counters }) => counters.dropped + sum(counters.rejected) + sum(counters.dead_lettered);
const LINES = [
  { name: "received", read: ({ counters }) => counters.received },
  { name: "settled", read: settled },
  { name: "refused", read: refused },
];
const HELD = [  // what is now is shown as it is, and what is counted as a rate with its total
  { title: "Waiting now", now: ({ gauges }) => gauges.waiting ?? 0 },
  { title: "Throttled", read: ({ counters }) => counters.throttled },
  { title: "Dropped", read: ({ counters }) => counters.dropped },
  { title: "Parked now", now: ({ counters }) => Math.max(0, (counters.parked ?? 0) - (counters.unparked ?? 0)) },
  { title: "Rejected", read: ({ counters }) => sum(counters.rejected) },
  { title: "Dead-lettered", read: ({ counters }) => sum(counters.dead_lettered) },
];

let previous = null;
let answered = Date.now();
const points = [];  // [moment, rate, rate, …], one for each look

function count(figure) {
  return figure.toLocaleString("en", { maximumFractionDigits: figure < 10 ? 1 : 0 });
}

function rate(read, status) {
  const more = previous ? read(status) - read(previous) : 0;
  const seconds = previous ? status.now - previous.now : 0;
  return more > 0 && seconds > 0 ? more / seconds : 0;  // less than before: the daemon was started again
}

function makeStage(stage) {
  const box = element("li");
  stage.figure = element("p", "figure", "–");
  stage.total = element("p", "total", "\u00a0");
  box.append(element("p", "title", stage.title), stage.figure, stage.total);
  byId("stages").append(box);
}

function showStage(stage, status) {
  stage.figure.replaceChildren(count(rate(stage.read, status)), element("span", "unit", " /s"));
  stage.total.textContent = stage.total.title = stage.note?.(status) || `${count(stage.read(status))} in all`;
}

function makeLine(line) {
  line.path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.path.setAttribute("class", line.name);
  document.querySelector("#chart svg").append(line.path);
  line.figure = element("dd", "", "–");
  byId("legend").append(element("dt", line.name, line.name), line.figure);
}

function showChart(status) {
  const rates = LINES.map((line) => rate(line.read, status));
  LINES.forEach((line, index) => { line.figure.textContent = `${count(rates[index])} /s`; });
  if (!previous) return;
  points.push([status.now, ...rates]);
  while (points[0][0] < status.now - HISTORY) points.shift();
  const seconds = Math.max(LEAST_HISTORY, status.now - points[0][0]);
  byId("chart-start").textContent = `${span(seconds)} ago`;
  const most = Math.max(1, ...points.flatMap(([, ...figures]) => figures));
  const unit = 10 ** Math.floor(Math.log10(most));
  const top = [1, 2, 5, 10].map((step) => step * unit).find((step) => step >= most);
  byId("chart-top").textContent = `${count(top)} /s`;
  LINES.forEach((line, index) => {
    const steps = points.map((point) =>
      `${(300 * (1 - (status.now - point[0]) / seconds)).toFixed(1)} ${(99 - point[index + 1] / top * 98).toFixed(1)}`);
    line.path.setAttribute("d", `M${steps.join("L")}`);
  });
}

function showHeld(status) {
  byId("held").replaceChildren(...HELD.map(({ title, now, read }) => {
    const figure = now ? now(status) : rate(read, status);
    const value = element("dd", figure > 0 ? "alarm" : "", count(figure));
    if (read) value.append(element("span", "unit", " /s"), element("span", "total", `${count(read(status))} in all`));
    const box = element("div");
    box.append(element("dt", "", title), value);
    return box;
  }));
  const reasons = Object.entries(status.counters.rejected).sort((one, other) => other[1] - one[1]);
  byId("reasons").replaceChildren(...reasons.map(([reason, figure]) => {
    const item = element("li", "", reason);
    item.append(element("span", "", count(figure)));
    return item;
  }));
  const { subscribers = 0 } = status.gauges;
  const { slow_subscribers: slow } = status.counters;
  byId("audience").textContent = `${count(subscribers)} subscriber${subscribers === 1 ? "" : "s"}, `
    + `${count(rate(({ counters }) => counters.events_delivered, status))} events/s`
    + (slow ? `, ${count(slow)} were too slow` : "");
}

// Only trouble is told part by part.
function showParts(parts) {
  const troubled = Object.entries(parts).filter(([, problem]) => problem);
  const all = Object.keys(parts);
  const fine = element("li", "", `${all.length - troubled.length} of ${all.length} parts ready`);
  fine.title = all.filter((name) => !parts[name]).join(", ");
  fine.dataset.state = troubled.length ? "wait" : "good";
  byId("parts").replaceChildren(...troubled.map(([name, problem]) => {
    const item = element("li", "", `${name}: ${problem}`);
    item.dataset.state = "bad";
    return item;
  }), fine);
}

// Figures that are not of now must not look as if they were.
function showAge() {
  const seconds = (Date.now() - answered) / 1000;
  const stale = seconds > STALE_SECONDS;
  document.body.classList.toggle("stale", stale);
  if (!stale) return;
  const item = element("li", "", `no answer for ${span(seconds)}; what is shown is of then`);
  item.dataset.state = "bad";
  byId("parts").replaceChildren(item);
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

async function poll() {
  try {
    const response = await fetch(address("status"), { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (response.ok) {
      const status = await response.json();
      answered = Date.now();
      STAGES.forEach((stage) => showStage(stage, status));
      showChart(status);
      showHeld(status);
      noteFigures(status.devices);
      showParts(status.parts);
      byId("about").textContent = `${status.user} · up ${span(status.uptime)} · ${status.version} (${status.build})`;
      previous = status;
    }
  } catch {
    // nobody answers: `showAge` says so
  }
  setTimeout(poll, 1000);
}

// --- Devices ---------------------------------------------------------------------------------------------------------

const devices = new Map();  // the one heard of last is last
let order = "rate";

function deviceOf(name) {
  const device = devices.get(name) ?? { name, fresh: 0, bins: [], row: null };
  devices.delete(name);
  devices.set(name, device);
  device.seen = Date.now();
  if (devices.size > MAX_DEVICES) {
    const [oldest] = devices.values();
    oldest.row?.remove();
    devices.delete(oldest.name);
  }
  return device;
}

function noteDevice(event) {
  const device = deviceOf(event.device);
  device.fresh += 1;
  device.event = event;
}

// What the daemon says of the busiest. The others are as far as their events tell.
function noteFigures(busiest) {
  for (const device of devices.values()) device.figures = null;
  for (const figures of busiest) deviceOf(figures.device).figures = figures;
}

function makeRow(device) {
  const row = element("tr");
  const button = element("button", "", device.name);
  button.type = "button";
  button.title = `Only events of ${device.name}`;
  button.addEventListener("click", () => follow(`${device.name}.#`));
  const classes = ["", "number", "number", "number", "number", "wide"];
  const [name, ...cells] = classes.map((one) => row.appendChild(element("td", one)));
  name.append(button);
  Object.assign(device, { row, cells });
}

function fillRow(device) {
  const [rateCell, waitingCell, parkedCell, refusedCell, latest] = device.cells;
  const { waiting = 0, parked = 0, refused: lost = 0, limit, state } = device.figures ?? {};
  rateCell.textContent = device.rate.toFixed(device.rate < 10 ? 1 : 0);
  waitingCell.textContent = waiting ? count(waiting) : "";
  parkedCell.textContent = parked ? count(parked) : "";
  refusedCell.textContent = lost ? count(lost) : "";
  waitingCell.classList.toggle("alarm", waiting > 0);
  parkedCell.classList.toggle("alarm", parked > 0);
  refusedCell.classList.toggle("bad", lost > 0);
  const held = limit || (state && state !== "running" ? state : "");
  latest.textContent = held || (device.event ? `${device.event.topic}  ${preview(device.event.body)}` : "");
  latest.title = held ? `Held up by ${held}` : device.event ? `${device.event.topic}, ${clock(device.event.received_at)}` : "";
  latest.classList.toggle("alarm", Boolean(held));
}

function showDevices() {
  for (const device of devices.values()) {
    device.bins.push(device.fresh);
    device.fresh = 0;
    if (device.bins.length > RATE_SECONDS) device.bins.shift();
    device.rate = device.figures?.rate ?? device.bins.reduce((total, bin) => total + bin, 0) / device.bins.length;
  }
  const body = byId("devices");
  // Rows stay where they are while somebody points at them or moves among them with the keyboard.
  const held = body.matches(":hover") || body.contains(document.activeElement);
  const all = [...devices.values()];
  const figure = (device) => order === "rate" ? device.rate : device.figures?.[order] ?? 0;
  const shown = held ? all.filter((device) => device.row?.isConnected)
    : all.sort((one, other) => figure(other) - figure(one) || other.rate - one.rate || (one.name < other.name ? -1 : 1))
      .slice(0, SHOWN_DEVICES);
  for (const device of shown) {
    if (!device.row) makeRow(device);
    fillRow(device);
  }
  const rows = shown.map((device) => device.row);
  const moved = rows.length !== body.children.length || rows.some((row, index) => body.children[index] !== row);
  if (moved && !held) body.replaceChildren(...rows);
  byId("devices-empty").hidden = devices.size > 0;
  byId("devices-note").textContent = devices.size > rows.length ? `busiest ${rows.length} of ${devices.size}`
    : devices.size ? `${devices.size} seen` : "";
}

function sortBy(column) {
  order = column;
  for (const button of document.querySelectorAll("[data-sort]")) {
    const mine = button.dataset.sort === column;
    if (mine) button.closest("th").setAttribute("aria-sort", "descending");
    else button.closest("th").removeAttribute("aria-sort");
  }
  showDevices();
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

// The daemon's word that a device is over a limit.
function limited({ fate, limit, of, retry_after: wait, messages }) {
  return `${fate}${limit ? `: over ${limit} of ${of}, room in ${count(wait)} s` : ""} (messages: ${messages})`;
}

// An event is whatever somebody published: only those of devices have a device, a topic and a body.
function read(message) {
  let body = message.data;
  try {
    body = JSON.parse(body);
    if (typeof body.device === "string" && typeof body.topic === "string" && "body" in body) return body;
  } catch {
    // plain text, or null
  }
  return { device: message.type, topic: "", received_at: new Date().toISOString(), body, foreign: true };
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
  if (typeof event.publisher === "string") {
    key.append(element("span", "via", ` via ${event.publisher}`));
    key.title += `, published by ${event.publisher}`;
  }
  const value = element("span", event.limited ? "value alarm" : "value");
  value.textContent = event.limited ? limited(event.body) : preview(event.body);
  summary.append(time, key, value);
  details.append(summary);
  details.addEventListener("toggle", () => {
    const { limited: _, foreign: __, ...told } = event;
    if (details.children.length === 1) details.append(element("pre", "", JSON.stringify(told, null, 2)));
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
  const url = address("events");
  url.searchParams.set("topic", pattern);
  if (lastId) url.searchParams.set("lastEventID", lastId);
  const mine = source = new EventSource(url);
  mine.onopen = () => {
    patience = 1000;
    showLink("good", "live");
  };
  mine.onmessage = (message) => {
    lastId = message.lastEventId;
    const event = read(message);
    if (!event.foreign) noteDevice(event);
    enqueue(event);
  };
  mine.addEventListener("limits", (message) => {
    lastId = message.lastEventId;
    const event = read(message);
    enqueue({ ...event, limited: typeof event.body?.retry_after === "number" });
  });
  mine.addEventListener("place", (message) => {
    lastId = message.lastEventId;
  });
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
for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => sortBy(button.dataset.sort));
}
document.addEventListener("keydown", (pressed) => {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || pressed.target.matches("input")) return;
  if (pressed.key === "/") {
    pressed.preventDefault();
    byId("pattern").select();
  } else if (pressed.key === "p") togglePause();
});

STAGES.forEach(makeStage);
LINES.forEach(makeLine);
poll();
sortBy("rate");
setInterval(showDevices, 1000);
setInterval(showAge, 1000);
setInterval(drawEvents, DRAW_MS);

let wanted = "#";
try {
  wanted = decodeURIComponent(location.hash.slice(1));
} catch {
  // not of our making: begin with everything
}
follow(wanted);
