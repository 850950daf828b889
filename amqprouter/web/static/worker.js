// The SharedWorker of all tabs with the live page of this origin.

import { Streams } from "./streams.js";

const streams = new Streams(new URL("..", location.origin + location.pathname).href);
self.onconnect = ({ ports: [port] }) => streams.add(port);
