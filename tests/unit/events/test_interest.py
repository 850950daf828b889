"""What a subscriber asks for: topics by name, and selectors that must be tried."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.events.interest import Interest
from amqprouter.events.topic_selector import TopicSelector
from amqprouter.patterns import TopicPattern


class InterestTests(SynchronousTestCase):
    def test_names_and_patterns_of_both_kinds(self) -> None:
        interest = Interest(
            [TopicPattern("a.b"), TopicPattern("c.*"), TopicSelector("urn:x"), TopicSelector("/books/{id}")]
        )
        self.assertEqual(interest.exact, {"a.b", "urn:x"})
        self.assertEqual(len(interest.patterns), 2)
        for topics in (["a.b"], ["c.d"], ["urn:x"], ["/books/1"], ["other", "c.d"], ["other", "urn:x"]):
            self.assertTrue(interest.matches(topics), topics)
        for other in (["a.c"], ["c.d.e"], ["urn:y"], ["/books/1/2"], []):
            self.assertFalse(interest.matches(other), other)

    def test_a_hash_alone_is_no_name(self) -> None:
        self.assertEqual([TopicPattern(text).exact for text in ("#", "a.#", "*", "a", "a.b")], ["", "", "", "a", "a.b"])
