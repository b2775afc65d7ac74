"""How the story is told: one line for each step, with its time; and how it runs commands and waits."""
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class Failed(Exception):
    """A step did not hold; the message says what was seen and what was expected."""

    told = False


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


class Teller:
    """Tells each step in one line with its time."""

    def __init__(self):
        self.started = time.monotonic()

    def step(self, title, action, *arguments):
        begun = time.monotonic()
        if COLOUR:
            print(f"   … {title}", end="\r", flush=True)
        try:
            detail = action(*arguments)
        except Failed as failure:
            print(f" {paint(31, 'FAIL')} {title}\n      {failure}", flush=True)
            failure.told = True
            raise
        took = f"{time.monotonic() - begun:6.1f} s"
        print(f" {paint(32, ' ok ')} {took}  {title}" + (f": {detail}" if detail else ""), flush=True)

    def chapter(self, title):
        print(f"\n{paint(1, title)}", flush=True)

    def took(self):
        return time.monotonic() - self.started


def run(*command, env=None, stdin=None, quiet=True, cwd=ROOT):
    """Runs a command; its output is shown only when it fails, or when it takes minutes (quiet=False)."""
    words = [str(part) for part in command]
    try:
        result = subprocess.run(
            words, cwd=cwd, env=env, text=True, input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None)
    except FileNotFoundError:
        raise Failed(f"{words[0]} is not installed on this machine, or not on the PATH") from None
    if result.returncode:
        shown = "\n      ".join(((result.stderr or "") + result.stdout).strip().splitlines()[-25:])
        raise Failed(f"`{' '.join(words)}` ended with {result.returncode}:\n      {shown}")
    return result.stdout.strip()


def until(seconds, condition, expected, pause=0.1):
    """Asks again and again, with a pause between, until `condition` gives something; it may raise Failed meanwhile."""
    deadline, last = time.monotonic() + seconds, "nothing"
    while time.monotonic() < deadline:
        try:
            found = condition()
            if found:
                return found
        except Failed as failure:
            last = failure
        time.sleep(pause)
    raise Failed(f"not within {seconds} s: {expected}; last seen: {last}")
