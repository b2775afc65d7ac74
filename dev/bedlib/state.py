"""Where a bed keeps what it has: folders, ports, and the processes that are its own.

Each checkout has a bed of its own, named by a hash of the checkout's path, so two never collide; and one more for each other
version of Kubernetes that it tries.
A process is remembered by its number and its start time: a number that was given to another
process since is never killed.
"""
import fcntl
import hashlib
import json
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from .report import BedError, say

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def cache_folder():
    home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    base = os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return Path(os.environ.get("ORDERS_CACHE") or f"{base}/orders-operator").absolute()


CACHE = cache_folder()


@contextmanager
def locked(path):
    """Holds a lock file; the lock goes with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another run of the bed, which holds {path}")
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it may have removed the file: then the lock is on a file that nobody else sees.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield
                return


def daemon_environment():
    """What a daemon needs, and nothing else of the caller: no proxy, no KUBECONFIG, no locale."""
    return {name: os.environ[name] for name in ("PATH", "HOME")} | {"LC_ALL": "C.UTF-8"}


def start_time(pid):
    """The start time of a live process in clock ticks since boot, else None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def signal_and_wait(pids, seconds=10, first=signal.SIGTERM):
    """Ends processes: politely, then not."""
    known = {pid: start_time(pid) for pid in pids}
    for number, patience in ((first, seconds), (signal.SIGKILL, 5)):
        left = [pid for pid, started in known.items() if started is not None and start_time(pid) == started]
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            left = [pid for pid in left if start_time(pid) == known[pid]]
            time.sleep(0.02)
        if not left:
            return


class Bed:
    """The folders, ports and processes of one bed; `kubernetes` is the minor version of its control planes, where that is not
    the test bed's own."""

    def __init__(self, checkout=CHECKOUT, kubernetes=None):
        self.checkout, self.kubernetes = Path(checkout), kubernetes
        self.id = hashlib.sha256(str(self.checkout).encode()).hexdigest()[:8] + (f"-{kubernetes}" if kubernetes else "")
        # Short: paths of Unix sockets must be under 108 bytes.
        self.folder = CACHE / "beds" / self.id

    def __str__(self):
        return f"the bed of {self.checkout}" + (f" with Kubernetes {self.kubernetes}" if self.kubernetes else "")

    @classmethod
    def all(cls):
        """Every bed that left a folder, by the checkout that it wrote there."""
        beds = []
        for note in (CACHE / "beds").glob("*/checkout"):
            name = re.fullmatch(r"[0-9a-f]{8}(?:-([0-9.]+))?", note.parent.name)
            if not name:
                continue
            bed = cls(note.read_text(), name[1])
            bed.folder = note.parent
            bed.id = note.parent.name
            beds.append(bed)
        return beds

    def lock(self):
        return locked(CACHE / "beds" / f"{self.id}.lock")

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "checkout", str(self.checkout))

    def part_folder(self, part):
        folder = self.folder / part
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def ports(self):
        try:
            return json.loads((self.folder / "ports.json").read_text())
        except (OSError, ValueError):
            return {}

    def port(self, name):
        """The port of this name on 127.0.0.1; chosen once, so that addresses stay the same."""
        ports = self.ports()
        if name not in ports:
            taken = set(ports.values())
            for other in Bed.all():
                taken |= set(other.ports().values())
            ports[name] = free_port(taken)
            write_whole(self.folder / "ports.json", json.dumps(ports))
        return ports[name]

    def renew_port(self, name):
        """Before something listens there: whether another port had to be chosen, as this one is taken."""
        if name not in self.ports():
            return False
        # One that was killed just now may hold its port a little longer than its process number.
        for _ in range(40):
            if is_free(self.port(name)):
                return False
            time.sleep(0.05)
        ports = self.ports()
        old = ports.pop(name)
        write_whole(self.folder / "ports.json", json.dumps(ports))
        say(f"port {old} is taken by another program: {name} moves to {self.port(name)}")
        return True

    def is_ready(self, part):
        """Whether an `up` of the part came to its end; one that was killed half way has to be repeated."""
        return (self.folder / part / "ready").exists()

    def set_ready(self, part, ready):
        mark = self.folder / part / "ready"
        if ready:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def process(self, part, name):
        return Process(self, part, name)

    def processes(self, part):
        return [Process(self, part, file.stem) for file in sorted((self.folder / part).glob("*.pid"))]

    def strays(self):
        """Processes that name this bed's folder but have no pid file: left by a run that was killed."""
        mark = f"{self.folder}/".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
                try:
                    # Only programs of the bed; a shell or an editor may name the folder too.
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                program = os.path.basename(words[0]) if words else b""
                if program in BED_PROGRAMS and any(mark in word for word in words):
                    yield int(entry.name)

    def remove(self):
        """Removes the folder and the lock, which the caller holds."""
        # By another name first: a run that is killed here must not leave half of a bed.
        gone = self.folder.with_name(f"{self.id}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        self.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        if gone.exists():
            raise BedError(f"cannot remove {gone}: is something mounted or running there?")
        (CACHE / "beds" / f"{self.id}.lock").unlink(missing_ok=True)


BED_PROGRAMS = {name.encode() for name in (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "containerd",
    "containerd-shim-runc-v2", "coredns", "traefik", "socat", "ferretdb", "kwok", "nats-server", "nats-streaming-server")}


def free_port(taken):
    # Below the range that the system hands out by itself, or a client's socket may sit on it later.
    for port in random.sample(range(20000, 32000), 200):
        if port not in taken and is_free(port):
            return port
    raise BedError("no free port between 20000 and 32000 on 127.0.0.1")


def is_free(port):
    with socket.socket() as probe:
        # As servers do: a connection that ended just now does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_whole(path, text):
    """Writes a file that others never see half written."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.rename(path)


# A daemon writes its own number and start time before it becomes the program: if the bed is killed between
# the two, nothing runs that is not written down.
STARTER = 'cut -d" " -f1,22 /proc/$$/stat > "$0.new" && mv "$0.new" "$0" && exec "$@"'


class Process:
    """One daemon of a part: its pid file and its log."""

    def __init__(self, bed, part, name):
        folder = bed.folder / part
        self.name, self.pid_file, self.log = name, folder / f"{name}.pid", folder / f"{name}.log"

    def pid(self):
        """The number of the process, if it is alive and still the one that was started."""
        try:
            pid, started = map(int, self.pid_file.read_text().split())
        except (OSError, ValueError):
            return None
        return pid if start_time(pid) == started else None

    def alive(self):
        return self.pid() is not None

    def start(self, *command, env=None, cwd="/"):
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                ["sh", "-c", STARTER, str(self.pid_file), *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=cwd, env=daemon_environment() | (env or {}))
        while not self.pid_file.exists() and child.poll() is None:
            time.sleep(0.002)

    def stop(self, first=signal.SIGTERM, seconds=10):
        pid = self.pid()
        if pid:
            signal_and_wait([pid], seconds, first)
        self.pid_file.unlink(missing_ok=True)


def restart_command(bed, part):
    """What a test runs to have a part killed and brought up again."""
    version = f" --kubernetes {bed.kubernetes}" if bed.kubernetes else ""
    return f"{shlex.quote(str(bed.checkout / 'dev/bed'))}{version} restart {part}"
