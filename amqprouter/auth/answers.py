"""What checkers said, remembered; and what they are being asked.

Theory of operation. A question is a key: the kind of proof, the name that is claimed, and a digest of the credential
under a key made at the start of the process, so that no memory dump shows secrets and nobody can compute collisions.
A remembered yes and a remembered no live in caches of their own: a flood of wrong secrets cannot push out the fleet's
good ones. A question that is being asked already is not asked again; all who ask meanwhile get the one answer. What
`flush` or `forget` meets on its way is still handed to those who wait for it, but not remembered, and whoever asks
after it asks anew. An answer that says how long it is good for (`Identity.valid_for`) is remembered no longer than
that, counted from the question; one that is good for nothing more still counts for those who asked.

A credential may turn out to be another's than the one claimed: a token says itself whose it is. Where publishers may
speak for devices that is an answer, remembered once under its owner's name, with a note whose the credential is: so a
publisher's token is asked about once, however many devices it speaks for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import blake2s

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from amqprouter.acl.registry import check_own_lines
from amqprouter.acl.speaking import PUBLISHER_MARKER
from amqprouter.auth.aged_cache import AgedCache
from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.identity import BAD_SECRET, IDENTITY_MISMATCH, UNKNOWN_NAME, Identity, Verdict, valid_publisher

MAX_WAITING = 4096
"""Askers that may wait for answers: as many as messages may be under way (``[scheduler] max_in_flight``). One more
fails with `CheckerUnavailable`, and so comes back later."""


Question = tuple[str, str, bytes]
"""What an answer is remembered for: kind of proof, claimed name, digest of the credential. A bare tuple, for one is
made for every message whose sender is not known by its headers (`amqprouter.pipeline.sender`)."""


class _Asked:
    """A question on its way to the checker, and who waits for its answer."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Deferred[Verdict]] = []


