"""What an operator may set about work; a part of `amqprouter.settings`, which passes it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkQueueSettings:
    """A section ``[queue NAME]``: a work queue that routes send to as ``queue:NAME``."""

    name: str
    queue: str = ""
    """The queue's name, with placeholders (`amqprouter.pipeline.placeholders`); the section's when empty."""
    exchange: str = ""
    """What is published to; the default exchange when empty."""
    exchange_type: str = "direct"
    routing_key: str = ""
    """With placeholders; the queue's name when empty."""
    declare: bool = True
    """Whether the daemon declares queue, exchange and binding."""
    queue_type: str = ""
    """``quorum`` or ``classic``; that of ``[topology]`` when empty."""
    max_length: int = 0
    """Messages that the queue holds; a full one rejects, and the daemon tries again. 0 for any number."""
    max_bytes: int = 0
    """Bytes of the bodies that it holds, likewise."""
    ttl: float = 0.0
    """Seconds that a message may wait in the queue; 0 for ever."""
    max_priority: int = 0
    """Priorities of a classic queue; 0 for none."""
    dead_letter: bool = True
    """Whether what expires there or is rejected by a consumer goes to the daemon's dead letters."""
    delivery_limit: int = 0
    """Times that a quorum queue takes a message back from consumers before that counts as rejected; 0 for no limit."""
    priority: str = ""
    """Of each message, 0 to 255, with placeholders."""
    max_queues: int = 100
    """Queues that placeholders in `queue` may make, and bindings that those in `routing_key` may."""
    max_queues_per_device: int = 0
    """Of these, those that one device's messages may have made; 0 for all but a tenth, which is for others."""
    idle: float = 604_800.0
    """Seconds after which a queue that placeholders made and nobody uses goes away; 0 for never."""
    reply: tuple[str, ...] = ()
    """Targets for what a worker answers."""


@dataclass(frozen=True)
class CeleryTaskSettings(WorkQueueSettings):
    """A section ``[celery NAME]``: a Celery task that routes call as ``celery:NAME``. Defaults are a worker's own."""

    queue: str = "celery"
    queue_type: str = "classic"
    dead_letter: bool = False
    task: str = ""
    """The task's registered name, such as ``shop.tasks.resize``."""
    args: tuple[str, ...] = ("{body}",)
    """Positional arguments, with placeholders; a lone one keeps its JSON type."""
    kwargs: tuple[tuple[str, str], ...] = ()
    """Keyword arguments, likewise."""
    countdown: float = 0.0
    """Seconds before a worker begins."""
    expires: float = 0.0
    """Seconds after which none begins any more; 0 for never."""
