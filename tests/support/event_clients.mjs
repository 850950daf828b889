// Follows one URL with each of the npm clients that are named, and prints what each hands on: one JSON array a line,
// [client, where, type, data, id]. Usage: node event_clients.mjs FOLDER URL CLIENT…, the clients in FOLDER/node_modules.

import { createRequire } from "module";

const [folder, url, ...clients] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const tell = (client, where, type, data, id) => console.log(JSON.stringify([client, where, type, data, id]));

function follow(client, EventSource) {
  const source = new EventSource(url);
  source.onmessage = (event) => tell(client, "onmessage", event.type, event.data, event.lastEventId);
  source.addEventListener("place", (event) => tell(client, "place", event.type, event.data, event.lastEventId));
  source.addEventListener("gap", (event) => tell(client, "gap", event.type, event.data, event.lastEventId));
  source.onerror = () => {};
}

const starts = {
  eventsource: () => follow("eventsource", require("eventsource").EventSource),
  "event-source-polyfill": () => follow("event-source-polyfill", require("event-source-polyfill").EventSourcePolyfill),
  "extended-eventsource": () => follow("extended-eventsource", require("extended-eventsource").EventSource),
  "launchdarkly-eventsource": () => {
    const module = require("launchdarkly-eventsource");
    follow("launchdarkly-eventsource", module.EventSource ?? module);
  },
  "@microsoft/fetch-event-source": () => {
    globalThis.window ??= globalThis; // it is made for browsers
    globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} };
    require("@microsoft/fetch-event-source").fetchEventSource(url, {
      openWhenHidden: true,
      onmessage: (event) =>
        tell("@microsoft/fetch-event-source", "onmessage", event.event || "message", event.data, event.id),
      onclose: () => {
        throw new Error("the server ended it: try again");
      },
      onerror: () => {},
    });
  },
};

for (const client of clients) starts[client]();
