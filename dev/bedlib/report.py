"""What the bed tells: progress of anything that takes long, and errors that name part and log."""
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


@contextmanager
def step(title):
    """Tells a step when it takes more than two seconds, every half minute, and at its end."""
    begun, done = time.monotonic(), threading.Event()

    def tick():
        wait = 2
        while not done.wait(wait):
            say(f"{title} ... {time.monotonic() - begun:.0f} s")
            wait = 30

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    took = time.monotonic() - begun
    if took > 2:
        say(f"{title}: done in {took:.1f} s")


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
