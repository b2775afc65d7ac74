"""The mongo part: FerretDB, which speaks MongoDB's protocol, on PostgreSQL with DocumentDB."""
import os
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

from . import tools
from .report import BedError, say, step, wait_for
from .state import restart_command, signal_and_wait

USER = "nobody"
# The Node.js service's side of the database, which tests run beside ours.
CLIENT = "tests/mongoose"
CONFIG = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
dynamic_shared_memory_type = mmap
shared_preload_libraries = 'pg_cron,pg_documentdb_core,pg_documentdb'
cron.database_name = 'postgres'
cron.host = '127.0.0.1'
documentdb.localhost_connection_string = 'host=127.0.0.1'
documentdb.throwDeadlockOnCRUD = on
documentdb.force_index_builds_blocking = on
documentdb_core.enableCollation = on
deadlock_timeout = '20ms'
max_connections = 300
shared_buffers = 512MB
# What was acknowledged survives a crash of PostgreSQL, though not one of the machine.
fsync = off
"""


class Mongo:
    """PostgreSQL and, before it, FerretDB."""

    name = "mongo"
    needs_root, compiled = True, True

    def __init__(self, bed):
        self.bed = bed
        self.postgres, self.ferret = bed.process(self.name, "postgres"), bed.process(self.name, "ferretdb")
        self.port_name, self.postgres_port_name = self.name, f"{self.name}-postgres"

    def build(self):
        tools.apt("mongo")
        tools.documentdb()
        tools.cluster()
        tools.node_packages(CLIENT)

    def healthy(self):
        return self.postgres.alive() and self.ferret.alive()

    def environment(self):
        return {"MONGO_URI": self.uri(), "NODE_PATH": str(tools.node_packages(CLIENT))}

    def uri(self):
        return f"mongodb://127.0.0.1:{self.bed.port(self.port_name)}/"

    @property
    def socket(self):
        return self.bed.folder / self.name / "ferret.sock"

    def up(self):
        self.build()
        folder = self.bed.part_folder(self.name)
        if not self.postgres.alive():
            self.ferret.stop()
            self._kill_backends(folder / "data")
            try:
                self._start_postgres(folder)
            except BedError:
                # A machine that was switched off may have left half-written files. The data of a
                # test bed is worth nothing: begin with an empty one, once.
                if not (folder / "was-up").exists():
                    raise
                say(f"{self.name}: its data cannot be used any more: beginning with an empty database")
                self.postgres.stop(signal.SIGQUIT)
                shutil.rmtree(folder / "data", ignore_errors=True)
                self._start_postgres(folder)
        # Also where PostgreSQL ran already: the run that started it may have been killed before it came here.
        wait_for(self.name, "PostgreSQL", lambda: self._psql("select 1"), 60, self.postgres.log, self.postgres.alive)
        if not self._psql("CREATE EXTENSION IF NOT EXISTS documentdb CASCADE"):
            raise BedError(f"{self.name}: the DocumentDB extension cannot be made; see {self.postgres.log}")
        if not self.ferret.alive():
            self.bed.renew_port(self.port_name)
            self.socket.unlink(missing_ok=True)
            (folder / "ferret").mkdir(exist_ok=True)
            self.ferret.start(
                tools.cluster() / "ferretdb", f"--listen-addr=127.0.0.1:{self.bed.port(self.port_name)}",
                f"--listen-unix={self.socket}", "--debug-addr=-", "--telemetry=disable", "--auth=false",
                "--log-level=WARN", f"--state-dir={folder / 'ferret'}",
                f"--postgresql-url=postgres://postgres@127.0.0.1:{self.bed.port(self.postgres_port_name)}/postgres")
        wait_for(self.name, "FerretDB", lambda: ping(self.socket), 30, self.ferret.log, self.ferret.alive)
        (folder / "was-up").touch()

    def down(self):
        self.ferret.stop()
        self.postgres.stop(signal.SIGQUIT)
        self._kill_backends(self.bed.folder / self.name / "data")

    def _kill_backends(self, data):
        """Ends what a PostgreSQL that was killed left running; two on one data folder would spoil it."""
        if not data.exists():
            return
        folder, pids = data.stat(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    # Compared by inode: in the processes' mount namespace the folder has another name.
                    if os.path.samestat((entry / "cwd").stat(), folder) and (entry / "cmdline").read_bytes().find(b"postgres") >= 0:
                        pids.append(int(entry.name))
                except OSError:
                    continue
        signal_and_wait(pids, 3, signal.SIGKILL)

    def _start_postgres(self, folder):
        data = folder / "data"
        if not data.exists():
            # By another name until it is whole: a run that is killed here leaves nothing that looks usable.
            new = folder / "data.new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            shutil.chown(new, USER)
            with step("making an empty database"):
                tools.run(self.name, self._as_user(
                    new, "--argv0 /mnt/initdb-bin/initdb", "initdb", "-D /media -U postgres --auth=trust "
                    "--encoding=UTF8 --locale=C.UTF-8 -L /mnt/usr/share/postgresql/18 -N"), folder / "initdb.log")
            with open(new / "postgresql.conf", "a") as config:
                config.write(CONFIG)
            new.rename(data)
        self.bed.renew_port(self.postgres_port_name)
        (data / "postmaster.pid").unlink(missing_ok=True)
        self.postgres.start(*self._as_user(data, "--argv0 /mnt/usr/lib/postgresql/18/bin/postgres", "postgres",
                                           f"-D /media -p {self.bed.port(self.postgres_port_name)}"))
        wait_for(self.name, "PostgreSQL", lambda: self._psql("select 1"), 60, self.postgres.log, self.postgres.alive)

    def _as_user(self, data, argv0, program, arguments):
        """A command that runs a program of PostgreSQL as an unprivileged user, which it insists on.

        That user could not reach a cache in a home folder that only its owner may enter. So the two
        folders it needs are mounted where anyone may go, in a mount namespace that only this process
        has and that ends with it. `exec` keeps the process number, so that signals reach it.
        """
        root = tools.documentdb()
        group = subprocess.run(["id", "-gn", USER], capture_output=True, text=True, check=True).stdout.strip()
        script = (
            f"mount --bind '{_initdb_folder(root)}' /mnt && mount --bind '{data}' /media && cd / && "
            f"exec setpriv --reuid={USER} --regid={group} --clear-groups env -i LC_ALL=C.UTF-8 PATH=/usr/bin:/bin "
            f"{' '.join(loader(root, '/mnt'))} {argv0} /mnt/usr/lib/postgresql/18/bin/{program} {arguments}")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    def _psql(self, statement):
        root = tools.documentdb()
        result = subprocess.run(
            [*loader(root, root), root / "usr/lib/postgresql/18/bin/psql",
             "-h", "127.0.0.1", "-p", str(self.bed.port(self.postgres_port_name)), "-U", "postgres", "-d", "postgres", "-qAt", "-c", statement],
            stdin=subprocess.DEVNULL, capture_output=True,
            env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning", "PGCONNECT_TIMEOUT": "5"})
        return result.returncode == 0


class Spare(Mongo):
    """A second database, for tests that restart theirs under the others' feet."""

    name = "spare"

    def build(self):
        super().build()
        tools.apt("spare")

    def environment(self):
        # The library by which a test's process has another time.
        faketime = next(Path("/usr/lib").glob("*-linux-gnu/faketime/libfaketime.so.1"), "")
        return {"SPARE_MONGO_URI": self.uri(), "SPARE_MONGO_RESTART": restart_command(self.bed, self.name),
                "LIBFAKETIME": str(faketime)}


