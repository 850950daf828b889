"""``amqprouter simulate``: a fleet of devices, good and bad, for trying a daemon out and for testing it."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from amqprouter.cli.broker import add_broker_options, settings_from
from amqprouter.cli.outcome import DONE, FAILED, INTERRUPTED, complain, run_in_reactor

if TYPE_CHECKING:
    from pathlib import Path

    from amqprouter.cli.fleet import DeviceKind
    from amqprouter.cli.fleet_run import FleetRun, Tally
    from amqprouter.settings import Settings

DESCRIPTION = """\
Publish as a whole fleet of devices: well-behaved ones, noisy ones, ones without their secret, ones that use topics
which they may not, and ones that send broken JSON. Runs for --seconds, for --messages, or until Ctrl-C, then waits for
the broker's last confirms and says what was published.

--prepare writes what the daemon must know of the fleet (devices.passwd, devices.acl, users.passwd, users.acl), the
devices' secrets, and the password of a user "demo" (user.password) into a folder. Give the same counts both times.

examples:
  amqprouter simulate --prepare fleet --devices 50 --noisy 2 --unauthenticated 2
  amqprouter simulate -c amqprouter.ini --secrets fleet/secrets --devices 50 --noisy 2 --unauthenticated 2 --seconds 20
  amqprouter simulate --uri amqp://broker/%2F --devices 1000 --rate 0.1 --messages 5000 --ledger confirmed.jsonl --json

With --json the summary is one line of JSON. The exit status is 1 when the broker did not confirm everything."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_broker_options(parser, required=False)
    count, positive = _number(int, 0), _number(float, 1e-6)
    fleet = parser.add_argument_group("the fleet")
    fleet.add_argument("--devices", metavar="N", type=count, default=20, help="well-behaved devices (%(default)s)")
    fleet.add_argument(
        "--rate", metavar="R", type=positive, default=1.0, help="messages a second of each (%(default)s)"
    )
    fleet.add_argument("--noisy", metavar="K", type=count, default=0, help="devices far over their rate")
    fleet.add_argument(
        "--noisy-factor", metavar="F", type=positive, default=5.0, help="times [scheduler] rate of each (%(default)s)"
    )
    fleet.add_argument("--unauthenticated", metavar="U", type=count, default=0, help="devices without their secret")
    fleet.add_argument("--unauthorised", metavar="V", type=count, default=0, help="devices that use forbidden topics")
    fleet.add_argument("--malformed", metavar="W", type=count, default=0, help="devices that send broken JSON")
    fleet.add_argument(
        "--secrets", metavar="FILE", help="the devices' secrets, id:secret lines; without it none is sent"
    )
    fleet.add_argument("--prepare", metavar="DIR", help="write the fleet's files into this folder, and end")
    end = parser.add_argument_group("the run")
    end.add_argument("--seconds", metavar="S", type=positive, help="stop after this time")
    end.add_argument("--messages", metavar="M", type=_number(int, 1), help="stop after so many messages")
    end.add_argument("--connections", metavar="C", type=_number(int, 1), default=2, help="to the broker (%(default)s)")
    end.add_argument("--seed", metavar="S", type=int, help="same seed, same readings and same message ids")
    end.add_argument("--ledger", metavar="FILE", help="append a line of JSON for each confirmed message")
    end.add_argument("--json", action="store_true", help="print the summary as one line of JSON")
    parser.set_defaults(usage_error=parser.error)


def _number(kind: type[int] | type[float], least: float) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value <= 1e9:
            raise ValueError
        return value

    number.__name__ = f"number from {least:g} on"  # argparse says "invalid … value"
    return number


