"""The command line of the bed."""
import argparse
import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from . import cargo, images, tools
from .parts import PARTS, with_needs
from .report import BedError, say, step
from .state import CACHE, Bed, signal_and_wait

EXAMPLES = """parts:
  api        etcd, API server and controller manager on 127.0.0.1, no node
  spare-api  a second one, which tests may restart and break
  install-api a third one, in which tests install the operator
  bare-api   a third one, for benchmarks, which only collects garbage
  kwok       a fourth one, with pods that only pretend to run
  mongo      a database that speaks MongoDB's protocol, on 127.0.0.1
  spare      a second one, which tests may restart
  nats       NATS with JetStream, on 127.0.0.1
  stan       NATS Streaming, on 127.0.0.1
  node       a cluster of one node with a kubelet, in namespaces of its own
  ingress    Traefik in that cluster, published on 127.0.0.1 (brings up the node too)
  planes     the programs Traefik and nginx, which tests start themselves
  more-planes  likewise Contour, Envoy, HAProxy and Caddy

examples:
  dev/bed up                              api and mongo: what most tests need
  dev/bed exec -- cargo test              run something with KUBECONFIG, MONGO_URI and the tools set
  eval "$(dev/bed env)"                   the same for this shell
  dev/bed up mongo node ingress           what `make demo` needs
  dev/bed logs node -f                    follow the logs of a part
  dev/bed restart api                     kill a part as a crash would, and bring it up with its data
  dev/bed --kubernetes 1.30 up api        in a bed of its own: a control plane of another version
  dev/bed down                            stop it all; nothing is left but the cache
"""


def parser():
    top = argparse.ArgumentParser(prog="dev/bed", description="Real parts of a cluster, for tests and the demo.",
                                  epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--kubernetes", choices=tools.control_planes(), metavar="MINOR",
                     help=f"of a bed of its own with control planes of another version: {', '.join(tools.control_planes())}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, text):
        return commands.add_parser(name, help=text, description=text)

    for name, text in (("up", "bring parts up, or find that they are"), ("build", "only fetch and build what parts need")):
        command(name, text).add_argument("parts", nargs="*", type=part_name, metavar="PART")
    again = command("restart", "kill a part's processes, and bring it up again with its data")
    again.add_argument("part", type=part_name, metavar="PART")
    data = again.add_mutually_exclusive_group()
    data.add_argument("--save", action="store_true", help="of a control plane: keep a copy of what its etcd has")
    data.add_argument("--restore", action="store_true", help="of a control plane: with that copy, as from a backup")
    command("status", "say what is up").add_argument("--json", action="store_true", help="for programs")
    command("env", "print the environment as shell commands")
    execute = command("exec", "run a command with that environment")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    logs = command("logs", "show the logs of a part")
    logs.add_argument("part", choices=PARTS)
    logs.add_argument("-f", "--follow", action="store_true")
    command("down", "stop everything of this checkout").add_argument("--all", action="store_true", help="of every checkout")
    command("tool", "print the path of a tool, built if it is not there").add_argument("tool", choices=[*tools.VERSIONS["cargo"], *tools.VERSIONS["go"], *tools.VERSIONS["go-programs"], *tools.VERSIONS["pypi"]])
    command("files", "print the folder with the files of Debian packages, fetched if they are not there").add_argument("name", choices=tools.VERSIONS["debian"])
    compile_command = command("cargo", "run a command of cargo's, and tell how far it is")
    compile_command.add_argument("title", help="what it does, for the person who waits")
    compile_command.add_argument("seconds", type=int, help="about how long it takes from nothing, on two cores")
    compile_command.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    image = command("image", "build or load container images").add_subparsers(dest="action", required=True, metavar="ACTION")
    build = image.add_parser("build", help="build an image without a registry, and load it if the node is up")
    build.add_argument("image")
    build.add_argument("folder")
    build.add_argument("--file", help="the Dockerfile, if not FOLDER/Dockerfile")
    build.add_argument("--build-context", action="append", default=[], metavar="NAME=FOLDER", help="in place of a stage or image")
    load = image.add_parser("load", help="load an image into the node")
    load.add_argument("image", help="an image that was built, or an archive")
    load.add_argument("--also", metavar="NAME", help="another name that it is to have there")
    return top


def part_name(text):
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"no part is called {text}; there are {', '.join(PARTS)}")
    return text


