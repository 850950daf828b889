"""When each topic last had an event: how far back nothing can have been missed.

Theory of operation. A subscriber of rare topics that comes back names its last event, which may be far behind by
others' events. Most likely nothing that it asked for was among these, and then none of them need be looked at. For each
topic the offset of its latest event is kept, longer than the event itself. So a name is looked up; a pattern that
begins with a word, which is a device in device events, is tried on the topics of that word; others are tried on all
topics that had events since. What is not kept is forgotten from the oldest on, and `complete_from` says how far back
the answer is certain. It says nothing of who may see what: it may only be that nothing was missed, or else one looks.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from itertools import islice

from amqprouter.events.interest import Interest

MOST_TOPICS = 100_000
"""Topics that are kept."""
MOST_BYTES = 16_777_216
"""Bytes of these that are kept, whatever their length."""
MOST_TRIED = 5000
"""Topics, times patterns, that are tried: some milliseconds. Where there are more one goes through the events."""
_EACH = 300
"""About what one takes besides its text."""


class TopicHistory:
    """Of all events, whoever may see them. Topics are in the order of their latest events; the oldest are forgotten."""

    __slots__ = ("_latest", "_most", "_most_bytes", "_of_word", "bytes", "complete_from")

    def __init__(self, most: int = MOST_TOPICS, most_bytes: int = MOST_BYTES) -> None:
        self.bytes = 0
        """That all of it takes."""
        self.complete_from: int | None = None
        """All events behind this offset are accounted for; None before the first."""
        self._most = most
        self._most_bytes = most_bytes
        self._latest: dict[str, int] = {}  # by topic: the offset of its latest event
        self._of_word: dict[str, dict[str, None]] = {}  # by first word: its topics

    def __len__(self) -> int:
        return len(self._latest)

    def note(self, topics: tuple[str, ...], offset: int) -> None:
        """There is an event of these topics, behind all before."""
        latest = self._latest
        for topic in topics:
            if latest.pop(topic, -1) < 0:
                self._add(topic, offset)
            latest[topic] = offset

    def clear(self) -> None:
        """The stream was made anew."""
        self._latest.clear()
        self._of_word.clear()
        self.bytes, self.complete_from = 0, None

    def maybe_missed(self, interest: Interest, last: int) -> Collection[str] | None:
        """Topics of events behind the offset `last` on which the patterns of `interest` are still to be tried, to know
        whether one of these events was asked for. None when one was, or when that cannot be said.
        """
        latest = self._latest
        if self.complete_from is None or last < self.complete_from:
            return None
        if any(latest.get(name, -1) > last for name in interest.exact):
            return None
        most = MOST_TRIED // max(1, len(interest.patterns))
        words = {pattern.first_word for pattern in interest.patterns}
        if "" in words:
            return self._behind(last, most)
        found: list[str] = []
        for word in words:
            found += (topic for topic in self._of_word.get(word, ()) if latest[topic] > last)
            if len(found) > most:
                return None
        return found

    def _behind(self, offset: int, most: int) -> list[str] | None:
        """Topics that have an event behind this offset; None for more than so many."""
        found: list[str] = []
        for topic, latest in reversed(self._latest.items()):
            if latest <= offset:
                break
            if len(found) >= most:
                return None
            found.append(topic)
        return found

    def _add(self, topic: str, offset: int) -> None:
        if self.complete_from is None:
            self.complete_from = offset - 1
        self.bytes += sys.getsizeof(topic) + _EACH
        self._of_word.setdefault(topic.partition(".")[0], {})[topic] = None
        if len(self._latest) >= self._most or self.bytes > self._most_bytes:
            self._forget_some()

    def _forget_some(self) -> None:
        """A tenth at a time: to find the oldest takes longer the more of the older ones are gone."""
        for topic, offset in list(islice(self._latest.items(), max(1, len(self._latest) // 10))):
            del self._latest[topic]
            self.bytes -= sys.getsizeof(topic) + _EACH
            self.complete_from = offset
            word = topic.partition(".")[0]
            del self._of_word[word][topic]
            if not self._of_word[word]:
                del self._of_word[word]