def run(options: argparse.Namespace) -> int:
    from amqprouter.cli.fleet import DeviceKind  # noqa: PLC0415

    counts = {
        DeviceKind.GOOD: options.devices,
        DeviceKind.NOISY: options.noisy,
        DeviceKind.UNAUTHENTICATED: options.unauthenticated,
        DeviceKind.UNAUTHORISED: options.unauthorised,
        DeviceKind.MALFORMED: options.malformed,
    }
    if not sum(counts.values()):
        options.usage_error("a fleet has at least one device")
    if options.prepare:
        return _prepare(options.prepare, counts)
    if not options.config and not options.uri:
        options.usage_error("one of -c/--config and --uri is needed, or --prepare")
    settings = settings_from(options)
    with ExitStack() as files:
        try:
            run, budget = _fleet_run(options, settings, counts, files)
        except ValueError as error:
            complain(str(error))
            return FAILED
        return run_in_reactor(lambda reactor: _simulate(run(reactor), options, budget))


def _prepare(folder: str | Path, counts: dict[DeviceKind, int]) -> int:
    from pathlib import Path  # noqa: PLC0415

    from amqprouter.cli.fleet_files import FILES, prepare  # noqa: PLC0415

    prepare(Path(folder), counts)
    print(f"{folder}: {', '.join(FILES)}")
    return DONE


def _fleet_run(
    options: argparse.Namespace, settings: Settings, counts: dict[DeviceKind, int], files: ExitStack
) -> tuple[Any, float | None]:
    """What makes the run, given the reactor; and how many messages it will be, where that is known.

    :raises ValueError: the file of secrets is bad, or one is missing.
    """
    import random  # noqa: PLC0415
    import uuid  # noqa: PLC0415

    from amqprouter.cli.fleet import Readings, make_fleet  # noqa: PLC0415
    from amqprouter.cli.fleet_files import read_secrets  # noqa: PLC0415
    from amqprouter.cli.fleet_run import FleetRun  # noqa: PLC0415

    secrets = read_secrets(options.secrets) if options.secrets else None
    fleet = make_fleet(counts, options.rate, options.noisy_factor * settings.scheduler.rate, secrets)
    randomness = random.Random(options.seed)
    run_id = uuid.uuid4().hex[:12] if options.seed is None else f"seed{options.seed}"
    readings = Readings(run_id, settings.auth.secret_header, random.Random(options.seed))
    # Line by line, so that whoever reads along, or after a crash, finds every confirm that had come.
    ledger = None
    if options.ledger:
        ledger = files.enter_context(open(options.ledger, "a", encoding="utf-8", buffering=1))  # noqa: SIM115

    def run(reactor: Any) -> FleetRun:
        return FleetRun(
            reactor,
            settings.broker,
            settings.topology.devices_exchange,
            fleet,
            readings,
            randomness,
            connections=options.connections,
            ledger=ledger,
        )

    expected: float | None = options.messages
    if options.seconds is not None:
        planned = options.seconds * sum(device.rate for device in fleet)
        expected = planned if expected is None else min(expected, planned)
    return run, expected


async def _simulate(run: FleetRun, options: argparse.Namespace, expected: float | None) -> int:
    from twisted.internet.defer import CancelledError  # noqa: PLC0415
    from twisted.internet.task import LoopingCall  # noqa: PLC0415

    from amqprouter.cli.fleet_progress import FleetProgress  # noqa: PLC0415

    interrupted = False
    progress = FleetProgress(run, expected)
    looping = LoopingCall(progress.update)
    with progress:
        looping.start(0.2)
        try:
            await run.run(options.seconds, options.messages)
        except CancelledError:
            interrupted = True
        finally:
            looping.stop()
            progress.update()
    _report(run.tally, as_json=options.json)
    if interrupted:
        return INTERRUPTED
    return FAILED if run.tally.refused or run.tally.unconfirmed else DONE


def _report(tally: Tally, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(tally.as_json()), flush=True)
        return
    total = tally.confirmed.total()
    rate = total / tally.seconds if tally.seconds else 0.0
    print(f"confirmed by the broker: {total} messages in {tally.seconds:.1f} s ({rate:.0f}/s)")
    for kind, number in sorted(tally.confirmed.items()):
        print(f"  {kind:<16} {number}")
    if tally.refused:
        print(f"not taken by the broker: {tally.refused.total()}")
        for reason, number in tally.reasons.most_common(10):
            print(f"  {number} × {reason}")
    if tally.unconfirmed:
        print(f"not answered for by the broker: {tally.unconfirmed}")
    sys.stdout.flush()
