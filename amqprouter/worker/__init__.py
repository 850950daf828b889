"""Isolated consumers for CPU-heavy functions: a queue in front, a pool of processes behind.

What a worker's function sees is a `Job`; to say that a job is not worth another try it raises `Refused`. The rest is
``amqprouter worker`` (docs/workers.rst).
"""

from amqprouter.worker.job import Job, Refused

__all__ = ["Job", "Refused"]
