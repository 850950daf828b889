"""The job of ``benchmarks.decouple``: that of examples/flask-jobs, with one limit for all."""

from jobs import primes_below  # type: ignore[import-not-found]

LIMIT = 240_000
"""A fifth of a second's work, about."""


def count() -> int:
    return int(primes_below(LIMIT))
