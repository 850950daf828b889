"""What ``amqprouter rejected`` does, action by action, over the broker."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import CancelledError

from amqprouter.amqp.address import account_of
from amqprouter.broker.topology import Names
from amqprouter.cli.broker import connect
from amqprouter.cli.message_text import message_lines
from amqprouter.cli.outcome import DONE, FAILED, complain
from amqprouter.cli.quarantine_queue import PAGE, QuarantineQueue
from amqprouter.cli.quarantined import Quarantined, Wanted, moment
from amqprouter.cli.replay import Replayer
from amqprouter.layouts.layout_set import layouts_of
from amqprouter.settings import Settings
from amqprouter.text import printable

_LONGEST_PAGE = 60.0
"""Seconds that one page may take at a given rate: the broker ends consumers that hold messages for half an hour."""
_ROW = "{:>6}  {:<19}  {:<20}  {:<24}  {:<24}  {:>8}  {}"


class QuarantineWork:
    """One run of the command. `wanted` is None where all are looked at."""

    def __init__(self, reactor: Any, settings: Settings, options: argparse.Namespace, wanted: Wanted | None) -> None:
        names = Names.of(settings.topology, settings.ingress)
        self._queues = {"rejected": names.rejected, "dead-letters": names.dead_letters, "unrouted": names.unrouted}
        self._replay_exchange = names.replay
        self._reactor = reactor
        self._settings = settings
        self._layouts = layouts_of(settings)
        self._options = options
        self._wanted = wanted or Wanted()
        self._reasons: Counter[str] = Counter()

    async def run(self) -> int:
        """The action that was asked for; the exit status.

        :raises BrokerRefused: :raises BrokerUnavailable: the broker cannot be had, or not the queue.
        """
        actions = {"ls": self._ls, "show": self._show, "replay": self._replay, "drop": self._drop}
        return await actions[self._options.action]()

    # Reading.

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[QuarantineQueue]:
        connection = await connect(self._reactor, self._settings.broker, self._options.action)
        try:
            queue = QuarantineQueue(self._reactor, connection, self._queues[self._options.queue])
            await queue.open()
            yield queue
        finally:
            await connection.shut()  # with this, what was not taken is back in its place

    async def _pages(self, queue: QuarantineQueue, size: int = PAGE) -> AsyncIterator[list[Quarantined]]:
        """The wanted messages, page by page, until all are seen or too many are held; counted by reason."""
        most = self._options.scan
        while queue.held < most:
            before = queue.seen
            page = await queue.page(min(size, most - queue.held))
            if not page:
                return
            read = [self._read(delivery, before + number) for number, delivery in enumerate(page, 1)]
            chosen = [message for message in read if self._wanted.means(message)]
            self._reasons.update(message.label for message in chosen)
            yield chosen

    def _read(self, delivery: Any, position: int) -> Quarantined:
        return Quarantined.read(
            delivery,
            position,
            unrouted=self._options.queue == "unrouted",
            user_id_counts="user-id" in self._settings.auth.accept,
            account=account_of(self._settings.broker) if self._options.config else "",
            layouts=self._layouts,
        )

    # Actions.

    async def _ls(self) -> int:
        left = self._options.limit
        async with self._open() as queue:
            if not self._options.json:
                print(_ROW.format("#", "time", "device", "topic", "reason", "bytes", "message id"))
            async for messages in self._pages(queue):
                for message in messages[:left]:
                    print(json.dumps(message.as_json()) if self._options.json else _row(message))
                left = max(0, left - len(messages))
        if not self._options.json:
            print("\n".join(self._counts()))
        self._tell_unseen(queue)
        return DONE

    async def _show(self) -> int:
        which = self._options.which
        by_number = which.isascii() and which.isdigit() and not self._options.id
        async with self._open() as queue:
            async for messages in self._pages(queue):
                for message in messages:
                    if str(message.position) == which.lstrip("0") if by_number else message.message_id == which:
                        self._print_whole(message)
                        return DONE
        what = f"message {which}" if by_number else f"message with the id {which!r}"
        complain(f"there is no {what} among the {queue.seen} that were looked at in {queue.name}")
        self._tell_unseen(queue)
        return FAILED

    def _print_whole(self, message: Quarantined) -> None:
        if self._options.raw:
            sys.stdout.buffer.write(message.delivery.body)
            sys.stdout.flush()
            return
        auth = self._settings.auth
        hidden = {auth.secret_header, auth.signature_header}
        print("\n".join(message_lines(message, hidden)))

    async def _drop(self) -> int:
        most = await self._agreed("drop")
        if most == 0:
            return FAILED
        dropped = 0
        async with self._open() as queue:
            async for messages in self._pages(queue):
                chosen = messages[: most - dropped]
                queue.take(message.delivery for message in chosen)
                dropped += len(chosen)
                if dropped >= most:
                    break
            await queue.settle()
        print(f"{dropped} dropped")
        self._tell_unseen(queue)
        return DONE

    async def _replay(self) -> int:
        most = await self._agreed("replay")
        if most == 0:
            return FAILED
        rate = self._options.rate
        size = max(1, min(PAGE, int(rate * _LONGEST_PAGE))) if rate else PAGE
        async with self._open() as queue:
            connection = await connect(self._reactor, self._settings.broker, "replay")
            replayer = Replayer(
                self._reactor,
                connection,
                self._replay_exchange,
                account_of(self._settings.broker),
                vouch=self._options.vouch,
                rate=rate,
            )
            tried = 0
            try:
                await replayer.open()
                async for messages in self._pages(queue, size):
                    chosen = messages[: most - tried]
                    await replayer.replay(queue, chosen)
                    tried += len(chosen)
                    if tried >= most:
                        break
                await queue.settle()
            finally:
                replayer.stop()
                await connection.shut()
                print(f"{replayer.done} replayed")
        self._tell_unseen(queue)
        for why, count in replayer.left.items():
            complain(f"{count} left where they were: {why}")
        return FAILED if replayer.left else DONE

    # Talking.

    async def _agreed(self, what: str) -> int:
        """How many messages may be taken: as many as the operator was told of and agreed to, 0 for none.

        :raises CancelledError: Ctrl-C.
        """
        if self._options.yes:
            return sys.maxsize  # the pass ends by itself with what was there at its start
        async with self._open() as queue:
            async for _ in self._pages(queue):
                pass
        print("\n".join(self._counts()))
        self._tell_unseen(queue)
        count = self._reasons.total()
        self._reasons.clear()
        if count and _asked(f"{what} these {count}? [y/N] "):
            return count
        complain("nothing was done")
        return 0

    def _counts(self) -> Iterator[str]:
        for reason, count in self._reasons.most_common():
            yield f"{count:>6}  {printable(reason) or '(no reason)'}"
        yield f"{self._reasons.total():>6}  in all"

    def _tell_unseen(self, queue: QuarantineQueue) -> None:
        unseen = queue.count - queue.seen
        if unseen > 0 and queue.held >= self._options.scan:
            complain(f"{unseen} more in {queue.name} were not looked at; --scan N looks at more")


def _row(message: Quarantined) -> str:
    def cut(text: str, width: int) -> str:
        text = printable(text)
        return text if len(text) <= width else text[: width - 1] + "…"

    return _ROW.format(
        message.position,
        moment(message.at),
        cut(message.device, 20) + (f" by {cut(message.publisher, 20)}" if message.publisher else ""),
        cut(message.topic, 24),
        cut(message.reason, 24),
        len(message.delivery.body),
        printable(message.message_id),
    ).rstrip()


def _asked(question: str) -> bool:
    """Ask the person at the terminal. No connection is open meanwhile; Ctrl-C is a no.

    :raises CancelledError: Ctrl-C.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the reactor's would let input() wait on
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (KeyboardInterrupt, EOFError):
        raise CancelledError from None
    finally:
        signal.signal(signal.SIGINT, before)
