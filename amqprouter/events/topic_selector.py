"""Mercure's topic selectors: ``*``, an exact topic, or a URI template (RFC 6570) that a topic may come from.

What a template matches follows the reference hub rather than full RFC 6570 semantics, as the protocol asks: an
expression takes any run of the characters that its operator could produce, an empty one included, and its prefix
(``/`` of ``{/x}``, ``?`` of ``{?x}``…) is there or the whole expression is not.

Theory of operation. What stands before the first expression and behind the last one is compared as text, which settles
most topics. What is between is a row of tokens: single symbols, and stars over a set of symbols. A symbol is one
character, or one percent-escape. Matching runs the row as a nondeterministic automaton whose states are the bits of one
number, so that its time grows with the topic's length only, whatever somebody wrote into the template: a backtracking
regular expression takes a time that grows with the power of the number of expressions. Skipping an expression takes no
symbol; all skips from all states are made at once, by a subtraction whose borrow runs along each row of expressions
(Navarro and Raffinot, "Flexible Pattern Matching in Strings", 2002, section 4.2).

A selector itself is a text that was looked at, no more: what matches it is compiled when it is first needed, once for
all who ask for the same, and forgotten when it has not been needed for long.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_SELECTOR = 1024
"""Characters of a selector. Selectors come from users' requests and are kept for as long as these last."""
MAX_EXPRESSIONS = 16
"""Expressions in one template: more than a URI has parts worth filtering by."""
MOST_COMPILED = 4096
"""Templates that are kept compiled, those needed last: some 10 MB of the usual ones, some 200 MB of the largest."""

_SYMBOL = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED = frozenset(":/?#[]@!$&'()*+,;=")
# RFC 6570, section 2.3 and 2.4: names of letters, digits, _, . and escapes; a prefix length or an explode modifier.
_VARIABLE = r"(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})(?:[A-Za-z0-9_.]|%[0-9A-Fa-f]{2})*(?:\*|:[1-9][0-9]{0,3})?"
_EXPRESSION = re.compile(rf"([+#./;?&]?)({_VARIABLE}(?:,{_VARIABLE})*)")
_PREFIX = {"": "", "+": "", "#": "#", ".": ".", "/": "/", ";": ";", "?": "?", "&": "&"}
_SEPARATOR = {"": ",", "+": ",", "#": ",", ".": ".", "/": "/", ";": ";", "?": "&", "&": "&"}
_NAMED = frozenset(";?&")
_WITH_RESERVED = frozenset("+#")


_WHOLE = re.compile(rf"[^{{}}]*(?:\{{(?:[+#./;?&]?){_VARIABLE}(?:,{_VARIABLE})*\}}[^{{}}]*)+")

_OTHERS = "!$'()*@[]:"
"""Reserved characters that no operator treats in a way of its own."""
_ESCAPE = 0
_KINDS = {
    **dict.fromkeys(_UNRESERVED - {"."}, 1),
    **dict.fromkeys(_OTHERS, 2),
    **{symbol: kind for kind, symbol in enumerate(",./;?&=#+", 3)},
}
"""What stars tell apart: characters of one kind are in the same of them. Those of no kind are in none."""
_NO_KIND = 2 + len(",./;?&=#+") + 1


def _symbols(text: str) -> list[str]:
    """The text's symbols; an escape's two digits mean the same in either case (RFC 3986, section 2.1)."""
    if "%" not in text:
        return list(text)
    return [symbol.upper() if len(symbol) == 3 else symbol for symbol in _SYMBOL.findall(text)]


