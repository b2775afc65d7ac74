"""The parts that a bed can have, and what each needs of the others."""
import json
import signal
import socket
import urllib.error
import urllib.request

from . import tools
from .control_plane import ControlPlane
from .database import Mongo, Spare
from .node import Node, publish
from .report import BedError, wait_for
from .state import restart_command


class Api:
    """A control plane on 127.0.0.1, without a node: real schemas, rights, watches and garbage collection."""

    name = "api"
    needs_root, compiled = False, True
    # Whether it can be of another version of Kubernetes than the test bed's own.
    of_any_version = True
    compaction, manager = "5m", ()
    # Nothing on this machine is measured while the tests run, and they have memory.
    gogc = 400

    def __init__(self, bed):
        self.bed = bed

    @property
    def plane(self):
        ports = {name: self.bed.port(f"{self.name}-{name}") for name in ("api", "etcd", "etcd-peer")}
        return ControlPlane(self.bed, self.name, "127.0.0.1", ports, compaction=self.compaction, manager=self.manager,
                            gogc=self.gogc)

    def build(self):
        tools.apt("api")
        tools.cluster()
        tools.kubernetes(self.bed.kubernetes)

    def healthy(self):
        return self.plane.healthy()

    def environment(self):
        return {"KUBECONFIG": str(self.plane.kubeconfig)}

    def up(self):
        self.build()
        self.plane.up()

    def down(self):
        self.plane.down()


class SpareApi(Api):
    """A second one, for tests that restart theirs or break its schemas under the others' feet. It soon forgets the past."""

    name = "spare-api"
    compaction = "1s"

    def environment(self):
        return {"SPARE_KUBECONFIG": str(self.plane.kubeconfig), "SPARE_API_RESTART": restart_command(self.bed, self.name),
                "SPARE_API_SAVE": f"{restart_command(self.bed, self.name)} --save",
                "SPARE_API_RESTORE": f"{restart_command(self.bed, self.name)} --restore"}


class InstallApi(Api):
    """A third one, for tests that install the operator, which may be there once: what they do takes minutes, and so none of them
    waits for those of the second."""

    name = "install-api"

    def environment(self):
        return {"INSTALL_KUBECONFIG": str(self.plane.kubeconfig)}


class BareApi(Api):
    """One for benchmarks, in which nobody but the operator makes anything of its objects: they are only collected."""

    name = "bare-api"
    manager = ("--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller",)
    gogc = 100

    def environment(self):
        return {"BARE_KUBECONFIG": str(self.plane.kubeconfig)}


class Kwok(Api):
    """One with nodes and pods that only pretend to run."""

    name = "kwok"
    # Its scheduler is the test bed's.
    of_any_version = False
    nodes = 10
    # They do not tell often enough that they are alive.
    manager = ("--node-monitor-grace-period=24h",)
    gogc = 100

    def __init__(self, bed):
        super().__init__(bed)
        self.scheduler, self.kwok = (bed.process(self.name, name) for name in ("kube-scheduler", "kwok"))

    def build(self):
        super().build()
        tools.go_tool("kwok")

    def healthy(self):
        return super().healthy() and self.scheduler.alive() and self.kwok.alive()

    def environment(self):
        return {"KWOK_KUBECONFIG": str(self.plane.kubeconfig)}

    def up(self):
        super().up()
        plane, folder = self.plane, self.bed.part_folder(self.name)
        if not self.scheduler.alive():
            self.scheduler.start(tools.cluster() / "kube-scheduler", f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false",
                                 "--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000")
        if not self.kwok.alive():
            self.kwok.start(tools.go_tool("kwok"), f"--kubeconfig={plane.kubeconfig}", "--manage-all-nodes=true", cwd=folder)
        nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"kwok-{number}"}} for number in range(self.nodes)]
        if not plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes})):
            raise BedError("kwok: the nodes cannot be made; see `dev/bed logs kwok`")
        wait_for("kwok", "the nodes", lambda: plane.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=8s"), 60,
                 self.kwok.log, self.kwok.alive)

    def down(self):
        for process in (self.kwok, self.scheduler):
            process.stop(seconds=3)
        super().down()


