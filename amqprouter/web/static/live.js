// The live page. What devices send reaches the document as text only: textContent, never markup.

import { Streams } from "./streams.js";
import { alarms, announce, count, sinceWords, span, trend } from "./trouble.js";

const MAX_EVENTS = 100;      // rows in the list, and events that wait while it is paused
const MAX_DEVICES = 500;     // devices remembered; the one silent longest is forgotten first
const SHOWN_DEVICES = 100;   // rows in the table
const RATE_SECONDS = 10;     // a rate counted here, for want of the daemon's, is the mean over so many seconds
const RANGES = {             // seconds in the plot, and at first
  "5 min": { most: 300, least: 60 },
  day: { most: 86400, least: 3600 },
};
const DAY_MS = 60000;        // between two looks at the day: the daemon adds a point a minute
const STALE_SECONDS = 4;     // without an answer, which comes every second
const LATE_SECONDS = 30;     // an event that is older when it comes is marked
const HERE_MS = 45000;       // between two words to the worker that this tab is there
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
    note: ({ gauges }) => gauges.waiting ? `${count(gauges.waiting)} waiting` : "" },
  { title: "Routed", read: ({ counters }) => counters.routed,
    note: ({ gauges }) => gauges.in_flight ? `${count(gauges.in_flight)} under way` : "" },
  { title: "Delivered", read: ({ counters }) => counters.stored + counters.published,
    note: ({ counters }) => `${count(counters.stored)} stored` },
  { title: "Settled", read: settled,
    note: ({ gauges }) => gauges.unacked ? `${count(gauges.unacked)} not yet` : "" },
];
const refused = ({ counters }) => counters.dropped + sum(counters.rejected) + sum(counters.dead_lettered);
const LINES = [
  { name: "received", read: ({ counters }) => counters.received },
  { name: "settled", read: settled },
  { name: "refused", read: refused },
  { name: "backlog", now: (status) => backlog(status) },  // messages, on a scale of its own
];
const backlog = ({ backlog: { parked = 0, unacked = 0 } = {} }) => parked + unacked;
const HELD = [  // what is now is shown as it is, and what is counted as a rate with its total
  { title: "Waiting now", now: ({ gauges }) => gauges.waiting ?? 0 },
  { title: "Throttled", read: ({ counters }) => counters.throttled },
  { title: "Dropped", read: ({ counters }) => counters.dropped },
  { title: "Parked now", now: ({ backlog: { parked = 0 } = {} }) => parked },
  { title: "Rejected", read: ({ counters }) => sum(counters.rejected) },
  { title: "Dead-lettered", read: ({ counters }) => sum(counters.dead_lettered) },
];

let previous = null;
let answered = Date.now();
let ahead = 0;  // seconds that the daemon's clock is ahead of ours
let points = [];  // [moment, rate, rate, rate, backlog], one for each look
let day = [];     // the same from the daemon, one for each minute
let range = "5 min";
let growth = { change: 0, words: "" };

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
  const figures = LINES.map((line) => line.now ? line.now(status) : rate(line.read, status));
  if (previous) points.push([status.now, ...figures]);
  while (points.length && points[0][0] < status.now - RANGES["5 min"].most) points.shift();
  growth = trend(points.map((point) => [point[0], point.at(-1)]), status.now);
  LINES.forEach((line, index) => {
    line.figure.textContent = line.now ? `${count(figures[index])}${growth.words ? `, ${growth.words}` : ""}`
      : `${count(figures[index])} /s`;
    line.figure.classList.toggle("alarm", Boolean(line.now) && growth.change > 0);
  });
  drawChart(range === "day" ? day : points, RANGES[range], status.now);
}

const roundUp = (most) => {
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * unit).find((step) => step >= most);
};