class _Template:
    """A compiled template."""

    __slots__ = ("_accept", "_first", "_head", "_keep", "_last", "_reach", "_start", "_step", "_tail")

    def __init__(self, text: str) -> None:
        head, *parts, tail = re.split(r"(\{[^{}]*\})", text)
        # Escapes are compared as symbols: their digits may be in either case, and must not be torn off the sign.
        self._head: str = "" if "%" in head else head
        self._tail: str = "" if "%" in text else tail
        self._step: dict[str, int] = {}  # symbol → states that it leads on from
        self._keep = [0] * (_NO_KIND + 1)  # kind of symbol → states (stars) that it stays in
        # Rows of states that are skipped along, from each to any behind it in `_reach`: where they begin and end.
        self._first = self._last = self._reach = 0
        state = 0
        for part in (head[len(self._head) :], *parts, tail[len(self._tail) :]):
            if part.startswith("{"):
                state = self._expression(part[1:-1], state)
            else:
                for symbol in _symbols(part):
                    state = self._literal(symbol, state)
        self._accept = 1 << state
        self._first, self._last = self._first & ~self._last, self._last & ~self._first
        self._start = self._closed(1)

    def _literal(self, symbol: str, state: int) -> int:
        self._step[symbol] = self._step.get(symbol, 0) | 1 << state
        return state + 1

    def _expression(self, text: str, state: int) -> int:
        matched = _EXPRESSION.fullmatch(text)
        assert matched is not None, "the whole template matched"
        operator, variables = matched.groups()
        allowed: set[str] = {*_UNRESERVED, ","}
        if operator in _WITH_RESERVED:
            allowed |= _RESERVED
        if "," in variables or "*" in variables:
            allowed.add(_SEPARATOR[operator])
        if operator in _NAMED or "*" in variables:
            allowed.add("=")
        self._first |= 1 << state
        for symbol in _PREFIX[operator]:
            state = self._literal(symbol, state)
        for kind in {_ESCAPE, *(_KINDS[symbol] for symbol in allowed)}:
            self._keep[kind] |= 1 << state
        self._last |= 1 << state + 1
        self._reach |= 1 << state + 1
        return state + 1

    def _closed(self, states: int) -> int:
        ends = states | self._last
        # The bits of each row up to its first state that is set are changed by the subtraction, and no others.
        return states | self._reach & ~(ends ^ (ends - self._first))

    def matches(self, topic: str) -> bool:
        head, tail = self._head, self._tail
        if len(topic) < len(head) + len(tail) or not (topic.startswith(head) and topic.endswith(tail)):
            return False
        states = self._start
        step, keep, kinds, first, last, reach = self._step, self._keep, _KINDS, self._first, self._last, self._reach
        for symbol in _symbols(topic[len(head) : len(topic) - len(tail)]):
            kept = keep[kinds.get(symbol, _NO_KIND) if len(symbol) == 1 else _ESCAPE]
            states = (states & step.get(symbol, 0)) << 1 | states & kept
            if not states:
                return False
            ends = states | last
            states |= reach & ~(ends ^ (ends - first))
        return bool(states & self._accept)


@lru_cache(maxsize=MOST_COMPILED)
def _compiled(text: str) -> _Template:
    return _Template(text)


class TopicSelector:
    """One selector, as a client writes it. Equal texts are equal selectors.

    A text with braces that is no template is an exact topic, as the protocol has it.

    :raises ValueError: it is empty or overlong, or a template with too many expressions.
    """

    __slots__ = ("_any", "expressions", "text")
    kind = "selector"
    effort = 0
    """A template is compiled in microseconds."""

    def __init__(self, text: str) -> None:
        if not text or len(text) > MAX_SELECTOR:
            raise ValueError(f"a topic selector of {len(text)} characters; 1 to {MAX_SELECTOR} are legal")
        self.text = text
        self._any = text == "*"
        self.expressions = 0
        """In it; 1 for ``*``, and 0 where only one topic is selected."""
        if "{" in text:
            count = text.count("{")
            if count > MAX_EXPRESSIONS:
                raise ValueError(f"a topic selector with {count} expressions; {MAX_EXPRESSIONS} are the most")
            if _WHOLE.fullmatch(text) is not None:
                self.expressions = count
        elif self._any:
            self.expressions = 1

    @property
    def exact(self) -> str:
        """The one topic that is matched; empty for ``*`` and templates. Exact ones can be looked up, not tried."""
        return "" if self.expressions else self.text

    @property
    def first_word(self) -> str:
        """What stands in front of the first dot, if that stands in front of all expressions; else empty."""
        if "%" in self.text:
            return ""  # an escape may be written in two ways
        word, dot, _ = self.text.partition("{")[0].partition(".")
        return word if dot and not self._any else ""

    def matches(self, topic: str) -> bool:
        """Whether the topic is selected. Takes time in proportion to its length: half a microsecond a character."""
        if self._any or topic == self.text:
            return True
        return self.expressions > 0 and _compiled(self.text).matches(topic)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicSelector) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<TopicSelector {self.text!r}>"