class Nats:
    """NATS with JetStream."""

    name = "nats"
    needs_root, compiled = False, False

    def __init__(self, bed):
        self.bed, self.server = bed, bed.process("nats", "nats-server")

    def build(self):
        tools.pypi_tool("nats-server")

    def healthy(self):
        return self.server.alive()

    def environment(self):
        return {"TEST_NATS_URL": f"nats://127.0.0.1:{self.bed.port('nats')}", "NATS_SERVER": str(tools.pypi_tool("nats-server"))}

    def up(self):
        self.build()
        folder = self.bed.part_folder("nats")
        if not self.server.alive():
            self.bed.renew_port("nats")
        port = self.bed.port("nats")
        if not self.server.alive():
            self.server.start(tools.pypi_tool("nats-server"), "--addr", "127.0.0.1", "--port", port, "--jetstream",
                              "--store_dir", folder / "jetstream")
        wait_for("nats", "nats-server", lambda: answers(port), 20, self.server.log, self.server.alive)

    def down(self):
        self.server.stop()


class Stan:
    """NATS Streaming. It keeps everything in memory, and as many channels as tests make."""

    name = "stan"
    needs_root, compiled = False, False

    def __init__(self, bed):
        self.bed, self.server = bed, bed.process("stan", "nats-streaming-server")

    def build(self):
        tools.go_tool("nats-streaming-server")

    def healthy(self):
        return self.server.alive()

    def environment(self):
        return {"TEST_STREAMING_URL": f"nats://127.0.0.1:{self.bed.port('stan')}",
                "TEST_STREAMING_MONITOR": f"http://127.0.0.1:{self.bed.port('stan-monitor')}",
                "NATS_STREAMING_SERVER": str(tools.go_tool("nats-streaming-server"))}

    def up(self):
        self.build()
        folder = self.bed.part_folder("stan")
        if not self.server.alive():
            for port in ("stan", "stan-monitor"):
                self.bed.renew_port(port)
            # Its port answers before it knows clusters; the log has that of the runs before, too.
            self.server.log.unlink(missing_ok=True)
            self.server.start(tools.go_tool("nats-streaming-server"), "--addr", "127.0.0.1", "--port", self.bed.port("stan"),
                              "--http_port", self.bed.port("stan-monitor"), "--cluster_id", "ticketing", "--max_channels", 0,
                              "--pid", folder / "number")
        wait_for("stan", "nats-streaming-server", lambda: "Streaming Server is ready" in self.server.log.read_text(), 20,
                 self.server.log, self.server.alive)

    def down(self):
        self.server.stop()


