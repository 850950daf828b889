"""Whether a message's device is who it claims to be, or its publisher may speak for it: from the message, from memory,
or by asking."""

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
from amqprouter.auth.proofs import (
    ABSENT,
    Claim,
    Doubt,
    Proof,
    PublisherHeader,
    SecretProof,
    UserIdProof,
    make_proofs,
)
from amqprouter.auth.speakers import Speakers, SpeakingAcl
from amqprouter.identity import IDENTITY_MISMATCH, LOCKED_OUT, Verdict
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
    :param publishers: the list of those who may publish for devices; None where each publishes for itself.
    :param publisher_header: where a publisher names itself, whose secret a message carries.
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
        publishers: SpeakingAcl | None = None,
        publisher_header: PublisherHeader | None = None,
    ) -> None:
        are_two = publishers is not None
        self._secret = SecretProof(checker, secret_header, publisher_header if are_two else None)
        self._proofs = make_proofs(accept, (UserIdProof(are_two), self._secret, *further))
        self._checker = checker
        self._answers = Answers(cache_size, cache_seconds, negative_cache_seconds, publishers=are_two)
        self.logins = BrokerLogins(cache_size)
        self.speakers = None if publishers is None else Speakers(publishers, self.logins)
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
        if self.speakers is None:
            return self._answers.get(question, now)
        return self._known(question, message, now)

    def ask(self, message: Message, now: float) -> Deferred[Verdict]:
        """The verdict, from the checker unless it is known by now.

        :raises ValueError: the message's properties are malformed.
        :raises CheckerUnavailable: (by the Deferred) nobody could say: ask again later, and let nothing pass till then.
        """
        said = self._examine(message)
        if isinstance(said, Verdict):
            return succeed(said)
        proof, question = said
        known = self._known(question, message, now)
        if known:
            return succeed(known)
        claim = proof.examine(message)
        assert isinstance(claim, Claim)  # or there would be no question
        source = message.properties.text("user_id") or ""
        asked = self._ask(question, lambda: proof.ask(*claim), source, now)
        return asked if self.speakers is None else asked.addCallback(self._in_force, question[1], message)

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
        said = self._secret.judge(device, secret)
        if isinstance(said, Verdict):
            return said
        if isinstance(said, Doubt):
            return Verdict(False, said.reason)
        question = self._answers.question(self._secret.name, device, secret)
        verdict = self._answers.get(question, now)
        if verdict is None:
            verdict = await self._ask(question, lambda: self._secret.ask(device, secret), "", now)
            if verdict.publisher:  # nobody logs in for another
                verdict = Verdict(False, IDENTITY_MISMATCH, verdict.checker)
        if verdict.allowed:
            self.logins.remember(device, verdict.identity)
            self.logins.told(device, verdict.identity)
        return verdict

    def _known(self, question: Question, message: Message, now: float) -> Verdict | None:
        """What is remembered of this question, as it is in force for the message."""
        name = question[1]
        verdict = self._answers.get(question, now)
        if self.speakers is None:
            return verdict
        if verdict is None:
            name = self._answers.owner(question, now)
            verdict = self._answers.get((question[0], name, question[2]), now) if name else None
        return None if verdict is None else self._in_force(verdict, name, message)

    def _in_force(self, verdict: Verdict, name: str, message: Message) -> Verdict:
        """What the answer to a question about `name` means for the message."""
        name = verdict.publisher or name
        if self.speakers is None or name == message.device or not verdict.allowed:
            return verdict
        return self.speakers.verdict(verdict, name, message)

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
                if not said.publisher:
                    return self.logins.completed(said, message.device)
                said = self._speaks(said, message)
                if isinstance(said, Verdict):
                    return said
            if doubt is ABSENT:  # the first that saw something has the best reason
                doubt = said
        return Verdict(False, doubt.reason, publisher=doubt.publisher)

    def _speaks(self, said: Verdict, message: Message) -> Verdict | Doubt:
        """The verdict on a message of a publisher that was proved; a doubt where it may not speak for the device."""
        if self.speakers is None:
            return Doubt(IDENTITY_MISMATCH)
        verdict = self.speakers.verdict(said, said.publisher, message)
        return verdict if verdict.allowed else Doubt(verdict.reason, said.publisher)

    def _hear(self, proof: Proof, message: Message) -> Verdict | Doubt | Question:
        said = proof.examine(message)
        return self._answers.question(proof.name, *said) if isinstance(said, Claim) else said
