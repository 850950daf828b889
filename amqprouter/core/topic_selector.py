"""Mercure's topic selectors: ``*``, an exact topic, or a URI template (RFC 6570) that a topic may come from.

What a template matches follows the reference hub rather than full RFC 6570 semantics, as the protocol asks: an
expression takes any run of the characters that its operator could produce, an empty one included, and its prefix
(``/`` of ``{/x}``, ``?`` of ``{?x}``…) is there or the whole expression is not.

Theory of operation. A template is a row of tokens: single symbols, and stars over a set of symbols. A symbol is one
character, or one percent-escape. Matching runs the row as a nondeterministic automaton whose states are the bits of one
number, so that its time grows with the topic's length only, whatever somebody wrote into the template: a backtracking
regular expression takes a time that grows with the power of the number of expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_SELECTOR = 1024
"""Characters of a selector. Selectors come from users' requests and are kept for as long as these last."""
MAX_EXPRESSIONS = 16
"""Expressions in one template: more than a URI has parts worth filtering by."""

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


def _symbols(text: str) -> list[str]:
    """The text's symbols; an escape's two digits mean the same in either case (RFC 3986, section 2.1)."""
    return [symbol.upper() if len(symbol) == 3 else symbol for symbol in _SYMBOL.findall(text)]


class _Template:
    """A compiled template. Raises `ValueError` when the text is none."""

    __slots__ = ("_accept", "_any_escape", "_keep", "_skips", "_start", "_step")

    def __init__(self, text: str) -> None:
        self._step: dict[str, int] = {}  # symbol → states that it leads on from
        self._keep: dict[str, int] = {}  # symbol → states (stars) that it stays in
        self._any_escape = 0  # stars, for every percent-escape
        self._skips: list[tuple[int, int]] = []  # from the first state's bit to the second's, without a symbol
        state = expressions = 0
        for part in re.split(r"(\{[^{}]*\})", text):
            if part.startswith("{"):
                expressions += 1
                state = self._expression(part[1:-1], state)
            elif "{" in part or "}" in part:
                raise ValueError("a brace without its other half")
            else:
                for symbol in _symbols(part):
                    state = self._literal(symbol, state)
        if expressions > MAX_EXPRESSIONS:
            raise ValueError(f"{expressions} expressions; {MAX_EXPRESSIONS} are the most")
        self._accept = 1 << state
        self._start = self._closed(1)

    def _literal(self, symbol: str, state: int) -> int:
        self._step[symbol] = self._step.get(symbol, 0) | 1 << state
        return state + 1

    def _expression(self, text: str, state: int) -> int:
        matched = _EXPRESSION.fullmatch(text)
        if matched is None:
            raise ValueError(f"{{{text}}} is no expression of RFC 6570")
        operator, variables = matched.groups()
        allowed: set[str] = {*_UNRESERVED, ","}
        if operator in _WITH_RESERVED:
            allowed |= _RESERVED
        if "," in variables or "*" in variables:
            allowed.add(_SEPARATOR[operator])
        if operator in _NAMED or "*" in variables:
            allowed.add("=")
        first = state
        for symbol in _PREFIX[operator]:
            state = self._literal(symbol, state)
        for symbol in allowed:
            self._keep[symbol] = self._keep.get(symbol, 0) | 1 << state
        self._any_escape |= 1 << state
        self._skips.append((1 << state, 1 << state + 1))
        if first != state:
            self._skips.append((1 << first, 1 << state + 1))
        # In order of the states that they begin at, so that one walk finds all that can be skipped to.
        self._skips.sort()
        return state + 1

    def _closed(self, states: int) -> int:
        for source, target in self._skips:
            if states & source:
                states |= target
        return states

    def matches(self, topic: str) -> bool:
        states = self._start
        step, keep, escapes = self._step, self._keep, self._any_escape
        for symbol in _symbols(topic):
            kept = keep.get(symbol, 0) if len(symbol) == 1 else escapes
            states = (states & step.get(symbol, 0)) << 1 | states & kept
            if not states:
                return False
            states = self._closed(states)
        return bool(states & self._accept)


class TopicSelector:
    """One selector, as a client writes it. Equal texts are equal selectors.

    A text with braces that is no template is an exact topic, as the protocol has it.

    :raises ValueError: it is empty or overlong, or a template with too many expressions.
    """

    __slots__ = ("_template", "text")

    def __init__(self, text: str) -> None:
        if not text or len(text) > MAX_SELECTOR:
            raise ValueError(f"a topic selector of {len(text)} characters; 1 to {MAX_SELECTOR} are legal")
        self.text = text
        self._template: _Template | None = None
        if "{" in text:
            if text.count("{") > MAX_EXPRESSIONS:
                raise ValueError(f"a topic selector with over {MAX_EXPRESSIONS} expressions")
            try:
                self._template = _Template(text)
            except ValueError:
                self._template = None

    @property
    def exact(self) -> str:
        """The one topic that is matched; empty for ``*`` and templates. Exact ones can be looked up, not tried."""
        return "" if self._template is not None or self.text == "*" else self.text

    def matches(self, topic: str) -> bool:
        """Whether the topic is selected. Takes time in proportion to its length."""
        text = self.text
        if text in ("*", topic):
            return True
        return self._template is not None and self._template.matches(topic)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicSelector) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<TopicSelector {self.text!r}>"


def any_matches(selectors: Iterable[TopicSelector], topics: Iterable[str]) -> bool:
    """Whether some selector selects some topic of an update, alternate ones included."""
    topics = tuple(topics)
    return any(selector.matches(topic) for selector in selectors for topic in topics)