class Ingress:
    """Traefik in the node's namespaces, published on a port of the host's loopback; and its API, which tells what rules it has."""

    name = "ingress"
    needs_root, compiled = True, True

    def __init__(self, bed):
        self.bed, self.node = bed, Node(bed)
        # What is published: by the name of its port, the address inside. No pod reaches the API.
        self.published = {"ingress": ("http", f"{self.node.families.first.host}:80"), "ingress-api": ("api", "127.0.0.1:8080")}
        self.traefik = bed.process("ingress", "traefik")
        self.relays = {port: [bed.process("ingress", f"{name}-{side}") for side in ("inside", "outside")]
                       for port, (name, _) in self.published.items()}

    def build(self):
        self.node.build()
        tools.pypi_tool("traefik")

    def healthy(self):
        return self.traefik.alive() and all(relay.alive() for pair in self.relays.values() for relay in pair)

    def environment(self):
        return {"INGRESS_URL": f"http://127.0.0.1:{self.bed.port('ingress')}",
                "INGRESS_API_URL": f"http://127.0.0.1:{self.bed.port('ingress-api')}/api"}

    def up(self):
        self.build()
        folder = self.bed.part_folder("ingress")
        ingress_class = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "traefik"},
                         "spec": {"controller": "traefik.io/ingress-controller"}}
        if not self.node.plane.kubectl("apply", "-f", "-", stdin=json.dumps(ingress_class)):
            raise BedError("ingress: the IngressClass cannot be made; see `dev/bed logs node`")
        if not self.traefik.alive():
            self.traefik.start(
                *self.node.inside(), tools.pypi_tool("traefik"), "--entrypoints.web.address=:80", "--ping=true",
                "--ping.entrypoint=web", "--api.insecure=true", "--api.dashboard=false", "--entrypoints.traefik.address=127.0.0.1:8080",
                "--providers.kubernetesingress=true", "--providers.providersthrottleduration=200ms",
                "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=INFO",
                env={"KUBECONFIG": str(self.node.plane.kubeconfig)}, cwd=folder)
        for port, (_, target) in self.published.items():
            inner, outer = self.relays[port]
            if not outer.alive():
                self.bed.renew_port(port)
            publish(self.bed, "ingress", self.node.inside(), target, self.bed.port(port), inner, outer)
        answers = (f"{self.environment()['INGRESS_URL']}/ping", f"{self.environment()['INGRESS_API_URL']}/version")
        wait_for("ingress", "Traefik", lambda: all(map(http_ok, answers)), 60, self.traefik.log, self.traefik.alive)

    def down(self):
        for process in (*(relay for pair in self.relays.values() for relay in reversed(pair)), self.traefik):
            process.stop(signal.SIGKILL)


class Planes:
    """Traefik and nginx as programs, and the Gateway API, for tests that start their own and ask them for routes; and
    kstatus, by which Flux and others wait."""

    name = "planes"
    needs_root, compiled = False, False

    def __init__(self, bed):
        self.bed = bed

    def build(self):
        tools.apt(self.name)
        tools.pypi_tool("traefik")
        tools.debian_files("nginx")
        tools.go_files("gateway-api")
        tools.go_program("kstatus")

    def healthy(self):
        return True

    def environment(self):
        return {"TRAEFIK": str(tools.pypi_tool("traefik")), "NGINX": str(tools.debian_files("nginx") / "usr/sbin/nginx"),
                "GATEWAY_API_CRDS": str(tools.go_files("gateway-api")), "KSTATUS": str(tools.go_program("kstatus"))}

    def up(self):
        self.build()
        self.bed.part_folder(self.name)

    def down(self):
        pass


class MorePlanes(Planes):
    """Contour with Envoy, HAProxy and Caddy as programs, for tests of which building the first takes too long for each run."""

    name = "more-planes"

    def build(self):
        tools.apt(self.name)
        for program in ("envoy", "caddy"):
            tools.pypi_tool(program)
        tools.debian_files("haproxy")
        tools.go_files("contour-crds")
        tools.go_tool("contour")

    def environment(self):
        return {"CONTOUR": str(tools.go_tool("contour")), "CONTOUR_CRDS": str(tools.go_files("contour-crds") / "01-crds.yaml"),
                "ENVOY": str(tools.pypi_tool("envoy")), "HAPROXY": str(tools.debian_files("haproxy") / "usr/sbin/haproxy"),
                "CADDY": str(tools.pypi_tool("caddy"))}


# In the order in which they come up; they go down in the other.
PARTS = {part.name: part for part in (Api, SpareApi, InstallApi, BareApi, Kwok, Mongo, Spare, Nats, Stan, Node, Ingress, Planes, MorePlanes)}
NEEDS = {"ingress": ["node"]}


def with_needs(names):
    wanted = set(names)
    for name in names:
        wanted.update(NEEDS.get(name, []))
    return [name for name in PARTS if name in wanted]


def answers(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def http_ok(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
