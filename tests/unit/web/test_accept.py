"""The header Accept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from amqprouter.web.request import accepts
from tests.unit.web.harness import ALICE, World


class AcceptTests(SynchronousTestCase):
    def test_ranges(self) -> None:
        for values, accepted in (
            ([], True),
            ([""], True),
            (["*/*"], True),
            (["text/event-stream"], True),
            (["Text/Event-Stream ; q=0.1"], True),
            (["text/*;q=0.5, application/json"], True),
            (["text/html", "*/*;q=0.01"], True),
            (["application/json"], False),
            (["text/html, text/plain"], False),
            (["*/*, text/event-stream;q=0.000"], False),
            (["*/*, text/*;q=0"], False),
            (["*/*;q=0"], False),
            ([";;,,q=1"], False),
        ):
            request: Any = SimpleNamespace(requestHeaders=Headers({"Accept": values}))
            self.assertEqual(accepts(request, b"text/event-stream"), accepted, values)

    def test_a_stream_for_those_who_take_none(self) -> None:
        world = World()
        refused = world.get("/events", {**ALICE, "Accept": "application/json"})
        self.assertEqual((refused.status, refused.json()), (406, {"error": "there is only text/event-stream here"}))
        self.assertEqual(world.get("/events", {"Accept": "application/json"}).status, 401)
