"""Whether a message's device is who it claims to be: from the message, from memory, or by asking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from amqprouter.auth.answers import Answers, Question
from amqprouter.auth.asking import asking_for
from amqprouter.auth.broker_logins import BrokerLogins
from amqprouter.auth.lock_out import LockOut
from amqprouter.auth.proofs import ABSENT, Doubt, Proof, SecretProof, UserIdProof, make_proofs
from amqprouter.identity import LOCKED_OUT, Verdict
from amqprouter.interfaces import IReloadable
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IAuthenticator


@implementer(IAuthenticator, IReloadable)
class Authenticator:
    """Tries the proofs of `accept` in order; the first that knows decides, and when none does the device is denied.

    :param checker: who knows the devices' secrets; without one, secrets prove nothing.
    :param secret_header: the message header that carries a secret.
    :param lock_out: keeps too many wrong secrets from being asked about; None lets them all.
    :param cache_size: remembered answers (see `Answers`, also for the ages, in seconds).
    :param further: proofs that `accept` may name besides ``user-id`` and ``secret``.
    :raises ConfigError: a name in `accept` is none of theirs.
    """

    def __init__(
        self,
        accept: Sequence[str],
        checker: ICredentialsChecker | None,
        secret_header: str,
        *,
        cache_size: int,
        cache_seconds: float,
        negative_cache_seconds: float,
        further: Sequence[Proof] = (),
        lock_out: LockOut | None = None,
    ) -> None:
        self._secret = SecretProof(checker, secret_header)
        self._proofs = make_proofs(accept, (UserIdProof(), self._secret, *further))
        self._checker = checker
        self._answers = Answers(cache_size, cache_seconds, negative_cache_seconds)
        self.logins = BrokerLogins(cache_size)
        self._lock_out = lock_out

    def check(self, message: Message, now: float) -> Verdict | None:
        """The verdict if it can be had at once, None when `ask` must be called. `now` is in seconds.

        :raises ValueError: the message's properties are malformed.
        """
        front = message.properties.front
        question: Question | None = None if front is None else front.known.get(self)
        if question is None:
            said = self._examine(message)
            if isinstance(said, Verdict):
                return said
            question = said[1]
        return self._answers.get(question, now)

    def ask(self, message: Message, now: float) -> Deferred[Verdict]:
        """The verdict, from the checker unless it is known by now.

        :raises ValueError: the message's properties are malformed.
        :raises CheckerUnavailable: (by the Deferred) nobody could say: ask again later, and let nothing pass till then.
        """
        said = self._examine(message)
        if isinstance(said, Verdict):
            return succeed(said)
        proof, question = said
        known = self._answers.get(question, now)
        if known:
            return succeed(known)
        credential = proof.examine(message)
        assert isinstance(credential, bytes)  # or there would be no question
        source = message.properties.text("user_id") or ""
        return self._ask(question, lambda: proof.ask(message.device, credential), source, now)

    def credential(self, message: Message) -> Question | None:
        """The question that this message is, None when its proof asks nobody.

        :raises ValueError: the message's properties are malformed.
        """
        said = self._examine(message)
        return None if isinstance(said, Verdict) else said[1]

    async def check_secret(self, device: str, secret: bytes, now: float) -> Verdict:
        """The verdict on a secret that came without a message, as the password of a device that connects to the broker.

        Whatever ``accept`` says. It is remembered, and then holds for messages with this secret too; and so is what the
        checker told of the device, for messages that the broker vouches for.

        :raises CheckerUnavailable: nobody could say.
        """
        said = self._secret.judge(secret)
        if isinstance(said, Verdict):
            return said
        if isinstance(said, Doubt):
            return Verdict(False, said.reason)
        question = self._answers.question(self._secret.name, device, secret)
        verdict = self._answers.get(question, now)
        if verdict is None:
            verdict = await self._ask(question, lambda: self._secret.ask(device, secret), "", now)
        if verdict.allowed:
            self.logins.remember(device, verdict.identity)
        return verdict

    def _ask(self, question: Question, ask: Callable[[], object], source: str, now: float) -> Deferred[Verdict]:
        lock_out = self._lock_out
        named = partial(asking_for, source, question[1], ask)
        if lock_out is None:
            return self._answers.ask(question, named, now)
        wait = lock_out.wait(question, source, now)
        if wait:
            return succeed(Verdict(False, LOCKED_OUT, question[0], retry_after=wait))
        return lock_out.watch(question, source, self._answers.ask(question, named, now), now)

    def flush(self) -> int:
        """Forget every remembered answer, and how often anything failed; how many answers."""
        if self._lock_out is not None:
            self._lock_out.flush()
        return self._answers.flush()

    def forget(self, device: str) -> int:
        """Forget every remembered answer about one device, and how often it failed; how many answers."""
        self.logins.forget(device)
        if self._lock_out is not None:
            self._lock_out.forget(device)
        return self._answers.forget(device)

    def explain(self, device: str, now: float) -> list[dict[str, object]]:
        """What is remembered of one device; see `Answers.explain`."""
        return self._answers.explain(device, now)

    def reload(self) -> None:
        """Have the proofs and the checker read their files again, then forget what the checker said.

        :raises ConfigError: the new files are bad; those in force stay, and so does what is remembered.
        """
        for part in (*self._proofs, self._checker):
            if IReloadable.providedBy(part):
                part.reload()
        self.flush()

    def _examine(self, message: Message) -> Verdict | tuple[Proof, Question]:
        """The verdict, or the question and the proof that must ask it."""
        doubt = ABSENT
        front = message.properties.front
        follows = front is not None  # whether all that was said follows from the front
        for proof in self._proofs:
            said: Verdict | Doubt | Question | None = None
            if front is None or not (proof.by_headers or proof.needs & ~front.flags):
                follows = False
                said = self._hear(proof, message)
            else:
                said = front.known.get(proof)
                if said is None:
                    said = front.known[proof] = self._hear(proof, message)
            if isinstance(said, tuple):
                if front is not None and follows:
                    front.known[self] = said
                return proof, said
            if isinstance(said, Verdict):
                return self.logins.completed(said, message.device)
            if doubt is ABSENT:  # the first that saw something has the best reason
                doubt = said
        return Verdict(False, doubt.reason)

    def _hear(self, proof: Proof, message: Message) -> Verdict | Doubt | Question:
        said = proof.examine(message)
        return self._answers.question(proof.name, message.device, said) if isinstance(said, bytes) else said
