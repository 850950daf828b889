"""What an auth service's answer means: RabbitMQ's words, or JSON that says more.

The words are those of rabbitmq_auth_backend_http: ``allow``, followed by tags or not, and ``deny``, followed by a
reason or not (https://github.com/rabbitmq/rabbitmq-server/tree/main/deps/rabbitmq_auth_backend_http). The JSON object
is our own; ``ignore`` in it means ``unknown``, for that is what services for EMQX say. What is not understood is an
error of the service, and never a yes.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.cred.error import UnauthorizedLogin

from amqprouter.errors import CheckerUnavailable, NotKnown
from amqprouter.identity import Identity

_FIELDS = {"limits": "limits", "class": "device_class", "tenant": "tenant"}


def read_answer(name: str, content_type: str, body: bytes) -> str | Identity:
    """The name, or what else the service says of it.

    :raises UnauthorizedLogin: the service says no.
    :raises NotKnown: the service does not know the name.
    :raises CheckerUnavailable: there is no understanding it. The answer is not quoted: it may repeat the secret.
    """
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return _read_json(name, body)
    try:
        word, *rest = body.decode().split()
    except ValueError:  # not UTF-8, or nothing at all
        raise _bad("neither allow nor deny") from None
    if word.lower() == "deny":
        raise UnauthorizedLogin
    if word.lower() != "allow":
        raise _bad("neither allow nor deny")
    return Identity(name, groups=tuple(rest)) if rest else name


def _read_json(name: str, body: bytes) -> str | Identity:
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad("no JSON, though it says so") from None
    result = answer.get("result") if isinstance(answer, dict) else None
    if result == "deny":
        raise UnauthorizedLogin
    if result in ("unknown", "ignore"):
        raise NotKnown
    if result != "allow":
        raise _bad('JSON without a "result" of allow, deny or unknown')
    texts = {ours: answer.get(theirs) or "" for theirs, ours in _FIELDS.items()}
    groups, valid_for = answer.get("groups") or [], answer.get("valid_for")
    lists = {name: _lines(answer, name) for name in ("acl", "speaks_for")}
    for theirs, ours in _FIELDS.items():
        if not isinstance(texts[ours], str):
            raise _bad(f'JSON whose "{theirs}" is no text')
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise _bad('JSON whose "groups" are no list of texts')
    if valid_for is not None and (isinstance(valid_for, bool) or not isinstance(valid_for, (int, float))):
        raise _bad('JSON whose "valid_for" is no number of seconds')
    if valid_for is None and lists["acl"] is lists["speaks_for"] is None and not groups and not any(texts.values()):
        return name
    return Identity(
        name,
        valid_for=None if valid_for is None else float(valid_for),
        groups=tuple(groups),
        limits=texts["limits"],
        device_class=texts["device_class"],
        tenant=texts["tenant"],
        acl=lists["acl"],
        speaks_for=lists["speaks_for"],
    )


def _lines(answer: dict[str, Any], name: str) -> tuple[str, ...] | None:
    lines = answer.get(name)
    if lines is not None and not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
        raise _bad(f'JSON whose "{name}" is no list of texts')
    return None if lines is None else tuple(lines)


def _bad(what: str) -> CheckerUnavailable:
    return CheckerUnavailable(f"the service's answer is {what}")
