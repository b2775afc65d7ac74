"""The node part: a whole cluster with a kubelet, in namespaces of its own.

A holder process keeps a network and a mount namespace. Everything of the node runs in both, with the
folders that its programs insist on (/run/netns, /run/containerd, /var/lib/cni, /var/lib/kubelet, ...)
mounted from the bed's folder. So when the processes are gone, so are all mounts, interfaces and network
namespaces: the machine itself never had them. Only control groups are left, which `down` removes.
"""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import families, images, tools
from .control_plane import ControlPlane, write_kubeconfig
from .families import Families
from .report import BedError, say, step, wait_for
from .state import signal_and_wait, write_whole

PRIVATE_FOLDERS = ("/run/netns", "/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers")


class Node:
    """The cluster of one node."""

    name = "node"
    needs_root, compiled = True, True

    def __init__(self, bed):
        self.bed = bed
        self.folder = bed.folder / "node"
        self.holder = bed.process("node", "namespaces")
        self._have(self._made_with() or families.asked_for() or Families(families.DEFAULT))
        names = ("containerd", "kubelet", "kube-scheduler", "kube-proxy", "coredns", "mongo-inside", "api-inside", "api-outside")
        self.processes = {name: bed.process("node", name) for name in names}

    def _have(self, chosen):
        self.families = chosen
        # Inside, the ports are the usual ones: nobody else is there.
        ports = {"api": 6443, "etcd": 2379, "etcd-peer": 2380}
        self.plane = ControlPlane(self.bed, "node", chosen.first.address, ports, self.inside(), chosen)

    def _made_with(self):
        """The families of the node that is there, if there is one."""
        try:
            return Families((self.folder / "families").read_text())
        except OSError:
            return None

    def is_as_asked_for(self):
        """Whether it has what the caller wants, who may have no wish."""
        made, asked = self._made_with(), families.asked_for()
        return made is not None and asked in (None, made)

    @property
    def control_group(self):
        # By the folder, not by the checkout alone: one checkout may be used with two caches.
        return f"orders-operator-bed-{hashlib.sha256(str(self.bed.folder).encode()).hexdigest()[:8]}"

    def inside(self):
        """What a command begins with to run in the node's namespaces."""
        pid = self.holder.pid()
        # Not `ip netns exec`: it mounts /sys anew, and the control groups are gone.
        return ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--net=/proc/{pid}/ns/net", "--"] if pid else []

    def build(self):
        tools.apt("node")
        tools.cluster()
        images.pause()

    def healthy(self):
        return self.holder.alive() and self.plane.healthy() and all(process.alive() for process in self.processes.values())

    def environment(self):
        return {"NODE_KUBECONFIG": str(self.folder / "kubeconfig.host"), "NODE_INSIDE": str(self.folder / "inside"),
                "NODE_ADDRESSES": self.families.joined("address"), "NODE_MONGO_URI": f"mongodb://{self.families.first.host}:27017/"}

    def up(self):
        self.build()
        if not self.holder.alive() or not self.is_as_asked_for():
            # What ran in the namespaces that are lost cannot be reached any more; nor can Traefik, which is there too.
            for process in self.bed.processes("ingress"):
                process.stop(signal.SIGKILL)
            self.down()
            if not self.is_as_asked_for():
                # Nothing that the cluster has would fit.
                wanted = families.asked_for() or self.families
                if self._made_with():
                    say(f"node: it has {self.families.name}, and is made anew with {wanted.name}")
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                self._have(wanted)
            self.bed.part_folder("node")
            write_whole(self.folder / "families", self.families.name)
            self._make_namespaces()
        # For people and tests.
        inside = self.folder / "inside"
        write_whole(inside, f'#!/bin/sh\nexec {" ".join(self.inside())} "$@"\n')
        inside.chmod(0o755)
        self.plane.inside = self.inside()
        self.plane.up()
        self._start_containerd()
        self._start_agents()
        self._publish()
        kubelet = self.processes["kubelet"]
        wait_for("node", "the node", self._is_ready, 180, kubelet.log, kubelet.alive)

    def down(self):
        for name in ("kubelet", "kube-proxy", "kube-scheduler"):
            self.processes[name].stop(seconds=3)
        # The pods, and what keeps them: at once, they are worth no goodbye.
        self._kill_control_group()
        shims = [pid for pid in self.bed.strays() if Path(f"/proc/{pid}/comm").exists() and
                 "shim" in Path(f"/proc/{pid}/comm").read_text()]
        signal_and_wait(shims, 3, signal.SIGKILL)
        for process in self.processes.values():
            process.stop(seconds=3)
        self.plane.down()
        self.holder.stop(seconds=3)
        self._remove_control_group()

    def _make_namespaces(self):
        mounts = "".join(
            f"mkdir -p '{self.folder}/private{path}' && {{ [ -d {path} ] || mkdir -p {path}; }} && "
            f"mount --bind '{self.folder}/private{path}' {path} && " for path in PRIVATE_FOLDERS)
        # kube-proxy redirects what the node itself sends to a Service, once there is a route by which it would be sent.
        links = ["ip link set lo up", "ip link add services type veth peer name services-end", "ip link set services up",
                 "ip link set services-end up"]
        for family in self.families.members:
            ip = f"ip -{family.version}"
            links += [f"sysctl -qw {family.switches}", f"{ip} addr add {family.address} dev lo",
                      f"{ip} route add {family.services} dev services src {family.address}"]
        # Shared with the pods' mount namespaces, not with the machine's: kubelet wants to pass mounts on.
        script = (f"{mounts} mount --make-rshared / && {' && '.join(links)} && touch '{self.folder}/namespaces.made' && "
                  "exec sleep infinity")
        (self.folder / "namespaces.made").unlink(missing_ok=True)
        self.holder.start("unshare", "--mount", "--net", "--propagation", "private", "sh", "-ec", script)
        wait_for("node", "its namespaces", (self.folder / "namespaces.made").exists, 20, self.holder.log, self.holder.alive)

    def _start_containerd(self):
        containerd, socket = self.processes["containerd"], self.folder / "containerd.sock"
        if not containerd.alive():
            (self.folder / "cni.d").mkdir(exist_ok=True)
            (self.folder / "cni.d/10-bed.conflist").write_text(json.dumps(self._network()))
            config = self.folder / "containerd.toml"
            # restrict_oom_score_adj: without CAP_SYS_RESOURCE a score cannot be lowered, and no sandbox would start.
            config.write_text(f"""version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/containerd-state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.folder}/cni.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
""")
            socket.unlink(missing_ok=True)
            containerd.start(*self.inside(), "containerd", "-c", config)
            wait_for("node", "containerd", lambda: self.ctr("version"), 30, containerd.log, containerd.alive)
        if images.PAUSE not in self.ctr_output("images", "ls", "-q"):
            self.load(images.pause())

    def _network(self):
        """What a pod is connected by."""
        members = self.families.members
        addresses = {"type": "host-local", "ranges": [[{"subnet": family.pods}] for family in members],
                     "routes": [{"dst": family.everywhere} for family in members]}
        return {"cniVersion": "1.0.0", "name": "bed", "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]}

    def ctr(self, *arguments):
        return subprocess.run(["ctr", "-a", self.folder / "containerd.sock", "-n", "k8s.io", *map(str, arguments)],
                              stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    def ctr_output(self, *arguments):
        return subprocess.run(["ctr", "-a", self.folder / "containerd.sock", "-n", "k8s.io", *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    def load(self, archive):
        """Imports an image archive into the node."""
        with step(f"loading {Path(archive).name} into the node"):
            if not self.ctr("images", "import", archive):
                raise BedError(f"node: {archive} cannot be imported; see {self.processes['containerd'].log}")

    def tag(self, image, other):
        """Gives an image of the node another name."""
        if not self.ctr("images", "tag", "--force", image, other):
            raise BedError(f"node: {image} cannot be called {other}; see {self.processes['containerd'].log}")

    def _start_agents(self):
        folder, programs, inside = self.folder, tools.cluster(), self.inside()
        kubeconfig, address, addresses = self.plane.kubeconfig, self.families.first.address, self.families.joined("address")
        (folder / "kubelet.yaml").write_text(f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: false}}, x509: {{clientCAFile: "{folder}/pki/ca.crt"}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupRoot: /{self.control_group}
containerRuntimeEndpoint: unix://{folder}/containerd.sock
failSwapOn: false
failCgroupV1: false
clusterDNS: ["{address}"]
clusterDomain: cluster.local
enforceNodeAllocatable: []
resolvConf: ""
evictionHard: {{memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%"}}
imageGCHighThresholdPercent: 100
address: "{address}"
""")
        (folder / "proxy.yaml").write_text(f"""apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: "{kubeconfig}"}}
clusterCIDR: "{self.families.joined('pods')}"
hostnameOverride: bed
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
nodeIPOverride: {json.dumps(addresses.split(","))}
""")
        (folder / "Corefile").write_text(
            f".:53 {{\n bind {addresses.replace(',', ' ')}\n errors\n kubernetes cluster.local {{\n  kubeconfig {kubeconfig}\n  ttl 1\n }}\n}}\n")
        self._make_control_group()
        commands = {
            "kube-scheduler": [programs / "kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"],
            "kubelet": [programs / "kubelet", f"--config={folder}/kubelet.yaml", f"--kubeconfig={kubeconfig}",
                        "--hostname-override=bed", f"--node-ip={addresses}"],
            "kube-proxy": [programs / "kube-proxy", f"--config={folder}/proxy.yaml"],
            "coredns": [programs / "coredns", "-conf", folder / "Corefile"],
            # The database listens on a socket file, which namespaces do not divide.
            "mongo-inside": ["socat", f"{'TCP6-LISTEN:27017,ipv6only=0' if self.families.has_ipv6 else 'TCP4-LISTEN:27017'},fork,reuseaddr",
                             f"UNIX-CONNECT:{self.bed.folder}/mongo/ferret.sock"],
        }
        for name, command in commands.items():
            if not self.processes[name].alive():
                self.processes[name].start(*inside, *command)

    def _publish(self):
        """Makes the API server of the namespace reachable on the host's loopback."""
        if not self.processes["api-outside"].alive():
            self.bed.renew_port("node-api")
        port = self.bed.port("node-api")
        publish(self.bed, "node", self.inside(), f"{self.families.first.host}:6443", port, self.processes["api-inside"], self.processes["api-outside"])
        write_kubeconfig(self.folder / "kubeconfig.host", f"https://127.0.0.1:{port}", self.folder / "pki")

    def _is_ready(self):
        return self.plane.kubectl("wait", "--for=condition=Ready", "node/bed", "--timeout=1s")

    def _control_groups(self):
        """The folders of our control group: one for each hierarchy of version 1, or the one of version 2."""
        top = Path("/sys/fs/cgroup")
        parents = [top] if (top / "cgroup.controllers").exists() else [path for path in top.iterdir() if path.is_dir() and not path.is_symlink()]
        return [parent / self.control_group for parent in parents]

    def _make_control_group(self):
        for folder in self._control_groups():
            folder.mkdir(exist_ok=True)
            cpus = folder / "cpuset.cpus"
            if cpus.exists() and not cpus.read_text().strip():
                # Version 1: an empty set takes no process.
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (folder / name).write_text((folder.parent / name).read_text())

    def _kill_control_group(self):
        for _ in range(20):
            pids = set()
            for folder in self._control_groups():
                for root, _, files in os.walk(folder):
                    if "cgroup.procs" in files:
                        try:
                            pids |= {int(pid) for pid in Path(root, "cgroup.procs").read_text().split()}
                        except OSError:
                            pass
            if not pids - {0}:
                return
            signal_and_wait(pids - {0}, 2, signal.SIGKILL)

    def _remove_control_group(self):
        # The kernel lets go of processes that were killed a moment after they are gone.
        deadline = time.monotonic() + 3
        while True:
            left = [folder for folder in self._control_groups() if folder.exists()]
            for folder in left:
                for root, _, _ in os.walk(folder, topdown=False):
                    try:
                        os.rmdir(root)
                    except OSError:
                        pass
            if not left or time.monotonic() > deadline:
                return
            time.sleep(0.05)


def publish(bed, part, inside, target, port, inner, outer):
    """Two relays: from a socket file to `target` inside, and from a port of the host's loopback to the file."""
    socket = bed.folder / part / f"{inner.name}.sock"
    if not inner.alive():
        socket.unlink(missing_ok=True)
        inner.start(*inside, "socat", f"UNIX-LISTEN:{socket},fork", f"TCP:{target}")
        wait_for(part, inner.name, socket.exists, 10, inner.log, inner.alive)
    if not outer.alive():
        outer.start("socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"UNIX-CONNECT:{socket}")
