"""How a command ends: exit statuses, complaints, and the border between a command and the reactor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from amqprouter.errors import AmqprouterError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses; 2 is argparse's own, and 130 what shells give for SIGINT."""

Work = Callable[[Any], Coroutine["Deferred[Any]", Any, int]]
"""An asynchronous command: takes the reactor, returns the exit status."""


def complain(text: str) -> None:
    """Say what is wrong, for the person at the terminal: on standard error, each line with the program's name, behind
    what was said on standard output, which may go to the same file."""
    sys.stdout.flush()
    for line in text.splitlines() or [""]:
        print(f"amqprouter: {line}", file=sys.stderr)


def run_in_reactor(work: Work) -> int:
    """Run `work` in the reactor; returns its exit status.

    Ctrl-C and SIGTERM cancel it: what it awaits raises `CancelledError`, and the reactor stops once it has cleaned up.
    """
    from twisted.internet import task  # noqa: PLC0415 - importing the reactor takes a moment that --help has not
    from twisted.internet.defer import CancelledError, Deferred  # noqa: PLC0415

    status = INTERRUPTED

    async def guarded(reactor: Any, cleaned_up: Deferred[None]) -> None:
        nonlocal status
        try:
            status = await work(reactor)
        except CancelledError:
            status = INTERRUPTED
        except (AmqprouterError, OSError) as error:
            complain(str(error))
            status = FAILED
        finally:
            cleaned_up.callback(None)

    def main(reactor: Any) -> Deferred[None]:
        cleaned_up: Deferred[None] = Deferred()
        running = Deferred.fromCoroutine(guarded(reactor, cleaned_up))

        def interrupt() -> Deferred[None]:
            running.cancel()  # does nothing when it is over
            return cleaned_up

        reactor.addSystemEventTrigger("before", "shutdown", interrupt)
        return running

    try:
        task.react(main)
    except SystemExit as end:
        return int(end.code or 0) or status
