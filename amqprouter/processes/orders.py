"""What operators may ask over the control socket where there are several processes: the same commands, answered by all.

Each is passed on to the processes, which answer as a single daemon does, and the answers are put together
(`amqprouter.web.merged`). What changes something on disk, as a limit set by hand does, is done by one after the other.
A reload has two phases: all read and check first, and only when nobody objects is it put in force, by all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.logger import Logger

from amqprouter import __version__
from amqprouter.control.site import ControlCommand
from amqprouter.errors import ControlRefused, ControlUnavailable
from amqprouter.processes.channel import Answering
from amqprouter.processes.rolling import Rolling
from amqprouter.processes.supervisor import Processes, Supervisor
from amqprouter.web.merged import merged_status

WITHIN = 10.0
"""Seconds for an answer of all."""
RELOAD_WITHIN = 60.0
"""Seconds for reading and checking: long password files take a while."""
_UNAVAILABLE = 503


class Orders:
    """The commands. `now` is in seconds since 1970."""

    log = Logger()

    def __init__(self, supervisor: Supervisor, rolling: Rolling, now: Callable[[], float]) -> None:
        self._supervisor = supervisor
        self._rolling = rolling
        self._now = now
        self._processes = Processes(supervisor)
        self._turn = DeferredLock()

    def commands(self) -> list[ControlCommand]:
        """All of them, as a single daemon has them and some more."""
        return [
            ControlCommand("GET", "/status", self.status),
            ControlCommand("POST", "/reload", self.reload),
            ControlCommand("POST", "/auth/flush", self.auth_flush),
            ControlCommand("GET", "/auth/explain", self.auth_explain),
            ControlCommand("GET", "/limits", self.limits),
            ControlCommand("GET", "/limits/explain", self.limits_explain),
            ControlCommand("POST", "/limits/set", self.limits_set),
            ControlCommand("POST", "/limits/clear", self.limits_clear),
            ControlCommand("GET", "/events", self.events),
            ControlCommand("POST", "/events/kick", self.kick),
            ControlCommand("POST", "/restart", self._rolling.begin),
            ControlCommand("GET", "/restart", self._rolling.told),
        ]

    def of_processes(self) -> Mapping[str, Answering]:
        """What the processes themselves may ask."""
        return {"all": self.all, "others": self._others, "reload": lambda number: self.reload()}

    def begin_reload(self) -> None:
        """For a signal, which has nobody to answer."""
        Deferred.fromCoroutine(self.reload()).addErrback(lambda failure: self.log.failure("Cannot reload", failure))

    # Passing on.

    async def all(
        self, number: int, command: str, arguments: Mapping[str, Any], within: float = WITHIN
    ) -> dict[str, object]:
        """What all processes answer, in the form of `amqprouter.web.siblings.AllAnswers`."""
        answers, errors = await self._gathered(command, arguments, within)
        problems = {number: str(error) for number, error in errors.items()}
        return {"by_process": answers, "problems": problems, "processes": self._told(), "supervisor": {}}

    def _others(self, number: int, command: str, arguments: Mapping[str, Any]) -> None:
        self._supervisor.tell_others(number, command, arguments)

    async def _gathered(
        self, command: str, arguments: Mapping[str, Any] | None, within: float
    ) -> tuple[dict[str, Any], dict[str, Exception]]:
        """Answers and problems, by the number of the process."""
        slots = self._supervisor.slots
        asked = [Deferred.fromCoroutine(self._supervisor.ask(slot, command, arguments, within)) for slot in slots]
        answers: dict[str, Any] = {}
        problems: dict[str, Exception] = {}
        for slot, (is_good, answer) in zip(slots, await DeferredList(asked, consumeErrors=True), strict=True):
            if is_good:
                answers[str(slot.number)] = answer
            elif answer.check(ControlRefused, ControlUnavailable):
                problems[str(slot.number)] = answer.value
            else:
                self.log.failure("Cannot ask process {process}", failure=answer, process=slot.number)
                problems[str(slot.number)] = ControlUnavailable("an error, see the log")
        return answers, problems

    async def _from_all(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The answers of all that answer.

        :raises ControlRefused: one of them says no, or nobody answers.
        """
        answers, problems = await self._gathered(command, arguments, WITHIN)
        for error in problems.values():
            if isinstance(error, ControlRefused):
                raise error
        if not answers:
            raise ControlRefused(_UNAVAILABLE, "; ".join(map(str, problems.values())))
        return answers

    async def _one_by_one(self, command: str, **arguments: Any) -> list[dict[str, Any]]:
        """The answers of all, each asked when the one before has answered.

        :raises ControlRefused: one of them says no, or does not answer; those before it have done it.
        """
        answers: list[dict[str, Any]] = []
        for slot in self._supervisor.slots:
            try:
                answers.append(await self._supervisor.ask(slot, command, arguments, WITHIN))
            except ControlUnavailable as error:
                if slot.state in ("running", "leaving"):
                    raise ControlRefused(_UNAVAILABLE, f"{error}; done by processes: {len(answers)}") from None
                # It reads what is kept when it starts.
        if not answers:
            raise ControlRefused(_UNAVAILABLE, self._processes.problem())
        return answers

    # The commands.

    def _told(self) -> list[dict[str, object]]:
        return [
            {
                "process": slot.number,
                "pid": slot.pid,
                "version": slot.version,
                "state": slot.state,
                "starts": slot.starts,
                "problem": slot.problem(),
            }
            for slot in self._supervisor.slots
        ]

    async def status(self) -> dict[str, object]:
        """The reports of all as one, and how the processes are."""
        answers, problems = await self._gathered("status", None, WITHIN)
        processes = [
            {
                **told,
                "problem": told["problem"] or str(problems.get(str(told["process"]), "")),
                "settled": answers.get(str(told["process"]), {}).get("counters", {}).get("settled", 0),
            }
            for told in self._told()
        ]
        uptime = self._supervisor.uptime
        if not answers:
            empty: dict[str, object] = {"counters": {}, "gauges": {}, "devices": [], "parts": {}, "now": self._now()}
            status: dict[str, Any] = {**empty}
        else:
            status = merged_status(answers)
        troubles = [f"process {one['process']}: {one['problem']}" for one in processes if one["problem"]]
        parts = {**status["parts"], "processes": "; ".join(troubles)}
        return {**status, "version": __version__, "uptime": uptime, "parts": parts, "processes": processes}

    async def reload(self) -> dict[str, object]:
        """All read and check, and then all have it in force, or none."""
        return await self._turn.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> dict[str, object]:
        manager = self._supervisor.manager
        reloaded: dict[str, Any] = {"problems": ["an error, see the log"], "restart": []}
        manager.reloading()
        try:
            reloaded = await self._reload_all()
        finally:
            manager.reloaded(reloaded["problems"])
        return reloaded

    async def _reload_all(self) -> dict[str, Any]:
        answers, errors = await self._gathered("reload/prepare", None, RELOAD_WITHIN)
        problems = _problems({number: answer["problems"] for number, answer in answers.items()})
        problems += self._absent(errors)
        if problems:
            await self._gathered("reload/forget", None, WITHIN)
            self.log.error("No process takes the new configuration over: problems in it: {count}", count=len(problems))
            return {"problems": problems, "restart": []}
        answers, errors = await self._gathered("reload", None, RELOAD_WITHIN)
        problems = _problems({number: answer["problems"] for number, answer in answers.items()})
        problems += self._absent(errors)
        restart = list(dict.fromkeys(section for answer in answers.values() for section in answer["restart"]))
        return {"problems": problems, "restart": restart}

    def _absent(self, errors: Mapping[str, Exception]) -> list[str]:
        """What is wrong with those that do not answer. One that is not there reads the new files at its start."""
        running = {str(slot.number) for slot in self._supervisor.slots if slot.state == "running"}
        return [f"process {number}: {error}" for number, error in errors.items() if number in running]

    async def auth_flush(self, name: str = "") -> dict[str, object]:
        """See `amqprouter.control.commands.Control`."""
        answers = await self._from_all("auth/flush", name=name)
        return {"forgotten": sum(answer["forgotten"] for answer in answers.values())}

    async def auth_explain(self, name: str) -> dict[str, object]:
        """See `amqprouter.control.commands.Control`. Each process has a memory of its own."""
        answers = await self._from_all("auth/explain", name=name)

        def said(kind: str) -> list[object]:
            return [{**one, "process": number} for number, answer in answers.items() for one in answer[kind]]

        return {"name": name, "device": said("device"), "user": said("user")}

    async def limits(self) -> dict[str, object]:
        """See `amqprouter.control.limits.LimitCommands`."""
        answers = await self._from_all("limits")
        return dict(next(iter(answers.values())))

    async def limits_explain(self, device: str) -> dict[str, object]:
        """See `amqprouter.control.limits.LimitCommands`: as the process has it that has the device."""
        answers = await self._from_all("limits/explain", device=device)
        number, told = max(answers.items(), key=lambda one: (one[1]["waiting"], one[1]["is_known"]))
        return {**told, "process": number}

    async def limits_set(self, device: str, limits: str) -> dict[str, object]:
        """See `amqprouter.control.limits.LimitCommands`."""
        return await self._changed("limits/set", device=device, limits=limits)

    async def limits_clear(self, device: str) -> dict[str, object]:
        """See `amqprouter.control.limits.LimitCommands`."""
        return await self._changed("limits/clear", device=device)

    async def _changed(self, command: str, **arguments: str) -> dict[str, object]:
        async def change() -> dict[str, object]:
            answers = await self._one_by_one(command, **arguments)
            not_kept = list(dict.fromkeys(answer["not_kept"] for answer in answers if answer["not_kept"]))
            return {**answers[0], "not_kept": "; ".join(not_kept)}

        return await self._turn.run(lambda: Deferred.fromCoroutine(change()))

    async def events(self, user: str = "", topic: str = "", most: str = "") -> dict[str, object]:
        """See `amqprouter.control.subscriptions.SubscriptionCommands`; each with the number of its process."""
        answers = await self._from_all("events", user=user, topic=topic, most=most)
        found = [
            {**one, "process": int(number)} for number, answer in answers.items() for one in answer["subscriptions"]
        ]
        longest = max(len(answer["subscriptions"]) for answer in answers.values())
        listed = found[: int(most)] if most else found[: max(longest, 1000)]
        return {"count": sum(answer["count"] for answer in answers.values()), "subscriptions": listed}

    async def kick(self, user: str) -> dict[str, object]:
        """See `amqprouter.control.subscriptions.SubscriptionCommands`."""
        answers = await self._from_all("events/kick", user=user)
        return {"user": user, "ended": sum(answer["ended"] for answer in answers.values())}


def _problems(by_process: Mapping[str, Sequence[str]]) -> list[str]:
    """Each problem once; with the number of the process where not all have it."""
    numbers: dict[str, list[str]] = {}
    for number, problems in by_process.items():
        for problem in problems:
            numbers.setdefault(problem, []).append(number)
    return [
        problem if len(who) == len(by_process) else f"process {', '.join(who)}: {problem}"
        for problem, who in numbers.items()
    ]