class Answers:
    """The answers of one checker.

    :param size: remembered yeses; noes are a tenth of that, and at least one.
    :param seconds: age at which a yes is asked again.
    :param negative_seconds: age at which a no is asked again.
    :param marker: what stands for the own name in lines of an access list: ``%d`` for devices, ``%u`` for users.
    :param publishers: whether a credential of somebody else than the one claimed proves that one, which
        `Verdict.publisher` then names.
    """

    def __init__(
        self,
        size: int,
        seconds: float,
        negative_seconds: float,
        max_waiting: int = MAX_WAITING,
        key: bytes = b"",
        marker: str = "%d",
        publishers: bool = False,
    ) -> None:
        self._marker = marker
        self._publishers = publishers
        self._owners: AgedCache[tuple[str, bytes], str] = AgedCache(size, seconds)
        """Whose a credential is, by kind of proof and digest, where that is not who was claimed."""
        self._yes: AgedCache[Question, Verdict] = AgedCache(size, seconds)
        self._no: AgedCache[Question, Verdict] = AgedCache(max(size // 10, min(size, 1)), negative_seconds)
        self._asked: dict[Question, _Asked] = {}
        self._waiting = 0
        self._max_waiting = max_waiting
        # Copying a keyed hash is cheaper than making one, and this is done for every message.
        self._fresh_digest = blake2s(key=key or os.urandom(32), digest_size=16).copy

    def question(self, proof: str, name: str, credential: bytes) -> Question:
        """The key for a claim to a name and the credential that came with it."""
        digest = self._fresh_digest()
        digest.update(credential)
        return proof, name, digest.digest()

    def get(self, question: Question, now: float) -> Verdict | None:
        """The remembered answer, if there is one."""
        return self._yes.get(question, now) or self._no.get(question, now)

    def owner(self, question: Question, now: float) -> str:
        """Whose the credential is, if that is remembered and somebody else than the one claimed; else empty."""
        if not self._owners:
            return ""
        proof, _, digest = question
        return self._owners.get((proof, digest), now) or ""

    def ask(self, question: Question, checker: Callable[[], object], now: float) -> Deferred[Verdict]:
        """The checker's answer, remembered from `now` on; `checker` is called unless this is being asked already.

        It returns, or its Deferred fires with, the name that was proved, or an `Identity` with that name.

        :raises CheckerFailed: (by the Deferred) the checker will not be able to say, however often it is asked.
        :raises CheckerUnavailable: (by the Deferred) the checker could not say, or too many are waiting.
        """
        if self._waiting >= self._max_waiting:
            return fail(CheckerUnavailable(f"{self._waiting} messages or log-ins wait for a checker's answer already"))
        answer: Deferred[Verdict] = Deferred()
        self._waiting += 1
        asked = self._asked.get(question)
        if asked is not None:
            asked.waiting.append(answer)
            return answer
        self._asked[question] = asked = _Asked()
        asked.waiting.append(answer)
        maybeDeferred(checker).addCallbacks(
            self._proved, self._not_proved, callbackArgs=(question, now), errbackArgs=(question,)
        ).addBoth(self._answered, question, asked, now)
        return answer

    def flush(self) -> int:
        """Forget everything, as after a reload; how many answers that was."""
        self._asked = {}
        self._owners.clear()
        return self._yes.clear() + self._no.clear()

    def forget(self, name: str) -> int:
        """Forget what is known of one name; how many answers. Looks at all of them: for an operator's command."""
        self._asked = {question: asked for question, asked in self._asked.items() if question[1] != name}
        return sum(answers.forget(lambda question: question[1] == name) for answers in (self._yes, self._no))

    def explain(self, name: str, now: float) -> list[dict[str, object]]:
        """What is remembered of one name, as JSON objects, for an operator; nothing of credentials. Looks at all."""
        found: list[dict[str, object]] = []
        for answers in (self._yes, self._no):
            for _, verdict, age, left in answers.entries(lambda question: question[1] == name, now):
                said: dict[str, object] = {"proof": verdict.checker, "allowed": verdict.allowed}
                if verdict.reason:
                    said["reason"] = verdict.reason
                if verdict.identity is not None:
                    told = {field.name: getattr(verdict.identity, field.name) for field in fields(verdict.identity)}
                    said["identity"] = {
                        key: value
                        for key, value in told.items()
                        if value not in (None, "", ()) or (key in ("acl", "speaks_for") and value is not None)
                    }
                found.append({**said, "age": round(age, 1), "asked_again_in": round(left, 1)})
        return found

    def _proved(self, proved: object, question: Question, now: float) -> Verdict:
        proof, name, _ = question
        good_until: float | None = None
        identity = proved if isinstance(proved, Identity) else None
        if identity is not None:
            proved = identity.name
            if not isinstance(identity.valid_for, (int, float, type(None))):
                raise CheckerUnavailable(f"the checker for {proof!r} gave an identity whose valid_for is no number")
            if not (isinstance(identity.tenant, str) and _is_tuple_of_text(identity.groups)):
                raise CheckerUnavailable(
                    f"the checker for {proof!r} gave an identity whose tenant is no text, or groups no tuple of texts"
                )
            self._check_acl(proof, identity.acl, self._marker)
            self._check_acl(proof, identity.speaks_for, PUBLISHER_MARKER)
            if identity.valid_for is not None:
                good_until = now + (identity.valid_for if identity.valid_for > 0 else 0.0)  # NaN is not
        if proved in (name, name.encode("utf-8", "surrogatepass")):  # twisted.cred's own checkers say bytes
            return Verdict(True, checker=proof, identity=identity, good_until=good_until)
        owner = _owner(proved) if self._publishers else ""
        if owner:
            return Verdict(True, checker=proof, identity=identity, good_until=good_until, publisher=owner)
        return Verdict(False, IDENTITY_MISMATCH, proof)

    @staticmethod
    def _check_acl(proof: str, acl: object, marker: str) -> None:
        if acl is None:
            return
        try:
            if not _is_tuple_of_text(acl):
                raise ValueError("no tuple of texts")
            check_own_lines(acl, marker)  # type: ignore[arg-type]  # it is one
        except ValueError as error:
            raise CheckerUnavailable(
                f"the checker for {proof!r} gave an access list that cannot be used: {error}"
            ) from None

    @staticmethod
    def _not_proved(failure: Failure, question: Question) -> Verdict:
        proof, _, _ = question
        error = failure.value
        if isinstance(error, UnauthorizedLogin):
            return Verdict(False, UNKNOWN_NAME if isinstance(error, NotKnown) else BAD_SECRET, proof)
        if isinstance(error, CheckerUnavailable):
            raise error
        # The text of a stranger's error may quote the credential: only its kind goes into messages and logs.
        raise CheckerUnavailable(f"the checker for {proof!r} failed with {type(error).__name__}") from error

    def _answered(self, result: Verdict | Failure, question: Question, asked: _Asked, now: float) -> None:
        if self._asked.get(question) is asked:  # neither flushed nor forgotten meanwhile
            del self._asked[question]
            if isinstance(result, Verdict):
                self._remember(question, result, now)
        self._waiting -= len(asked.waiting)
        for answer in asked.waiting:
            answer.callback(result)

    def _remember(self, question: Question, verdict: Verdict, now: float) -> None:
        at_most = None if verdict.identity is None else verdict.identity.valid_for
        if verdict.publisher:
            proof, _, digest = question
            self._owners.put((proof, digest), verdict.publisher, now, at_most)
            question, verdict = (proof, verdict.publisher, digest), replace(verdict, publisher="")
        (self._yes if verdict.allowed else self._no).put(question, verdict, now, at_most)


def _is_tuple_of_text(groups: object) -> bool:
    """Whether these can be groups or lines of an identity: a checker's author may take a text, or a list, for them."""
    return isinstance(groups, tuple) and all(isinstance(group, str) for group in groups)


def _owner(proved: object) -> str:
    """The name that was proved, if a publisher may have it; else empty."""
    name = proved.decode("utf-8", "replace") if isinstance(proved, bytes) else proved
    return name if isinstance(name, str) and valid_publisher(name) and "\ufffd" not in name else ""
