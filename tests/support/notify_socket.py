"""What systemd would be told: a socket of the test's, as in ``NOTIFY_SOCKET``."""

from __future__ import annotations

import socket

Fields = dict[str, str]


class NotifySocket:
    """Listens at `address`, a path, or a name of the abstract namespace with ``@`` in front."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[Fields] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def read(self) -> list[Fields]:
        """All that was told so far, by message."""
        while True:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                return self.told
            lines = data.decode().split("\n")
            self.told.append(dict(line.split("=", 1) for line in lines))

    def count(self, name: str) -> int:
        """How many messages had this field."""
        return sum(name in fields for fields in self.read())

    def close(self) -> None:
        self._socket.close()
