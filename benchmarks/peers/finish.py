"""How a consuming program says that it has everything."""

from __future__ import annotations

import json
import time


class Finish:
    """Counts messages, and after the last prints the moment, and the CPU time since the first, as a line of JSON."""

    def __init__(self, messages: int) -> None:
        self._missing = messages
        self._cpu: float | None = None

    def count(self, messages: int = 1) -> None:
        """So many more were acknowledged."""
        if self._cpu is None:
            self._cpu = time.process_time()
        self._missing -= messages
        if self._missing == 0:
            print(json.dumps({"at": time.monotonic(), "cpu": time.process_time() - self._cpu}), flush=True)
