"""What the bed tells: how far anything is that takes long, and errors that name part and log."""
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

COLOUR = sys.stderr.isatty() and "NO_COLOR" not in os.environ


class BedError(Exception):
    """Something did not come up; the message is for the person at the terminal."""


def say(text):
    print(f"bed: {text}", file=sys.stderr, flush=True)


def log_tail(log, lines=15):
    try:
        return "\n".join("    " + line for line in Path(log).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "    (no log)"


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Step:
    """How far a step is: `done` of `total` things, where it can count them, and how long it took when it was last run."""

    def __init__(self, title, unit, estimate):
        self.title, self.unit, self.estimate = title, unit, estimate
        self.begun, self.done, self.total = time.monotonic(), 0, 0

    def __str__(self):
        took = time.monotonic() - self.begun
        text = f"{self.title}: {took:.0f} s"
        if self.total:
            text += f", {self.done} of {self.total} {self.unit}"
        left = self.estimate - took
        if self.total and self.done > self.total / 4:
            left = took * (self.total - self.done) / self.done
        return text + (f", about {duration(left)} left" if left > 1 else "")


@contextmanager
def step(title, unit="", seconds=0, times=None):
    """Tells a step when it takes more than two seconds, how far it is every half minute, and its end.

    `seconds` is what it takes on two cores; where `times` is a file, what the last run took counts instead.
    """
    name = title.split(":")[0]
    this = Step(title, unit, last_times(times).get(name, seconds))
    over = threading.Event()

    def tick():
        wait = 2
        while not over.wait(wait):
            say(f"{this} ...")
            wait = 30

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield this
    finally:
        over.set()
        ticker.join()
    took = time.monotonic() - this.begun
    if took > 2:
        say(f"{title}: done in {took:.1f} s")
        if times:
            remember_time(times, name, round(took))


def last_times(file):
    try:
        return json.loads(file.read_text())
    except (AttributeError, OSError, ValueError):
        return {}


def remember_time(file, name, seconds):
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
    new.write_text(json.dumps(last_times(file) | {name: seconds}, indent=2))
    new.rename(file)


def wait_for(part, what, probe, seconds, log=None, alive=lambda: True):
    """Waits until `probe` is true; a process that ended, or the time, is an error with its log."""
    deadline = time.monotonic() + seconds
    while True:
        if probe():
            return
        ended = not alive()
        if ended or time.monotonic() > deadline:
            why = "its process ended" if ended else f"not within {seconds} s"
            tail = f"\n  its log, {log}, ends with:\n{log_tail(log)}" if log else ""
            raise BedError(f"{part}: {what} did not come up: {why}{tail}")
        time.sleep(0.05)
