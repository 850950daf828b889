// What is wrong, since when, and whether what is held up becomes more: pure functions, but for `announce`.

const FRESH = 15;   // seconds: what counts as now. Less would take the ups and downs of batches for a trend
const BEFORE = 30;  // seconds: what is older, and at most `LONGEST`, counts as before
const LONGEST = 95; // seconds: the daemon's own points are a minute apart, so there is one of before at once
const LEAST = 20;   // messages under way in a healthy flow of a small fleet

export function count(figure) {
  return figure.toLocaleString("en", { maximumFractionDigits: figure < 10 ? 1 : 0 });
}

export function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const mean = (figures) => figures.reduce((total, figure) => total + figure, 0) / figures.length;

// Messages a second by which the backlog grows or shrinks, and in words. `points` are [seconds, backlog], in order.
// All of now has to be more than all of before, or less: what only goes up and down is no trend.
export function trend(points, now) {
  const fresh = points.filter(([at]) => at > now - FRESH);
  const old = points.filter(([at]) => at <= now - BEFORE && at > now - LONGEST);
  const backlog = points.at(-1)?.[1] ?? 0;
  if (!backlog) return { change: 0, words: "" };
  if (!fresh.length || !old.length) return { change: 0, words: "" };
  const figures = (some) => some.map(([, figure]) => figure);
  const seconds = mean(fresh.map(([at]) => at)) - mean(old.map(([at]) => at));
  const change = (mean(figures(fresh)) - mean(figures(old))) / seconds;
  if (backlog >= LEAST && Math.min(...figures(fresh)) > Math.max(...figures(old))) {
    return { change, words: `growing by ${count(change)} /s` };
  }
  if (Math.max(...figures(fresh)) < Math.min(...figures(old))) {
    return { change, words: `shrinking, gone in ${span(backlog / -change)}` };
  }
  return { change: 0, words: "steady" };
}

// All that is wrong, the parts that are not ready first: [{ text, since, state }], `since` in seconds since 1970 or none.
export function alarms(status, growth) {
  const found = Object.entries(status.parts).filter(([, problem]) => problem)
    .map(([name, problem]) => ({ text: `${name}: ${problem}`, since: status.since?.[name], state: "bad" }));
  const { parked = 0, unacked = 0 } = status.backlog ?? {};
  if (growth.change > 0) {
    found.push({ text: `backlog ${count(parked + unacked)}, ${growth.words}`, state: "wait" });
  } else if (parked) {
    found.push({ text: `${count(parked)} parked${growth.words ? `, backlog ${growth.words}` : ""}`, state: "wait", calm: true });
  }
  return found;
}

export function sinceWords(since, now) {
  if (!since) return "";
  const began = new Date(since * 1000);
  const day = now - since > 43200 ? `${began.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ` : "";
  return `since ${day}${began.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })} (${span(Math.max(0, now - since))})`;
}

// The tab tells it too, for who looks at another.
export function announce(found) {
  const loud = found.filter((alarm) => !alarm.calm);
  const title = loud.length ? `⚠ ${loud.length > 1 ? `${loud.length} alarms: ` : ""}${loud[0].text.slice(0, 60)} – amqprouter` : "amqprouter";
  if (document.title !== title) document.title = title;
  const icon = document.querySelector("link[rel=icon]");
  const wanted = loud.length ? "static/icon-trouble.svg" : "static/icon.svg";
  if (icon.getAttribute("href") !== wanted) icon.setAttribute("href", wanted);
}
