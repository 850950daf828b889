"""The heavy work; `amqprouter worker` calls it, in processes of its own."""

from amqprouter.worker import Job, Refused


def primes_below(limit: int) -> int:
    """How many there are, in the slowest way that still ends."""
    found: list[int] = []
    for number in range(2, limit):
        for prime in found:
            if prime * prime > number:
                found.append(number)
                break
            if number % prime == 0:
                break
        else:
            found.append(number)
    return len(found)


def count_primes(job: Job) -> dict:
    limit = job.json().get("limit")
    if not isinstance(limit, int):
        raise Refused("no limit")
    return {"job": job.message_id, "limit": limit, "primes": primes_below(limit)}
