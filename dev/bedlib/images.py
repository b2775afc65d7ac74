"""Images without a daemon or a registry: built by buildah, kept as archives."""
import os
import time
from pathlib import Path

from . import tools
from .report import BedError, step
from .state import CACHE, locked

PAUSE = "localhost/pause:bed"
PAUSE_SOURCE = """#include <signal.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
"""


def archive_of(image):
    return CACHE / "images" / (image.replace("/", "_").replace(":", "_") + ".tar")


def build(image, folder, dockerfile=None, contexts=(), archive=None, options=()):
    """Builds `image` from a folder and keeps it as an archive, whose path it gives: one of docker's in the cache, or one of
    OCI's at `archive`."""
    tools.apt("node")
    kind, kept = ("oci-archive", True) if archive else ("docker-archive", False)
    archive = archive or archive_of(image)
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_suffix(".new")
    # No root file system is needed beyond what COPY brings, so plain copies do for storage.
    storage = ["buildah", "--root", CACHE / "buildah", "--runroot", CACHE / "buildah-run", "--storage-driver", "vfs"]
    command = [*storage, "bud", "--isolation", "chroot", "--quiet", "-t", image, *options]
    for context in contexts:
        command += ["--build-context", context]
    if dockerfile:
        command += ["-f", dockerfile]
    log = tools.log_of("buildah")
    with locked(CACHE / "locks" / "buildah"), step(f"building image {image}"):
        tools.run("image", list(map(str, [*command, folder])), log)
        # Push refuses to overwrite an archive.
        temporary.unlink(missing_ok=True)
        tools.run("image", list(map(str, [*storage, "push", "--quiet", image, f"{kind}:{temporary}:{image}"])), log)
        tools.run("image", list(map(str, [*storage, "rmi", "--force", image])), log)
        temporary.rename(archive)
    if kept:
        return archive
    # Every change of a program makes another tag; nobody asks for the old ones again.
    for old in archive.parent.glob(archive_of(image.rsplit(":", 1)[0]).stem + "_*.tar"):
        if old != archive and old.stat().st_mtime < time.time() - 3600:
            old.unlink(missing_ok=True)
    return archive


def pause():
    """The archive of the image that holds a pod's namespaces."""
    archive = archive_of(PAUSE)
    if archive.exists():
        return archive

    def compile_pause(folder):
        (folder / "pause.c").write_text(PAUSE_SOURCE)
        tools.run("node", ["gcc", "-Os", "-static", "-o", str(folder / "pause"), str(folder / "pause.c")], tools.log_of("pause"))
        (folder / "Dockerfile").write_text('FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n')

    return build(PAUSE, tools.cached("tools/pause", compile_pause))


def find(name):
    """The archive of an image that was built, or of a file."""
    for path in (Path(name), archive_of(name)):
        if path.is_file():
            return path
    raise BedError(f"image: neither a file nor a built image: {name}; build it with `dev/bed image build`")


def describe(archive):
    size = os.stat(archive).st_size
    return f"{size / 1e6:.1f} MB"
