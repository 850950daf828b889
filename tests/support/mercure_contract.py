"""What the two versions of Mercure's specification ask of a hub, as a client sees it: run against any hub.

``python -m tests.support.mercure_contract URL KEY 0|1 [HUB_URL ISSUER]`` prints a line for each thing that is not as
specified, and ends with 1 if there was one. The hub must take tokens signed with KEY (HS256) of publishers and of
subscribers, let anonymous subscribers in, tell of subscriptions, keep history, and allow ``https://app.example`` to
publish with a cookie. Of what the specification leaves open, everything that it allows is taken.
"""

from __future__ import annotations

import base64
import hmac
import json
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

PATH = "/.well-known/mercure"
LISTS = f"{PATH}/subscriptions"
ORIGIN = "https://app.example"
PATIENCE = 10.0
"""Seconds within which an update comes."""

Finding = tuple[str, object, object]
"""(what was tried, what came, what should have come): a collection is of all that may come."""


class Stream:
    """A response that goes on."""

    def __init__(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        self._connection, self._response = connection, response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def events(self, count: int, seconds: float = PATIENCE) -> list[dict[str, str]]:
        """The next events of types that hubs have by the specification; fewer when no more come for so long."""
        found: list[dict[str, str]] = []
        event: dict[str, str] = {}
        socket = self._response.fp.raw._sock  # type: ignore[attr-defined]
        socket.settimeout(seconds)
        try:
            while len(found) < count:
                line = self._response.readline()
                if not line:
                    break
                name, _, value = line.decode().rstrip("\n").partition(":")
                value = value.removeprefix(" ")
                if name:
                    event[name] = f"{event['data']}\n{value}" if name == "data" and "data" in event else value
                elif not line.strip():
                    if "data" in event and event.get("event") not in ("place", "gap"):
                        found.append(event)
                    event = {}
        except (TimeoutError, OSError):
            pass
        return found

    def data(self, count: int, seconds: float = PATIENCE) -> list[str]:
        return [event["data"] for event in self.events(count, seconds)]

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class Client:
    """Of one hub."""

    def __init__(self, url: str, key: str, hub_url: str = "", issuer: str = "") -> None:
        self._place = urlsplit(url).netloc
        self._key = key.encode()
        self.hub_url, self.issuer = hub_url, issuer
        self.run = uuid.uuid4().hex
        """Part of all topics, for a hub has been used before."""

    def token(self, claims: Mapping[str, Any], typ: str = "JWT", key: bytes | None = None) -> str:
        parts = [{"alg": "HS256", "typ": typ}, claims]
        signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
        signature = hmac.digest(self._key if key is None else key, signed, "sha256")
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    def old(self, seconds: float = 600, **mercure: object) -> str:
        return self.token({"exp": int(time.time() + seconds), "mercure": mercure})

    def new(self, *details: object, seconds: float = 600, typ: str = "at+jwt", **claims: object) -> str:
        now = int(time.time())
        every = {"iss": self.issuer, "aud": self.hub_url, "sub": "me", "client_id": "me", "jti": str(uuid.uuid4())}
        values = {**every, "iat": now, "exp": int(now + seconds), "authorization_details": details, **claims}
        return self.token({name: value for name, value in values.items() if value is not None}, typ)

    def topic(self, text: str) -> str:
        return f"https://example.com/{self.run}/{text}"

    def send(
        self, method: str, path: str, token: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        connection, response = self._ask(method, path, token, headers, body)
        content = b"" if "text/event-stream" in (response.getheader("Content-Type") or "") else response.read()
        found = response.status, {name.lower(): value for name, value in response.getheaders()}, content
        response.close()
        connection.close()
        return found

    def _ask(
        self, method: str, path: str, token: str, headers: Mapping[str, str] | None, body: bytes
    ) -> tuple[HTTPConnection, HTTPResponse]:
        connection = HTTPConnection(self._place, timeout=PATIENCE)
        sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        if method == "POST":
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        connection.request(method, path, body or None, sent)
        return connection, connection.getresponse()

    def status(self, query: object, token: str = "", headers: Mapping[str, str] | None = None) -> int:
        return self.send("GET", f"{PATH}?{urlencode(query, doseq=True)}", token, headers)[0]  # type: ignore[arg-type]

    def follow(self, query: object, token: str = "", headers: Mapping[str, str] | None = None) -> Stream:
        path = f"{PATH}?{urlencode(query, doseq=True)}"  # type: ignore[arg-type]
        stream = Stream(*self._ask("GET", path, token, headers, b""))
        assert stream.status == 200, stream.status
        return stream

    def publish(
        self, fields: Sequence[tuple[str, str]] | bytes, token: str = "", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        return self.send("POST", PATH, token, headers, body)


def common(hub: Client, topic_name: str, see: str, app: str) -> Iterator[Finding]:
    """What both versions ask. `see` is a token for all updates, and `app` one to publish all."""
    a, b = hub.topic("a"), hub.topic("b")
    yield "no topic", hub.status({"x": "y"}, see), 400
    stream = hub.follow({topic_name: a}, see)
    yield "type of the stream", stream.headers["content-type"].split(";")[0], "text/event-stream"
    status, headers, first = hub.publish([("topic", a), ("data", "1"), ("private", "")], app)
    yield "publish", (status, headers["content-type"].lower().replace(" ", "")), (200, "text/plain;charset=utf-8")
    yield "made id is an IRI or a fragment", first.decode().startswith(("urn:", "#", "did:")), True
    own = f"urn:x:{hub.run}"
    fields = [("topic", b), ("topic", a), ("data", "2\r\n3\r4\n5"), ("id", own), ("type", "t"), ("retry", "5000")]
    yield "own id comes back", hub.publish([*fields, ("future", "x")], app)[2].decode(), {own, "another"}
    got = stream.events(2)
    yield "ids", [event["id"] for event in got], [first.decode(), own]
    yield (
        "type, retry and lines",
        {**got[-1], "id": ""},
        {"id": "", "event": "t", "retry": "5000", "data": "2\n3\n4\n5"},
    )
    by_alternate = hub.follow({topic_name: a}, see, {"Last-Event-ID": first.decode()})
    yield "alternate topics, resumed", by_alternate.data(1), ["2\n3\n4\n5"]
    for _ in range(2):
        hub.publish([("topic", a), ("data", "public")], app)
    anonymous = hub.follow({topic_name: [a, b]}, "", {"Last-Event-ID": first.decode()})
    hub.publish([("topic", a), ("data", "secret"), ("private", "anything")], app)
    hub.publish([("topic", b), ("data", "end")], app)
    yield "private is not for all", anonymous.data(4)[1:], ["public", "public", "end"]
    for each in (stream, by_alternate, anonymous):
        each.close()
    yield "an id that begins with #", hub.publish([("topic", a), ("id", "#1")], app)[0], 400
    yield "line ends in ids", hub.publish([("topic", a), ("id", "1\ndata: x")], app)[0], 400
    yield "line ends in types", hub.publish([("topic", a), ("type", "1\ndata: x")], app)[0], 400
    yield "bad retry", hub.publish([("topic", a), ("retry", "soon")], app)[0], 400
    yield "publish without a topic", hub.publish([("data", "x")], app)[0], 400
    yield "publish without a token", hub.publish([("topic", a)])[0], 401
    yield "bad token", hub.status({topic_name: a}, see[:-4] + "AAAA"), 401
    yield "another one's key", hub.status({topic_name: a}, hub.token({"exp": time.time() + 9}, key=b"x" * 32)), 401
    yield "publish with a bad token", hub.publish([("topic", a)], app[:-4] + "AAAA")[0], 401


def cookies(hub: Client, topic_name: str, cookie: str, app: str) -> Iterator[Finding]:
    a = hub.topic("a")
    with_cookie = {"Cookie": f"{cookie}={app}"}
    yield "cookie", hub.status({topic_name: a}, "", with_cookie), 200
    yield "bad cookie", hub.status({topic_name: a}, "", {"Cookie": f"{cookie}=bad"}), 401
    yield "the header wins", hub.status({topic_name: a}, app, {"Cookie": f"{cookie}=bad"}), 200
    refused = {400, 401, 403}
    yield "cookie without origin", hub.publish([("topic", a)], "", with_cookie)[0], refused
    evil = {**with_cookie, "Origin": "https://evil.example"}
    yield "cookie from elsewhere", hub.publish([("topic", a)], "", evil)[0], refused
    yield "cookie from an allowed page", hub.publish([("topic", a)], "", {**with_cookie, "Origin": ORIGIN})[0], 200
    referer = {**with_cookie, "Referer": f"{ORIGIN}/page"}
    yield "cookie and referer", hub.publish([("topic", a)], "", referer)[0], 200


def cursors(hub: Client, topic_name: str, in_query: str, answer: str, app: str) -> Iterator[Finding]:
    a = hub.topic("cursor")
    ids = [hub.publish([("topic", a), ("data", str(n))], app)[2].decode() for n in range(3)]
    for what, query, headers, told, got in (
        ("in the query", {in_query: ids[0]}, {}, ids[0], ["1", "2"]),
        ("header wins", {in_query: ids[0]}, {"Last-Event-ID": ids[1]}, ids[1], ["2"]),
        ("earliest", {in_query: "earliest"}, {}, "earliest", ["0", "1", "2"]),
        ("unknown", {in_query: "urn:uuid:3fa85f64-5717-4562-b3fc-2c963f66afa6"}, {}, "earliest", None),
    ):
        stream = hub.follow({topic_name: a, **query}, app, headers)
        yield f"cursor, {what}: {answer}", stream.headers.get(answer), told
        if got is not None:
            yield f"cursor, {what}: updates", stream.data(len(got)), got
        stream.close()
    stream = hub.follow({topic_name: a}, app)
    yield "no cursor, no answer", stream.headers.get(answer), None
    stream.close()


def version_0(hub: Client) -> Iterator[Finding]:
    """0.24's."""
    see, app = hub.old(subscribe=["*"], publish=[]), hub.old(subscribe=["*"], publish=["*"])
    yield from common(hub, "topic", see, app)
    yield from cookies(hub, "topic", "mercureAuthorization", app)
    yield from cursors(hub, "topic", "lastEventID", "last-event-id", app)
    a, b = hub.topic("a"), hub.topic("users/1/b")
    for what, selector, topics in (
        ("template", hub.topic("users/{id}/b"), [a, b]),
        ("reserved expansion", hub.topic("{+rest}"), [a, b]),
        ("path expansion", hub.topic("users{/id,name}"), [a, b]),
        ("an invalid template is a text", hub.topic("{half"), [a, hub.topic("{half")]),
        ("a template matches itself", hub.topic("x{/id}"), [a, hub.topic("x{/id}")]),
    ):
        stream = hub.follow({"topic": selector}, see)
        for topic in topics:
            hub.publish([("topic", topic), ("data", topic)], app)
        last = topics if "reserved" in what else topics[1:]
        yield f"selector: {what}", stream.data(len(last), 3), last
        stream.close()
    stream = hub.follow({"topic": hub.topic("{+all}")}, hub.old(subscribe=[hub.topic("users/{id}/b")]))
    hub.publish([("topic", a), ("private", "on"), ("data", "not mine")], app)
    hub.publish([("topic", a), ("topic", b), ("private", "on"), ("data", "mine")], app)
    yield "an alternate topic lets see", stream.data(1), ["mine"]
    stream.close()
    for what, publish, topics, status in (
        ("all topics are allowed", [a, hub.topic("users/{id}/b")], [a, b], 200),
        ("one is not", [a], [a, b], 403),
        ("an empty list", [], [a], 403),
        ("no list", None, [a], 403),
    ):
        token = hub.old(subscribe=[]) if publish is None else hub.old(publish=publish)
        yield f"publish: {what}", hub.publish([("topic", each) for each in topics], token)[0], status
    yield "token in the query", hub.status({"topic": a, "authorization": see}), 200
    yield "the header wins over it", hub.status({"topic": a, "authorization": "bad"}, see), 200
    bad = hub.status({"topic": a, "authorization": "bad"}, "", {"Cookie": f"mercureAuthorization={see}"})
    yield "and it over the cookie", bad, 401
    yield from _ends(hub, {"topic": a}, hub.old(3, subscribe=["*"]))
    yield from _lists_0(hub, see)


def _ends(hub: Client, query: object, token: str) -> Iterator[Finding]:
    began = time.time()
    stream = hub.follow(query, token)
    stream.events(1000, 8)
    yield "the stream ends with its token", time.time() - began < 5, True
    stream.close()


def _told(stream: Stream, name: str, text: str) -> tuple[str, dict[str, Any]]:
    """The type and the document of the first update that tells of this subscription; it may tell of its own before."""
    while events := stream.events(1):
        document = json.loads(events[0]["data"])
        if document[name] == text:
            return events[0].get("event", ""), document
    return "", {}


def _lists_0(hub: Client, see: str) -> Iterator[Finding]:
    selector = hub.topic("{seen}")
    everything = hub.old(subscribe=["*"])
    watching = hub.follow({"topic": f"{LISTS}{{/topic}}{{/subscriber}}"}, everything)
    stream = hub.follow({"topic": selector}, hub.old(subscribe=[], payload={"name": "me"}))
    _, mine = _told(watching, "topic", selector)
    wanted: dict[str, Any] = {
        "id": f"{LISTS}/{quote(selector, safe='')}/{quote(mine.get('subscriber', ''), safe='')}",
        "type": "Subscription",
        "topic": selector,
        "active": True,
        "payload": {"name": "me"},
    }
    yield "a subscription is told of", {name: mine.get(name) for name in wanted}, wanted
    path: str
    for path in ("", f"/{quote(selector, safe='')}", wanted["id"].removeprefix(LISTS)):
        status, headers, content = hub.send("GET", LISTS + path, everything)
        kind = headers["content-type"].split(";")[0]
        yield f"list {path[:4]}", (status, kind), (200, "application/ld+json")
        document = json.loads(content) if status == 200 else {}
        yield (
            f"list {path[:4]}: cursor and context",
            ("lastEventID" in document, document.get("@context")),
            (
                True,
                "https://mercure.rocks/",
            ),
        )
    yield "list of another", hub.send("GET", LISTS, hub.old(subscribe=["x"]))[0], 403
    yield "no such", hub.send("GET", f"{LISTS}/{quote(selector, safe='')}/nobody", everything)[0], 404
    stream.close()
    ended = [json.loads(data) for data in watching.data(1)]
    yield "its end is told of", [(each["id"], each["active"]) for each in ended], [(wanted["id"], False)]
    watching.close()


def grant(*topics: object, actions: Sequence[str] = ("subscribe",), **more: object) -> dict[str, Any]:
    listed = [each if isinstance(each, dict) else {"match": each} for each in topics]
    return {"type": "https://mercure.rocks/authorization-detail", "actions": actions, "topics": listed, **more}


def version_1(hub: Client) -> Iterator[Finding]:
    """The draft of 1.0."""
    see, app = hub.new(grant("*")), hub.new(grant("*", actions=["subscribe", "publish"]))
    yield from common(hub, "match", see, app)
    yield from cookies(hub, "match", "__Secure-mercure_access_token", app)
    yield from cursors(hub, "match", "last_event_id", "mercure-last-event-id", app)
    yield from _parameters(hub, see, app)
    yield from _publishing_1(hub, app)
    yield from _tokens(hub)
    yield from _ends(hub, {"match": "x"}, hub.new(grant("*"), seconds=3))
    yield from _lists_1(hub)


def _parameters(hub: Client, see: str, app: str) -> Iterator[Finding]:
    a = hub.topic("a")
    for name in ("matches", "Match", "match_", "match_Exact", "match_urltemplate", "MATCH_exact"):
        yield f"parameter {name}", hub.status({name: a, "match": a}, see), 400
    for bad in ("a\x85", "a\u200b", "a\x7f", "a\n", b"\xff"):
        yield f"value {bad!r}", hub.status({"match": bad}, see), 400
    yield "a bad pattern", hub.status({"match_urlpattern": "https://example.com/("}, see), 400
    book, page = hub.topic("books/1"), hub.topic("books/1/2")
    matching: tuple[tuple[str, str, list[str]], ...] = (
        ("match_urlpattern", hub.topic("books/:id"), [book]),
        ("match_urlpattern", hub.topic("books/*"), [book, page]),
        ("match_urlpattern", hub.topic(r"books/:id(\d+)"), [book]),
        ("match_urlpattern", f"https://EXAMPLE.com/{hub.run}/books/:id", [book]),
        ("match_urlpattern", hub.topic("BOOKS/:id"), []),
        ("match_exact", book, [book]),
        ("match", hub.topic("books/:id"), []),
        ("match_urlpattern", f"/{hub.run}/:x", [f"/{hub.run}/relative"]),
        ("match_urlpattern", f"{hub.run}-:x", [f"{hub.run}-relative"]),
    )
    for name, text, wanted in matching:
        stream = hub.follow({name: text}, see)
        for topic in (book, page, f"/{hub.run}/relative", f"{hub.run}-relative", "https://[no url"):
            hub.publish([("topic", topic), ("data", topic)], app)
        yield f"{name} {text.replace(hub.run, 'RUN')}", stream.data(len(wanted) or 1, 1 if not wanted else 5), wanted
        stream.close()


def _publishing_1(hub: Client, app: str) -> Iterator[Finding]:
    a = hub.topic("a")
    for topic in (
        PATH,
        f"{PATH}/x",
        f"https://elsewhere.example{PATH}/x",
        "/.well-known/%6Dercure/x",
        "/.well-known/mercure/../mercure/x",
        "mercure/x",
        "https:\\\\x.example\\.well-known\\mercure",
        "*",
        "a\x85",
        "a\u200b",
    ):
        yield f"topic {topic!r}", hub.publish([("topic", a), ("topic", topic)], app)[0], 400
    yield "a topic that is not reserved", hub.publish([("topic", f"{PATH}x")], app)[0], 200
    for field, bad in (("id", "earliest"), ("id", "a\u200b"), ("type", "mercure"), ("type", "a\x85"), ("retry", "+1")):
        yield f"{field}={bad!r}", hub.publish([("topic", a), (field, bad)], app)[0], 400
    yield "data that is no UTF-8", hub.publish(b"topic=a&data=%FF", app)[0], 400
    status, headers, _ = hub.publish([("topic", a), ("topic", "b")], hub.new(grant(a, actions=["publish"])))
    yield "not every topic is granted", status, 403
    yield "insufficient_scope", 'error="insufficient_scope"' in headers.get("www-authenticate", ""), True
    again = f"urn:again:{hub.run}"
    for data in ("1", "2", "3"):
        hub.publish([("topic", a), ("data", data), ("id", again if data != "2" else f"{again}:2")], app)
    stream = hub.follow({"match": a}, app, {"Last-Event-ID": again})
    yield "an id that came again stands for the earliest", stream.data(2, 3), ["2", "3"]
    stream.close()


def _tokens(hub: Client) -> Iterator[Finding]:
    query = {"match": "x"}
    now = time.time()
    good = grant("x")
    path = f"{PATH}?match=x"
    for what, token in (
        ("typ JWT", hub.new(good, typ="JWT", exp=int(now) + 60, mercure=None)),
        ("no exp", hub.new(good, exp=None)),
        ("expired", hub.new(good, exp=int(now) - 60)),
        ("nbf", hub.new(good, nbf=int(now) + 600)),
        ("no aud", hub.new(good, aud=None)),
        ("another aud", hub.new(good, aud="https://other.example")),
        ("no iss", hub.new(good, iss=None)),
        ("another iss", hub.new(good, iss="https://other.example")),
        ("no actions", hub.new(good, grant("x", actions=[]))),
        ("no topics", hub.new(good, grant())),
        ("a topic that is a text", hub.new(good, {**good, "topics": ["x"]})),
        ("an unknown type of matchers", hub.new(good, grant({"match": "x", "match_type": "Exact"}))),
        ("a bad pattern", hub.new(good, grant({"match": "https://x/(", "match_type": "urlpattern"}))),
        ("an action that is no text", hub.new(good, grant("x", actions=["subscribe", 1]))),  # type: ignore[list-item]
        ("a payload that is no object", hub.new(good, grant("x", payload="text"))),
    ):
        status, headers, _ = hub.send("GET", path, token)
        error = 'error="invalid_token"' in headers.get("www-authenticate", "")
        yield f"token: {what}", (status, error), (401, True)
    for what, token in (
        ("application/at+jwt", hub.new(good, typ="application/AT+JWT")),
        ("aud is a list", hub.new(good, aud=["https://other.example", hub.hub_url])),
        ("unknown actions", hub.new(grant("x", actions=["fly"]))),
        ("other types", hub.new({"type": "payment", "topics": "all"})),
    ):
        yield f"token: {what}", hub.status(query, token), 200
    token = hub.new(good)
    yield "no token in the query", hub.status({"match": "x", "access_token": "bad"}), {200, 401}
    status, headers, _ = hub.send("GET", path, "", {"Authorization": "Bearer"})
    malformed = 'error="invalid_request"' in headers.get("www-authenticate", "")
    yield "a malformed header", (status, malformed), (400, True)
    status, headers, _ = hub.publish([("topic", "x")])
    challenge = headers.get("www-authenticate", "")
    yield "no token", (status, "error=" in challenge, "resource_metadata=" in challenge), (401, False, True)
    status, headers, content = hub.send("GET", f"/.well-known/oauth-protected-resource{PATH}")
    document = json.loads(content) if status == 200 else {}
    yield "metadata", document.get("resource"), hub.hub_url
    yield "metadata: types", document.get("authorization_details_types_supported"), [good["type"]]
    yield "metadata: methods", document.get("bearer_methods_supported"), ["header"]
    yield "metadata: subscriptions", document.get("mercure_subscriptions"), True
    del token


def _lists_1(hub: Client) -> Iterator[Finding]:
    text = hub.topic(":seen")
    everything = hub.new(grant("*"))
    watching = hub.follow({"match_urlpattern": f"{LISTS}/:type/:match/:who"}, everything)
    bearer = hub.new(grant({"match": text, "match_type": "urlpattern"}, payload={"n": 1}), grant("*", payload={"n": 2}))
    stream = hub.follow({"match_urlpattern": text}, bearer)
    kind, mine = _told(watching, "match", text)
    yield "type of the event", kind, "mercure"
    wanted: dict[str, Any] = {
        "id": f"{LISTS}/urlpattern/{quote(text, safe='')}/{quote(mine.get('subscriber', ''), safe='')}",
        "type": "subscription",
        "match_type": "urlpattern",
        "match": text,
        "active": True,
        "payload": {"n": 1},
    }
    yield "a subscription is told of", {name: mine.get(name) for name in wanted}, wanted
    path: str
    for path in ("", f"/urlpattern/{quote(text, safe='')}", wanted["id"].removeprefix(LISTS)):
        status, headers, content = hub.send("GET", LISTS + path, everything)
        yield f"list {path[:4]}", (status, headers["content-type"].split(";")[0]), (200, "application/json")
        document = json.loads(content) if status == 200 else {}
        links = headers.get("link", "")
        yield f"list {path[:4]}: cursor", all(part in links for part in ('rel="mercure"', "last-event-id=")), True
        wanted_id = LISTS + path
        yield f"list {path[:4]}: id", document.get("id"), wanted_id
    status, headers, _ = hub.send("GET", LISTS, hub.new(grant("x")))
    yield "list of another", (status, "insufficient_scope" in headers.get("www-authenticate", "")), (403, True)
    yield "no such", hub.send("GET", f"{LISTS}/exact/x/nobody", everything)[0], 404
    one = hub.new(grant(f"{LISTS}/exact/x"))
    yield "an exact grant for one list", hub.send("GET", f"{LISTS}/exact/x?y=z", one)[0], 200
    stream.close()
    ended = [json.loads(data) for data in watching.data(1)]
    yield "its end is told of", [(each["id"], each["active"]) for each in ended], [(wanted["id"], False)]
    watching.close()


def main() -> int:
    url, key, version, *rest = sys.argv[1:]
    hub = Client(url, key, *rest)
    tried = failed = 0
    for what, got, wanted in version_1(hub) if version == "1" else version_0(hub):
        tried += 1
        allowed: Collection[object] = wanted if isinstance(wanted, set) else (wanted,)
        if got not in allowed:
            failed += 1
            print(f"{what}: {got!r}, not {wanted!r}", flush=True)
    print(f"{tried} tried, {failed} not as specified")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
