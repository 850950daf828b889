"""Writing to a socket without waiting for the reactor.

Twisted's TCP transports keep what is written until the reactor's next turn, when the socket says that it takes data:
two system calls to ask for that word and to stop asking, and another turn. What we write is whole batches, to a socket
that nearly always has room for them; so it is offered to the socket first, and only what that does not take is left to
the reactor, which sends 128 KiB in each of its turns.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection as TcpConnection


def send(transport: Any, data: bytes) -> None:
    """Write data, now where nothing older waits. Errors are left to the reactor, which meets them as it writes and then
    tells the protocol."""
    if isinstance(transport, TcpConnection) and _is_idle(transport):
        left: Any = memoryview(data)
        while left:
            sent = transport.writeSomeData(left)  # `SEND_LIMIT` of it at the most
            if not isinstance(sent, int) or not sent:
                break
            left = left[sent:]
        if not left:
            return
        data = bytes(left)
    transport.write(data)


def _is_idle(transport: TcpConnection) -> bool:
    """Whether nothing waits to be written, it is not closing, and bytes go out as they are. Twisted has no public word
    for this."""
    waiting = transport.dataBuffer or transport._tempDataBuffer
    closing = transport.disconnecting or transport._writeDisconnected
    return bool(transport.connected) and not (waiting or closing or transport.TLS)
