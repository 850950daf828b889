"""Version 1.0 of the protocol, as far as it is one hub's own: its URL, and what follows from that."""

from __future__ import annotations

from functools import cached_property
from urllib.parse import unquote, urlsplit

from amqprouter.events.interest import Selector

HUB_PATH = "/.well-known/mercure"
METADATA_PATH = f"/.well-known/oauth-protected-resource{HUB_PATH}"
"""Of the metadata of the resource at that path (RFC 9728, section 3.1)."""
EVENT_TYPE = "mercure"
"""Of updates that tell of subscriptions; no publisher's may have it."""
COOKIE = "__Secure-mercure_access_token"
"""The name that 1.0 recommends; browsers take it over TLS alone."""


class Version1:
    """The hub at this URL, by which clients know it, tokens name it, and relative topics and patterns are resolved.

    :raises ImportError: there is no library for URL patterns; says which.
    """

    cookie = COOKIE

    def __init__(self, hub_url: str) -> None:
        from amqprouter.events import topic_matcher  # noqa: PLC0415 — its library is an extra

        self.hub_url = hub_url
        self._matchers = topic_matcher

    @cached_property
    def metadata_url(self) -> str:
        """Where the metadata of this resource are."""
        return f"{self.origin}{METADATA_PATH}"

    @cached_property
    def origin(self) -> str:
        """Scheme, host and port."""
        parts = urlsplit(self.hub_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def matcher_types(self) -> tuple[str, ...]:
        """Their names."""
        return self._matchers.MATCHER_TYPES

    def matcher(self, kind: str, text: str) -> Selector:
        """The topic matcher of this type.

        :raises ValueError: there is no such type, or the text is none of it; quotes nothing of the text.
        """
        return self._matchers.TopicMatcher(kind, text, self.hub_url)

    def is_reserved(self, topic: str) -> bool:
        """Whether a topic, as a URL, is at the hub's path or below it, at whatever host and however it is written."""
        path = self._matchers.path_of_topic(topic, self.hub_url)
        if path is None:
            return False
        # Unreserved characters alone may be written as escapes and mean themselves; more is decoded here, of which
        # nothing is in the hub's path but slashes: these are none, so they are kept.
        plain = "/".join(unquote(part.replace("%2f", "%252f").replace("%2F", "%252F")) for part in path.split("/"))
        return plain == HUB_PATH or plain.startswith(f"{HUB_PATH}/")
