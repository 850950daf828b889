"""What an operator may set about the web endpoint; a part of `amqprouter.settings`, which passes it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HttpSettings:
    """Section ``[http]``: the web endpoint (events, live page, health, metrics)."""

    endpoint: str = "tcp:8080:interface=127.0.0.1"
    """A Twisted server endpoint string; empty turns the web endpoint off."""
    anonymous: bool = False
    """Whether the page and the events need no login; the users' ACL then sees the user ``anonymous``."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of other sites whose scripts may subscribe."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose ``X-Forwarded-For`` says where a client is."""
    header_timeout: float = 15.0
    """Seconds within which a whole request must have arrived."""


@dataclass(frozen=True)
class MercureSettings:
    """Section ``[mercure]``: the Mercure protocol, for subscribers and publishers with signed tokens."""

    enabled: bool = False
    """Whether the web endpoint has ``/.well-known/mercure``."""
    subscriber_keys: str = ""
    """File of a JSON Web Key Set: what subscribers' tokens are verified with; without one no token is good."""
    publisher_keys: str = ""
    """The same for publishers' tokens, and it may be the same file."""
    issuer: str = ""
    """What ``iss`` of a token must be; any when empty."""
    audience: str = ""
    """What must be in ``aud`` of a token; when empty, a token must not have one."""
    require_expiry: bool = True
    """Whether a token must say when it expires."""
    anonymous: bool = False
    """Whether subscribers need no token; they then see public updates only."""
    cookie_name: str = "mercureAuthorization"
    """The cookie that may hold a token."""
    user_claim: str = "sub"
    """The claim with the user name that the users' ACL is asked about; the ACL is not asked when empty."""
    groups_claim: str = ""
    """The claim with the user's groups, for the ACL."""
    tenant_claim: str = ""
    """The claim with the user's tenant, for the ACL."""
    subscriptions: bool = False
    """Whether updates tell of every subscription that begins or ends, and all can be listed."""
    max_topics: int = 100
    """Topics of one subscription, and of one update."""
    max_update_bytes: int = 262_144
    """Bytes of the form that publishes an update."""
