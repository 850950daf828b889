"""The query of a request to subscribe: which topics it asks for, in 0.x's words and in 1.0's.

A name is ``topic`` (0.x), or where 1.0 is spoken ``match`` or ``match_TYPE``; then all other names that begin with
``match``, in any case, are mistakes. Names and values are as forms have them (https://url.spec.whatwg.org): ``&`` alone
is between them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from urllib.parse import unquote_to_bytes

from amqprouter.events.interest import Selector
from amqprouter.events.topic_selector import TopicSelector
from amqprouter.web.mercure.claims import MakeMatcher

_TOPIC, _MATCH = b"topic", b"match"


class Query:
    """What a query asks for. `make` is None where only 0.x is spoken.

    :raises ValueError: says what is wrong, quoting nothing of a value.
    """

    def __init__(self, query: bytes, max_topics: int, make: MakeMatcher | None) -> None:
        self._asked: list[tuple[Callable[[str], Selector], str]] = []
        for name, value in _pairs(query):
            maker = _maker(name, make)
            if maker is None:
                continue
            try:
                self._asked.append((maker, value.decode()))
            except UnicodeDecodeError:
                raise ValueError("a topic is not UTF-8") from None
        if not self._asked:
            raise ValueError(f"the parameter topic{' or match' if make else ''} is missing")
        if len(self._asked) > max_topics:
            raise ValueError(f"{len(self._asked)} topics; {max_topics} are the most")

    def selectors(self) -> Generator[None, None, list[Selector]]:
        """In the order in which they were asked for; in steps of a few milliseconds, for URL patterns are compiled.

        :raises ValueError: one is bad.
        """
        found: list[Selector] = []
        for maker, text in self._asked:
            found.append(maker(text))
            if maker is not TopicSelector:
                yield
        return found


def _maker(name: bytes, make: MakeMatcher | None) -> Callable[[str], Selector] | None:
    """What makes a selector of a parameter of this name; None for those that are about something else."""
    if name == _TOPIC:
        return TopicSelector
    if make is None or not name.lower().startswith(_MATCH):
        return None
    if name == _MATCH:
        return partial(make, "exact")
    if not name.startswith(_MATCH + b"_"):
        raise ValueError("a parameter whose name begins with match, and is neither that nor match_TYPE")
    return partial(make, name[len(_MATCH) + 1 :].decode("ascii", "replace"))


def _pairs(query: bytes) -> Iterator[tuple[bytes, bytes]]:
    for pair in query.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            yield unquote_to_bytes(name), unquote_to_bytes(value)