def loader(root, seen_at):
    """What a command begins with to run with the libraries that were laid out, where they are seen at `seen_at`."""
    libraries = next(path for path in (root / "usr/lib").glob("*-linux-gnu"))
    program = next(libraries.glob("ld-linux-*.so.*")).name
    inside = f"{seen_at}/usr/lib/{libraries.name}"
    return [f"{inside}/{program}", "--library-path",
            f"{inside}:{inside}/blas:{inside}/lapack:{seen_at}/usr/lib/postgresql/18/lib"]


def _initdb_folder(root):
    """The root with a folder of wrappers in it: initdb runs `postgres` from beside its own name, and neither
    starts without the libraries that were laid out with them."""
    wrappers = root / "initdb-bin"
    if not (wrappers / "initdb").exists():
        wrappers.mkdir(exist_ok=True)
        binary, start = "/mnt/usr/lib/postgresql/18/bin/postgres", " ".join(loader(root, "/mnt"))
        for name in ("postgres", "initdb"):
            wrapper = wrappers / name
            wrapper.write_text(f'#!/bin/sh\nexec {start} --argv0 {binary} {binary} "$@"\n')
            wrapper.chmod(0o755)
    return root


def ping(path):
    """Whether MongoDB's `ping` is answered with ok at a socket file."""
    command = b"\x10ping\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0"
    document = struct.pack("<i", len(command) + 5) + command + b"\0"
    # An OP_MSG (2013) without flags, of one section of kind 0.
    message = struct.pack("<iiiiib", 21 + len(document), 1, 0, 2013, 0, 0) + document
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(message)
            return b"\x01ok\0" + struct.pack("<d", 1) in connection.recv(4096)
    except OSError:
        return False
