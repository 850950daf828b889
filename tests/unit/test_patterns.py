"""Globs over device ids."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.patterns import DevicePattern

MATCHES = {
    "*": ("", "dev1", "any thing\n"),
    "dev1": ("dev1",),
    "dev*": ("dev", "dev1", "dev.1"),
    "*-cam": ("a-cam", "-cam"),
    "dev?": ("dev1", "devé"),
    "dev[0-9]": ("dev0", "dev9"),
    "dev[!0-9]": ("devx",),
    "a[*]b": ("a*b",),
    "a.b": ("a.b",),
}
DIFFERS = {
    "dev1": ("dev", "dev12", "xdev1", "Dev1", "dev1\n"),
    "dev*": ("Dev1", "xdev"),
    "dev?": ("dev", "dev12"),
    "dev[0-9]": ("dev", "devx"),
    "dev[!0-9]": ("dev1", "dev"),
    "a.b": ("axb",),
}


class DevicePatternTests(SynchronousTestCase):
    def test_matching(self) -> None:
        for expected, table in ((True, MATCHES), (False, DIFFERS)):
            for text, devices in table.items():
                pattern = DevicePattern(text)
                for device in devices:
                    self.assertIs(pattern.matches(device), expected, f"{text} against {device!r}")

    def test_bad_patterns_are_refused(self) -> None:
        for text in ("", "x" * 256):
            with self.assertRaises(ValueError):
                DevicePattern(text)

    def test_many_stars_stay_cheap(self) -> None:
        """With a backtracking matcher this would outlive the universe."""
        for text in ("*a" * 120 + "b", "*a?" * 80 + "b", "*[ab]" * 50 + "c"):
            self.assertFalse(DevicePattern(text).matches("a" * 255))