function drawChart(shown, { most, least }, now) {
  byId("chart-empty").hidden = shown.length > 1;
  const seconds = shown.length ? Math.min(most, Math.max(least, now - shown[0][0])) : least;
  byId("chart-start").textContent = `${span(seconds)} ago`;
  const highest = (figures) => roundUp(figures.reduce((one, other) => Math.max(one, other), 1));
  const top = highest(shown.flatMap((point) => point.slice(1, -1)));
  const topBacklog = highest(shown.map((point) => point.at(-1)));
  byId("chart-top").textContent = `${count(top)} /s`;
  byId("chart-backlog").textContent = `backlog ${count(topBacklog)}`;
  LINES.forEach((line, index) => {
    const steps = shown.map((point) => `${(300 * (1 - (now - point[0]) / seconds)).toFixed(1)} `
      + (99 - point[index + 1] / (line.now ? topBacklog : top) * 98).toFixed(1));
    line.path.setAttribute("d", steps.length ? `M${steps.join("L")}` : "");
  });
}

// What the daemon remembers: the plot and the trend begin with it, so that trouble is seen at the first glance.
async function readDay() {
  try {
    const response = await fetch(address("status/history"), { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!response.ok) return;
    const { fields, points: told } = await response.json();
    const columns = ["time", ...LINES.map(({ name }) => name)].map((name) => fields.indexOf(name));
    day = told.map((point) => columns.map((column) => point[column]));
    if (!points.length && day.length) points = day.filter(([at]) => at > day.at(-1)[0] - RANGES["5 min"].most);
  } catch {
    // as with the figures of now: `showAge` says so
  }
}

function showRange(wanted) {
  range = wanted;
  for (const button of document.querySelectorAll("[data-range]")) {
    button.setAttribute("aria-pressed", String(button.dataset.range === wanted));
  }
  document.querySelector("#chart svg").setAttribute("aria-label",
    `Messages a second, and the backlog, over the last ${wanted === "day" ? "day" : "five minutes"}`);
  if (previous) drawChart(range === "day" ? day : points, RANGES[range], previous.now);
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
function showAlarms(status) {
  const found = alarms(status, growth);
  const names = Object.keys(status.parts);
  const ready = names.filter((name) => !status.parts[name]);
  const rest = element("li", "", `${ready.length} of ${names.length} parts ready`);
  rest.title = ready.join(", ");
  rest.dataset.state = found.length ? "wait" : "good";
  fillAlarms(found, status.now, rest);
}

function fillAlarms(found, now, ...rest) {
  byId("parts").replaceChildren(...found.map(({ text, since, state }) => {
    const item = element("li");
    const words = element("span", "", text);
    if (since) words.append(" ", element("span", "since", sinceWords(since, now)));
    item.append(words);
    if (since) item.title = new Date(since * 1000).toLocaleString("en-GB");
    item.dataset.state = state;
    return item;
  }), ...rest);
  announce(found);
}

// Figures that are not of now must not look as if they were.
function showAge() {
  const seconds = (Date.now() - answered) / 1000;
  const stale = seconds > STALE_SECONDS;
  document.body.classList.toggle("stale", stale);
  if (stale) fillAlarms([{ text: `no answer for ${span(seconds)}; what is shown is of then`, state: "bad" }], 0);
}

async function poll() {
  try {
    const response = await fetch(address("status"), { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (response.ok) {
      const status = await response.json();
      answered = Date.now();
      ahead = status.now - answered / 1000;
      STAGES.forEach((stage) => showStage(stage, status));
      showChart(status);
      showHeld(status);
      noteFigures(status.devices);
      showAlarms(status);
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

// A column has room for six characters on a phone.
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const brief = (figure) => figure < 100000 ? count(figure) : short.format(figure);

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
  for (const [cell, figure] of [[waitingCell, waiting], [parkedCell, parked], [refusedCell, lost]]) {
    cell.textContent = figure ? brief(figure) : "";
    cell.title = figure ? count(figure) : "";
  }
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
function read(data, type) {
  let body = data;
  try {
    body = JSON.parse(body);
    if (typeof body.device === "string" && typeof body.topic === "string" && "body" in body) return body;
  } catch {
    // plain text, or null
  }
  return { device: type, topic: "", received_at: new Date().toISOString(), body, foreign: true };
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
  const late = event.seen / 1000 + ahead - new Date(event.received_at).getTime() / 1000;
  if (late > LATE_SECONDS) {
    item.className = "late";
    time.title = `It came here ${span(late)} after the gateway received it`;
    key.prepend(element("span", "tag", `${span(late)} late`), " ");
  }
  const value = element("span", event.limited ? "value alarm" : "value");
  value.textContent = event.limited ? limited(event.body) : preview(event.body);
  summary.append(time, key, value);
  details.append(summary);
  details.addEventListener("toggle", () => {
    const { limited: _, foreign: __, seen: ___, ...told } = event;
    if (details.children.length === 1) details.append(element("pre", "", JSON.stringify(told, null, 2)));
  });
  item.append(details);
  return item;
}

function enqueue(event) {
  waiting.push({ ...event, seen: Date.now() });
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

let port = null;
let pattern = "#";
let lastId = "";
let cutSince = 0;  // the moment at which the list ceased to be of now; 0 while it is

function showLink(state, text) {
  byId("link").dataset.state = state;
  byId("link").textContent = text;
  if (state === "good") cutSince = 0;
  else cutSince ||= Date.now();
}

// Tabs share their streams by a worker. Its address is ours alone, which the page's policy wants said.
function sharedPort() {
  const policy = window.trustedTypes?.createPolicy("worker", { createScriptURL: (url) => url });
  const url = address("static/worker.js").href;
  const worker = new SharedWorker(policy ? policy.createScriptURL(url) : url, { type: "module", name: "amqprouter" });
  worker.onerror = ownPort;
  return worker.port;
}

function ownPort() {
  const { port1, port2 } = new MessageChannel();
  new Streams(address("").href).add(port2);
  usePort(port1);
  if (lastId || byId("link").textContent) ask();
}

function usePort(used) {
  port = used;
  port.onmessage = ({ data }) => take(data);
}

function ask() {
  port.postMessage({ follow: pattern, after: lastId });
}

function take({ lost, link, text, problem, type, data, id }) {
  if (lost) ask();
  else if (link) {
    showLink(link, text);
    byId("problem").textContent = problem ?? "";
    if (problem) byId("events-empty").hidden = true;
  } else {
    lastId = id;
    takeEvent(type, data);
  }
}

function takeEvent(type, data) {
  if (type === "gap") enqueue({ gap: "Some events are missing here: the daemon no longer has them." });
  if (type !== "message" && type !== "limits") return;
  const event = read(data, type);
  if (type === "limits") {
    enqueue({ ...event, limited: typeof event.body?.retry_after === "number" });
    return;
  }
  if (!event.foreign) noteDevice(event);
  enqueue(event);
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
  ask();
}

// What is listed must not look like now while nothing can come.
function showCut() {
  const seconds = (Date.now() - cutSince) / 1000;
  const isCut = cutSince > 0 && seconds > STALE_SECONDS;
  byId("cut").hidden = !isCut;
  list.classList.toggle("old", isCut);
  if (isCut) byId("cut").textContent = `Not live for ${span(seconds)}: nothing newer than ${clock(cutSince).slice(0, 8)} is here.`;
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

for (const button of document.querySelectorAll("[data-range]")) {
  button.addEventListener("click", () => showRange(button.dataset.range));
}

STAGES.forEach(makeStage);
LINES.forEach(makeLine);
readDay().then(poll);
setInterval(readDay, DAY_MS);
sortBy("rate");
setInterval(showDevices, 1000);
setInterval(showAge, 1000);
setInterval(showCut, 1000);
setInterval(drawEvents, DRAW_MS);

if (window.SharedWorker) usePort(sharedPort());
else ownPort();
setInterval(() => port.postMessage({ here: true }), HERE_MS);
window.addEventListener("pagehide", () => port.postMessage({ bye: true }));
window.addEventListener("pageshow", ({ persisted }) => persisted && ask());

let wanted = "#";
try {
  wanted = decodeURIComponent(location.hash.slice(1));
} catch {
  // not of our making: begin with everything
}
follow(wanted);
