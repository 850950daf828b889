"""The service file says nothing that systemd does not understand, and keeps the service well shut in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.daemon.lifecycle import CLOSING, GRACE
from amqprouter.settings import ControlSettings, LimitsSettings

UNIT = Path(__file__).parents[2] / "etc/systemd/amqprouter.service"


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = UNIT.read_text()

    def _analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run systemd-analyze on a copy of the unit whose program exists on this machine."""
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not installed")
        copy = Path(self.mktemp()) / UNIT.name
        copy.parent.mkdir()
        copy.write_text(self.text.replace("/opt/amqprouter/bin/twistd", sys.executable))
        command = ["systemd-analyze", *arguments, str(copy.absolute())]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_verify(self) -> None:
        checked = self._analyze("verify", "--man=no")
        # Other units of the machine may have faults of their own, which verify tells too.
        complaints = [line for line in checked.stderr.splitlines() if UNIT.name in line]
        self.assertEqual((complaints, checked.returncode), ([], 0), checked.stderr)

    def test_exposure(self) -> None:
        """At most 2.0 of 10."""
        report = self._analyze("security", "--offline=true", "--no-pager").stdout
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
        assert exposure is not None, report
        self.assertLessEqual(float(exposure[1]), 2.0)

    def test_the_network_stays_open(self) -> None:
        self.assertIn("\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n", self.text)
        self.assertNotIn("PrivateNetwork=yes", self.text)

    def test_tls_stays_possible(self) -> None:
        """PyOpenSSL's callbacks need memory that is both written and executed."""
        self.assertIn("\nMemoryDenyWriteExecute=no\n", self.text)

    def test_the_control_socket_has_a_folder(self) -> None:
        folder = re.search(r"^RuntimeDirectory=(\w+)$", self.text, re.MULTILINE)
        assert folder is not None
        self.assertEqual(str(Path(ControlSettings().socket).parent), f"/run/{folder[1]}")
        self.assertIn("\nRuntimeDirectoryMode=0700\n", self.text)

    def test_stopping_takes_longer_than_draining(self) -> None:
        timeout = re.search(r"^TimeoutStopSec=(\d+)$", self.text, re.MULTILINE)
        assert timeout is not None
        self.assertGreaterEqual(float(timeout[1]), LimitsSettings().shutdown_deadline + 5)

    def test_whatever_hangs_ends_in_time(self) -> None:
        """Before systemd kills the daemon, which would tell nobody what it stood at."""
        timeout = re.search(r"^TimeoutStopSec=(\d+)$", self.text, re.MULTILINE)
        assert timeout is not None
        self.assertLess(LimitsSettings().shutdown_deadline + CLOSING + GRACE, float(timeout[1]))

    def test_the_daemon_tells_how_it_is(self) -> None:
        for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=60", "LimitCORE=0"):
            self.assertIn(f"\n{line}\n", self.text)

    def test_sighup_is_ignored_before_python_starts(self) -> None:
        self.assertIn("\nExecStart=/usr/bin/env --ignore-signal=HUP /opt/amqprouter/bin/twistd ", self.text)