def main(arguments=None):
    options = parser().parse_args(arguments)
    # A caller without a login may lack these; programs of the parts are in the latter folders too.
    os.environ.setdefault("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    os.environ["PATH"] = os.environ.get("PATH", os.defpath)
    for folder in ("/usr/sbin", "/sbin"):
        if folder not in os.environ["PATH"].split(":"):
            os.environ["PATH"] += f":{folder}"
    # The database's user must be able to read what it runs, whatever the caller's habit.
    options.umask = os.umask(0o022)
    try:
        return globals()[f"command_{options.command}"](options, Bed(kubernetes=options.kubernetes)) or 0
    except BedError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {options.command}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def command_build(options, bed):
    # Only what is built: no folder, port or process of a bed.
    build([PARTS[name](bed) for name in with_needs(options.parts or (["api"] if bed.kubernetes else PARTS))])


def build(parts):
    """Fetches and builds what some parts need, side by side: most wait for the network while one compiles."""
    with ThreadPoolExecutor() as pool:
        compiling = [pool.submit(tools.cluster)] if any(part.compiled for part in parts) else []
        # All packages at once: each call of apt-get asks for the lists anew.
        tools.apt(*(part.name for part in parts))
        for each in [*compiling, *(pool.submit(part.build) for part in parts)]:
            each.result()


def command_up(options, bed):
    names = with_needs(options.parts or (["api"] if bed.kubernetes else ["api", "mongo"]))
    if bed.kubernetes and (fixed := [name for name in names if not getattr(PARTS[name], "of_any_version", False)]):
        raise BedError(f"{', '.join(fixed)}: only control planes can be of Kubernetes {bed.kubernetes}")
    collect_garbage()
    with bed.lock():
        bed.prepare()
        parts = [part for name in names if not is_as_wanted(bed, part := PARTS[name](bed))]
        for part in parts:
            if part.needs_root and os.geteuid() != 0:
                raise BedError(f"{part.name}: must be run as root, as it makes namespaces of its own")
        build(parts)
        for name in names:
            # Looked at again: the ingress finds the node's namespaces when it is made, and ends with a node that is replaced.
            part = PARTS[name](bed)
            if is_as_wanted(bed, part):
                continue
            bed.set_ready(part.name, False)
            with step(f"bringing up {part.name}"):
                part.up()
            bed.set_ready(part.name, True)
        link_tools(bed)


def command_restart(options, bed):
    with bed.lock():
        # Not as `down` does it: what comes without a warning is what restarts are tried for.
        signal_and_wait([pid for process in bed.processes(options.part) if (pid := process.pid())], first=signal.SIGKILL)
        data, copy = (bed.folder / options.part / name for name in ("etcd", "etcd-saved"))
        if (options.save or options.restore) and not (copy if options.restore else data).exists():
            raise BedError(f"{options.part}: there is nothing to {'restore' if options.restore else 'save'}")
        for source, target in ([(data, copy)] if options.save else [(copy, data)] if options.restore else []):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
    options.parts = [options.part]
    command_up(options, bed)


def is_as_wanted(bed, part):
    return is_up(bed, part) and (part.name != "node" or part.is_as_asked_for())


def is_up(bed, part):
    return bed.is_ready(part.name) and part.healthy()


def command_status(options, bed):
    states = {}
    for name, part in PARTS.items():
        if not (bed.folder / name).exists():
            states[name] = {"state": "down"}
            continue
        part = part(bed)
        healthy = is_up(bed, part)
        processes = {process.name: process.pid() for process in bed.processes(name)}
        states[name] = {"state": "up" if healthy else "broken", "processes": processes, **({"env": part.environment()} if healthy else {})}
    if options.json:
        print(json.dumps(states, indent=2))
        return
    for name, state in states.items():
        print(f"{name:10} {state['state']:7}" + "  ".join(f"{key}={value}" for key, value in state.get("env", {}).items()))
        for process, pid in state.get("processes", {}).items() if state["state"] == "broken" else ():
            print(f"             {process}: {'pid ' + str(pid) if pid else 'ended, see ' + str(bed.folder / name / process) + '.log'}")


def environment(bed):
    """What the parts that are up add to the environment."""
    values = {}
    for name, part in PARTS.items():
        if (bed.folder / name).exists():
            part = part(bed)
            if is_up(bed, part):
                values.update(part.environment())
    if not values:
        raise BedError("nothing is up: run `dev/bed up` first")
    if "NODE_KUBECONFIG" in values:
        values.setdefault("KUBECONFIG", values["NODE_KUBECONFIG"])
    values["BED_CACHE"], values["BED_STATE"] = str(CACHE), str(bed.folder)
    values["PATH"] = f"{bed.folder}/bin:" + os.environ.get("PATH", os.defpath)
    return values


def command_env(_options, bed):
    for name, value in environment(bed).items():
        print(f"export {name}={shlex.quote(value)}")


def command_exec(options, bed):
    words = command_of(options, "exec -- kubectl get pods")
    values = environment(bed)
    os.environ.update(values)
    os.umask(options.umask)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise BedError(f"exec: {words[0]}: {error.strerror}") from error


def command_of(options, example):
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise BedError(f"{options.command}: say what to run, as in `dev/bed {example}`")
    return words


def command_cargo(options, _bed):
    return cargo.run(options.title, options.seconds, command_of(options, "cargo compiling 60 -- cargo build"))


def command_logs(options, bed):
    logs = sorted((bed.folder / options.part).glob("*.log"))
    if not logs:
        raise BedError(f"{options.part}: no logs: it was not brought up")
    return subprocess.run(["tail", "-n", "50", *(["-F"] if options.follow else []), *map(str, logs)]).returncode


def command_down(options, bed):
    # What this checkout has of other versions goes with its own bed.
    others = [each for each in Bed.all() if each.kubernetes and each.checkout == bed.checkout and not bed.kubernetes]
    for each in Bed.all() if options.all else [bed, *others]:
        take_down(each)


def command_tool(options, _bed):
    kinds = {"cargo": tools.cargo_tool, "go": tools.go_tool, "go-programs": tools.go_program, "pypi": tools.pypi_tool}
    print(next(get for kind, get in kinds.items() if options.tool in tools.VERSIONS[kind])(options.tool))


def command_files(options, _bed):
    print(tools.debian_files(options.name))


def command_image(options, bed):
    node = PARTS["node"](bed) if (bed.folder / "node").exists() else None
    if options.action == "build":
        archive = images.build(options.image, options.folder, options.file, options.build_context)
        say(f"image {options.image}: {images.describe(archive)}")
        # Not into one that is about to be replaced.
        if node and is_as_wanted(bed, node):
            node.load(archive)
        return
    if not node or not node.healthy():
        raise BedError("image: the node is not up: run `dev/bed up node` first")
    node.load(images.find(options.image))
    if options.also:
        node.tag(options.image, options.also)


def link_tools(bed):
    folder = bed.folder / "bin"
    folder.mkdir(exist_ok=True)
    for name in ("kubectl", "helm"):
        target = tools.cluster() / name
        link = folder / name
        if not link.is_symlink() or os.readlink(link) != str(target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def collect_garbage():
    """Takes down the beds of checkouts that are gone, and what a killed `down` left."""
    for folder in (CACHE / "beds").glob("*.gone"):
        shutil.rmtree(folder, ignore_errors=True)
    for bed in Bed.all():
        if not bed.checkout.exists():
            say(f"its checkout is gone: taking down {bed}")
            take_down(bed)


def take_down(bed):
    if not bed.folder.exists():
        return
    with bed.lock(), step(f"taking down {bed}"):
        for name in reversed(PARTS):
            if (bed.folder / name).exists():
                PARTS[name](bed).down()
        signal_and_wait(list(bed.strays()), 3)
        bed.remove()


if __name__ == "__main__":
    sys.exit(main())
