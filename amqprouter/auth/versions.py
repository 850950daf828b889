"""Whether a secret is still the same, asked without the secret."""

from __future__ import annotations

from zope.interface import Interface


class IVersions(Interface):
    """A checker that can tell, without being asked about a secret, whether what it says of a name is still the same."""

    def version(name: str) -> str | None:
        """A text that changes when the name's secret does, or when the name is taken away, and then is empty.

        None where it cannot tell.
        """
