"""``amqprouter limits``: limits of single devices in the running daemon, set by hand and explained."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from amqprouter.cli.control import add_control_options, ask, socket_from
from amqprouter.cli.outcome import DONE, complain, run_in_reactor
from amqprouter.text import span

DESCRIPTION = """\
Look at, and change, how much single devices may send, while the daemon runs.

`set` gives a device limits of its own, whatever its class or checker says, and at once: text as in [class NAME],
such as '100/s, 2000/min' or '1MB/s burst 5MB', or none for no limit. `clear` takes them away again. The daemon keeps
them for its next start: see [scheduler] overrides. Kept in a file they count on this gateway only; with several, set
them on each. Kept in the document store they count on all gateways, on the others within 5 seconds. `ls` lists them.
`explain` says which limits hold for a device, how much of them is left, which one holds it up, and when to try again.

examples:
  amqprouter limits set meter-17 '100/s, 2000/min'
  amqprouter limits explain meter-17 -c amqprouter.ini
  amqprouter limits clear meter-17
  amqprouter limits ls"""

_ACTIONS = {
    "set": "give a device limits",
    "clear": "take a device's own limits away",
    "ls": "list what was set",
    "explain": "say what holds for a device now",
}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=DESCRIPTION, formatter_class=parser.formatter_class)
        add_control_options(action)
        if name != "ls":
            action.add_argument("device", metavar="DEVICE", help="a device id")
        if name == "set":
            action.add_argument("limits", metavar="LIMITS", help="such as '100/s, 2000/min', or none")
        else:
            action.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    socket = socket_from(options)
    if options.action == "ls":
        return run_in_reactor(lambda reactor: _list(reactor, socket, options.json))
    if options.action == "explain":
        return run_in_reactor(lambda reactor: _explain(reactor, socket, options.device, options.json))
    arguments = {"device": options.device}
    if options.action == "set":
        arguments["limits"] = options.limits
    return run_in_reactor(lambda reactor: _change(reactor, socket, options.action, arguments))


async def _change(reactor: Any, socket: str, action: str, arguments: dict[str, str]) -> int:
    answer = await ask(reactor, socket, "POST", f"/limits/{action}", arguments)
    device, limits, before = answer["device"], answer["limits"], answer["before"]
    where = "; on the other gateways within 5 s" if answer["is_shared"] else ", on this gateway only"
    if limits:
        print(f"{device}: {limits}, from now on{where}" + (f" (it was {before})" if before else ""))
    elif before:
        print(f"{device}: what was set by hand ({before}) is taken away{where}; its checker's or class's limits hold")
    else:
        print(f"{device}: nothing was set by hand")
    if answer["not_kept"] and (limits or before):
        complain(f"this lasts until the daemon's restart: {answer['not_kept']}")
    return DONE


async def _list(reactor: Any, socket: str, as_json: bool) -> int:
    answer = await ask(reactor, socket, "GET", "/limits")
    if as_json:
        print(json.dumps(answer, indent=2))
        return DONE
    width = max(map(len, answer["limits"]), default=0)
    for device, limits in sorted(answer["limits"].items()):
        print(f"{device:<{width}}  {limits}")
    if not answer["kept_in"]:
        complain("[scheduler] overrides is empty: what is set lasts until the daemon's restart")
    return DONE


async def _explain(reactor: Any, socket: str, device: str, as_json: bool) -> int:
    answer = await ask(reactor, socket, "GET", "/limits/explain", {"device": device})
    print(json.dumps(answer, indent=2) if as_json else "\n".join(explanation_lines(answer)))
    return DONE


def explanation_lines(told: dict[str, Any]) -> Iterator[str]:
    """An explanation as text."""
    from amqprouter.text import printable  # noqa: PLC0415

    whose = f"class {told['device_class']}" + (f", tenant {told['tenant']}" if told["tenant"] else "")
    whose += f", by {told['publisher']}" if told.get("publisher") else ""
    yield f"{printable(told['device'])}: {printable(whose)}; {told['state']}"
    if not told["is_known"]:
        yield "  it has sent nothing of late; what its checker grants it is known when it does"
    if told["limits"]:
        yield f"  {'limit':<28} {'of':<32} {'left':>10}  room for one more"
    by_hand = "set by hand, on all gateways" if told["is_shared"] else "set by hand, on this gateway only"
    for limit in told["limits"]:
        notes = " (only counts)" if limit["is_shadow"] else ""
        if told["is_override"] and limit["key"].startswith("device "):
            notes += f" ({by_hand})"
        wait = f"in {span(limit['retry_after'])}" if limit["retry_after"] else "now"
        yield f"  {printable(limit['text']):<28} {printable(limit['key']):<32} {limit['left']:>10.4g}  {wait}{notes}"
    if not told["limits"]:
        yield "  no limit holds" + (f": {by_hand}" if told["is_override"] else "")
    waiting = "1 message waits" if told["waiting"] == 1 else f"{told['waiting']} messages wait"
    if told["waiting"]:
        waiting += f", the first for {span(told['oldest'])}"
    yield f"  {waiting}; {told['in_flight']} under way to their targets"
    yield f"  held up by {printable(told['reason'])}" if told["reason"] else "  nothing holds its next message up"
    if told["class_shadow_count"]:
        yield (
            f"  limits that only count would have held up {told['class_shadow_count']} messages of its class since "
            "the start"
        )
