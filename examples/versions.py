"""Prints the table of docs/ecosystem.rst: what the examples' tests would run with here, and in which versions."""

import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    *("pika", "aio-pika", "amqp", "kombu", "rabbitpy", "amqpstorm", "paho-mqtt"),
    *("celery", "flask", "waitress", "eve", "pymongo", "tornado"),
)


def of_package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def of_debian(name: str) -> str:
    if not shutil.which("dpkg-query"):
        return "unknown"
    command = ["dpkg-query", "--show", "--showformat=${Version}", name]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return re.sub(r"^\d+:|-.*", "", found) or "not installed"


rows = [("Python", platform.python_version()), *((name, of_package(name)) for name in PACKAGES)]
rows += [
    (f"{name} (Debian)", of_debian(name))
    for name in ("rabbitmq-server", "amqp-tools", "nginx-light", "haproxy", "apache2-bin", "uwsgi-core")
]
width = max(len(name) for name, _ in rows)
rule = f"{'=' * width}  {'=' * 14}"
print(rule, f"{'what':{width}}  version", rule, *(f"{name:{width}}  {found}" for name, found in rows), rule, sep="\n")
