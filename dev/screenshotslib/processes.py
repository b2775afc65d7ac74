"""Processes that end with the script, whatever becomes of it, and what they write."""
import json
import os
import subprocess
import time
import urllib.request

from bedlib.report import BedError, log_tail
from bedlib.state import free_port, signal_and_wait


class Processes:
    """What was started, each with its log in one folder."""

    def __init__(self, folder):
        self.folder, self.children, self.ports = folder, {}, set()

    def port(self):
        port = free_port(self.ports)
        self.ports.add(port)
        return port

    def start(self, name, *command, env=None):
        with open(self.folder / f"{name}.log", "ab") as log:
            self.children[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={key: os.environ[key] for key in ("PATH", "HOME")} | (env or {}))

    def wait_for_page(self, name, url, seconds=60):
        """Waits until a page of this process is there."""
        deadline, answer = time.monotonic() + seconds, "none"
        while time.monotonic() < deadline and self.children[name].poll() is None:
            try:
                read(url)
                return
            except OSError as error:
                answer = error
            time.sleep(0.1)
        raise BedError(f"screenshots: {name} does not serve {url}: {answer}; its log ends with:\n{log_tail(self.folder / f'{name}.log')}")

    def stop(self):
        signal_and_wait([child.pid for child in self.children.values() if child.poll() is None])


def read(url):
    """A page."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def kubectl(*words, objects=None):
    """Runs kubectl, on the standard input of which are these objects."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}) if objects else None
    answer = subprocess.run(["kubectl", *words], input=text, text=True, capture_output=True)
    if answer.returncode:
        raise BedError(f"screenshots: kubectl {' '.join(words)}: {answer.stderr.strip()}")
    return answer.stdout
