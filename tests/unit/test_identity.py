"""Which device ids are taken, and which could mean more than themselves."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.identity import valid_device_id


class ValidDeviceIdTests(SynchronousTestCase):
    def test_ordinary_ids(self) -> None:
        for text in ("dev1", "00:1b:44:11:3a:b7", "meter-7_A", "Zähler", "$1", "a" * 255, "é" * 127, "%d", "a@b"):
            self.assertTrue(valid_device_id(text), ascii(text))

    def test_pattern_and_path_characters(self) -> None:
        for text in ("", "*", "#", "a*", "a#b", "a.b", ".", "..", "../x", "a/b", "\\xff", "."):
            self.assertFalse(valid_device_id(text), ascii(text))

    def test_white_space_controls_and_surrogates(self) -> None:
        for character in " \t\n\r\v\f\0\x1b\x7f\x85\xa0\u2003\u2028\u3000\ud800\udfff":
            for text in (character, "dev" + character, character + "dev", "de" + character + "v"):
                self.assertFalse(valid_device_id(text), ascii(text))

    def test_what_looks_like_another_id(self) -> None:
        for character in "\xad\u200b\u200d\u202e\u2066\ufeff":
            self.assertFalse(valid_device_id("dev" + character + "1"), ascii(character))

    def test_length_is_counted_in_bytes(self) -> None:
        self.assertFalse(valid_device_id("a" * 256))
        self.assertFalse(valid_device_id("é" * 128))
        self.assertFalse(valid_device_id("😀" * 64))
        self.assertTrue(valid_device_id("😀" * 63))
