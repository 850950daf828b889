"""The private server of tests and demonstrations comes, goes and never stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from twisted.trial.unittest import SynchronousTestCase

from tests.support import mongo
from tests.support.mongo import ROOT, PrivateMongo, TestDatabase, mongo_for_tests


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class PrivateMongoTests(SynchronousTestCase):
    skip = None if find_spec("nx_27017") else "nx-27017 is not installed"

    def test_it_answers_and_stops(self) -> None:
        with PrivateMongo(Path(self.mktemp())) as server:
            pid = server.pid
            with MongoClient[dict[str, object]](server.uri) as client:
                hello = client.admin.command("ismaster")
            self.assertTrue(hello["ismaster"])
        self.assertFalse(runs(pid))
        server.stop()

    def test_data_and_port_stay_over_a_kill(self) -> None:
        with PrivateMongo(Path(self.mktemp())) as server:
            database = TestDatabase(server.uri, "base", server)
            command = {"insert": "c", "ordered": False, "documents": [{"_id": n} for n in range(1000)]}
            database.command({**command, "writeConcern": {"w": "majority", "j": True}})
            server.kill()
            server.start()
            self.assertEqual(database.count("c"), 1000)

    def test_it_refuses_when_told_to(self) -> None:
        with PrivateMongo(Path(self.mktemp())) as server:
            database = TestDatabase(server.uri, "base", server)
            insert = {"insert": "c", "documents": [{"_id": 1}]}
            server.refuse(True)
            self.assertIn("not primary", str(self.assertRaises(PyMongoError, database.command, insert)))
            server.refuse(False)
            database.command(insert)
            self.assertEqual(database.count("c"), 1)

    def test_it_does_not_outlive_whoever_started_it(self) -> None:
        """...even one that is killed by ``kill -9`` and starts it in a thread that is long gone."""
        script = (
            "import sys, threading, time; from pathlib import Path; from tests.support.mongo import PrivateMongo\n"
            "server = PrivateMongo(Path(sys.argv[1])); starting = threading.Thread(target=server.start)\n"
            "starting.start(); starting.join(); print(server.pid, flush=True); time.sleep(60)"
        )
        command = [sys.executable, "-c", script, str(Path(self.mktemp()).absolute())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as starter:
            assert starter.stdout is not None
            pid = int(starter.stdout.readline())
            self.assertTrue(runs(pid))
            os.kill(starter.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while runs(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(runs(pid))

    def test_a_server_that_cannot_start_says_why(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "data").write_text("in the way")
        with self.assertRaises(FileExistsError):
            PrivateMongo(folder).start()
        with PrivateMongo(Path(self.mktemp())) as server:
            second = PrivateMongo(Path(self.mktemp()))
            second.port = server.port
            with self.assertRaises(RuntimeError) as caught:
                second.start()
        self.assertIn("address already in use", str(caught.exception))

    def test_databases_of_tests_are_apart(self) -> None:
        with PrivateMongo(Path(self.mktemp())) as server:
            self.patch(os, "environ", {**os.environ, mongo.URI_VARIABLE: server.uri})
            with mongo_for_tests(Path(self.mktemp())) as one, mongo_for_tests(Path(self.mktemp())) as other:
                self.assertIsNone(one.server)
                self.assertNotEqual(one.name, other.name)
                one.command({"insert": "c", "documents": [{"_id": 1}]})
                self.assertEqual((one.count("c"), other.count("c")), (1, 0))
            self.assertEqual(one.count("c"), 0)
