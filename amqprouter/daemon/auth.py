"""Who a device or a user is and what it may, wired: checkers, proofs, lock-outs and access lists."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from amqprouter.amqp.connection import Connection
from amqprouter.auth.acl_file import AclFile, device_acl, operator_acl, publisher_acl, user_acl
from amqprouter.auth.authenticator import Authenticator
from amqprouter.auth.broker_logins import BrokerLogins
from amqprouter.auth.broker_topic_proof import BrokerTopicProof
from amqprouter.auth.checkers.chain import CheckerChain
from amqprouter.auth.checkers.configured import make_chain
from amqprouter.auth.checkers.installed import Provisions
from amqprouter.auth.lock_out import LockOut
from amqprouter.auth.mqtt_client_proof import MqttClientProof
from amqprouter.auth.proofs import Proof, PublisherHeader
from amqprouter.auth.threads import HashingThreads
from amqprouter.auth.user_authenticator import UserAuthenticator
from amqprouter.daemon.preflight import hmac_proof
from amqprouter.daemon.runtime import Runtime
from amqprouter.identity import Identity, identity_from
from amqprouter.interfaces import IDeviceSecret, IReadiness, IReloadable, IUserPassword
from amqprouter.storage.mongo import MongoStore
from amqprouter.web.siblings import Siblings


@dataclass(frozen=True)
class WiredAuth:
    """Both authenticators, with what they ask, and the access lists."""

    hashing: HashingThreads
    device_chain: CheckerChain | None
    """None where no checker is asked about devices."""
    user_chain: CheckerChain | None
    authenticator: Authenticator
    """Of devices."""
    users: UserAuthenticator
    devices_acl: AclFile
    users_acl: AclFile
    publishers_acl: AclFile | None
    """None where each device publishes for itself."""
    operators_acl: AclFile
    mqtt_clients: MqttClientProof

    @property
    def chains(self) -> list[CheckerChain]:
        """Those that there are."""
        return [chain for chain in (self.device_chain, self.user_chain) if chain is not None]

    @property
    def readiness(self) -> list[IReadiness]:
        """What ``/readyz`` is to ask."""
        return [checker for chain in self.chains for checker in chain.checkers if IReadiness.providedBy(checker)]

    @property
    def reloadable(self) -> list[IReloadable]:
        """What reads files."""
        lists = [self.devices_acl, self.users_acl, self.publishers_acl, self.operators_acl]
        return [*(acl for acl in lists if acl is not None), self.authenticator, self.users]

    async def attach(self, connection: Connection) -> None:
        """Messages come over this connection from now on."""
        self.mqtt_clients.use_broker(connection.server)

    def may_speak(self, publisher: str, key: str) -> bool:
        """Whether somebody who is no such device may use ``<device id>.<topic words>``, likewise."""
        speakers = self.authenticator.speakers
        return (
            speakers is not None and speakers.may_speak(publisher, key) and self.device_may(key.partition(".")[0], key)
        )

    def device_may(self, device: str, key: str) -> bool:
        """Whether a device may use ``<device id>.<topic words>``, by what is remembered of its log-in."""
        identity = self.authenticator.logins.identity(device) or Identity(device)
        return self.devices_acl.allows_identity(identity, key)


def share_logins(logins: BrokerLogins, siblings: Siblings) -> None:
    """Have all processes know what a checker told when a device logged in to the broker: one of them was asked, and its
    messages may be another's."""

    def know(device: str, identity: dict[str, Any] | None) -> None:
        logins.remember(device, None if identity is None else identity_from(identity))

    def tell(device: str, identity: Identity | None) -> None:
        siblings.tell_others("login", {"device": device, "identity": None if identity is None else asdict(identity)})

    siblings.provide("login", know)
    logins.told = tell


def wire_auth(runtime: Runtime, store: MongoStore | None) -> WiredAuth:
    """All of it. `store` is for the checkers that look into it.

    :raises ConfigError: a checker, an ACL or the file of HMAC keys cannot be used.
    """
    auth, acl = runtime.settings.auth, runtime.settings.acl
    counters, seconds = runtime.counters, runtime.clock.seconds
    hashing = HashingThreads(runtime.reactor)

    def lock_out(from_address: int = 0) -> LockOut:
        return LockOut(auth.lock_out_after, auth.lock_out_seconds, auth.cache_size, counters, from_address)

    provisions = {name: Provisions(hashing.share(name), runtime.reactor, store) for name in ("devices", "users")}
    device_chain = make_chain("devices", auth, IDeviceSecret, provisions["devices"], counters, seconds)
    user_chain = make_chain("users", auth, IUserPassword, provisions["users"], counters, seconds)
    publishers = publisher_acl(acl.publishers)
    publisher_header = None if publishers is None else PublisherHeader(auth.publisher_header)
    clients = MqttClientProof(
        auth.mqtt_client_id_exchanges,
        publishers=publishers is not None,
        by_account=bool(runtime.settings.broker_auth.endpoint),
    )
    by_queue = [section.name for section in runtime.settings.layouts if section.queue]
    further: list[Proof] = [BrokerTopicProof(auth.broker_checked_exchanges, by_queue), clients]
    signatures = hmac_proof(auth, runtime.wall_clock, publisher_header)
    if signatures is not None:
        further.append(signatures)
    authenticator = Authenticator(
        auth.accept,
        device_chain,
        auth.secret_header,
        cache_size=auth.cache_size,
        cache_seconds=auth.cache_seconds,
        negative_cache_seconds=auth.negative_cache_seconds,
        further=further,
        lock_out=lock_out(),
        publishers=publishers,
        publisher_header=publisher_header,
    )
    users = UserAuthenticator(
        user_chain,
        lock_out=lock_out(auth.lock_out_address_after),
        cache_size=auth.cache_size,
        cache_seconds=auth.cache_seconds,
        negative_cache_seconds=auth.negative_cache_seconds,
    )
    return WiredAuth(
        hashing,
        device_chain,
        user_chain,
        authenticator,
        users,
        device_acl(acl.devices),
        user_acl(acl.users),
        publishers,
        operator_acl(acl.operators),
        clients,
    )
