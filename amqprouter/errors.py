"""Every exception of amqprouter. Each docstring says what the operator should do about it."""

from __future__ import annotations

from twisted.cred.error import UnauthorizedLogin


class AmqprouterError(Exception):
    """Base of all of them; never raised itself."""


class ConfigError(AmqprouterError):
    """The configuration cannot be used: mend each problem named and try again; nothing was connected or changed.

    `problems` holds one line for each: file, section, key, value, and what would be legal.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class AuthFileError(ConfigError):
    """A password or ACL file cannot be used as a whole: mend the lines named; the last good one stays in force."""


class CheckerUnavailable(AmqprouterError):
    """A checker could not answer: look after its file or service. Messages are held and asked about again."""


class CheckerNotAsked(CheckerUnavailable):
    """A checker's service has not been answering and is left alone for a while: look after it. As with any other
    failure of a checker, messages are held and asked about again."""


class CheckerFailed(CheckerUnavailable):
    """A checker fails on one name again and again while it answers others: look into its log for what is special about
    that name. The messages concerned are dead-lettered as ``checker-error``."""


class NotKnown(UnauthorizedLogin):
    """A checker does not know this name at all: whichever is configured behind it is asked, and when none knows, the
    answer is no. To a caller that asks one checker only it is a wrong secret, which it derives from."""


class TooManyGuesses(AmqprouterError):
    """There were too many wrong passwords, for this name or from this address: nobody is asked about another for
    `retry_after` seconds. ``amqprouter auth flush`` ends that; see ``[auth] lock_out_after``."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many wrong passwords; the next may be tried in {retry_after:.0f} s")
        self.retry_after = retry_after


class BadToken(AmqprouterError):
    """A signed token is not good, for `reason`, a word that quotes nothing of it: mend who issues or sends it, or the
    keys, issuer and audience that are configured. Whoever sent it is told no more than that it was a no."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProtocolError(AmqprouterError):
    """The peer broke AMQP framing: the connection is closed and opened again. If it recurs, look at what stands
    between the daemon and the broker (a proxy, a port that is not AMQP)."""


class TopologyClash(AmqprouterError):
    """An exchange or queue exists on the broker with other properties: delete it, or change ``[topology]``.
    The message names both sides."""


class BrokerUnavailable(AmqprouterError):
    """The broker refused or lost the connection: check its address, credentials and health; the daemon retries."""


class Unencodable(AmqprouterError):
    """A value cannot be written as AMQP: only the message that carries it is affected, and is dead-lettered."""


class StoreUnavailable(AmqprouterError):
    """The document store did not take a write, or did not say so in time: check its health; the write is retried
    with the same ids, so nothing is stored twice."""


class StoreMisconfigured(AmqprouterError):
    """The document store cannot be used as configured (credentials, TLS, rights): mend ``[store]`` or the server."""


class LimitsNotKept(AmqprouterError):
    """Limits set by hand cannot be read or kept: look after the file or the document store that ``[scheduler]
    overrides`` names, and set them again; the text says what is in force meanwhile."""


class Unstorable(AmqprouterError):
    """A message cannot become a document, now or later: it is dead-lettered with `reason`, one of the words that
    docs/storage.rst explains; mend the device that sends such messages."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Undecodable(AmqprouterError):
    """A body is not what its device, or the route's ``decode``, says that it is: `reason` is one of the words that
    docs/decoding.rst explains; mend the device, or the route. A decoder of yours raises it with a word of its own."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class BrokerRefused(AmqprouterError):
    """The broker answered a command with an error and closed the channel or connection: the code and the text are the
    broker's own (404: declare what is missing, 403: grant the right, 406: see the text)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class ControlRefused(AmqprouterError):
    """The daemon does not do what a command asks over the control socket: the text says why; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ControlUnavailable(AmqprouterError):
    """A command cannot talk to the daemon over its control socket: the text says why, and what to look at."""


class EventsRefused(AmqprouterError):
    """The web endpoint does not give events to ``amqprouter tail``: check the address, the login and the topics; the
    text is the endpoint's own."""
