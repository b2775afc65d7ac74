"""etcd, kube-apiserver and kube-controller-manager, for a cluster on the host and for the node's own."""
import os
import subprocess
from pathlib import Path

from . import tools
from .families import DEFAULT, Families, url_host
from .report import wait_for


class ControlPlane:
    """The processes of one control plane. `inside` is what a command must begin with to run where it does;
    `families` are those of its Services and pods; after `compaction`, etcd forgets what was before; `manager` are further
    flags of the controller manager; `gogc` is by how many percent their heaps grow before they are cleaned up."""

    def __init__(self, bed, part, address, ports, inside=(), families=Families(DEFAULT), compaction="5m", manager=(), gogc=100):
        self.bed, self.part, self.address, self.ports, self.inside = bed, part, address, ports, list(inside)
        self.families, self.compaction, self.manager, self.environment = families, compaction, manager, {"GOGC": str(gogc)}
        self.folder = bed.folder / part
        self.processes = [bed.process(part, name) for name in ("etcd", "kube-apiserver", "kube-controller-manager")]

    @property
    def kubeconfig(self):
        return self.folder / "kubeconfig"

    def healthy(self):
        return all(process.alive() for process in self.processes)

    def up(self):
        programs, servers, pki = tools.cluster(), tools.kubernetes(self.bed.kubernetes), self.folder / "pki"
        self.bed.part_folder(self.part)
        self._certificates(pki)
        etcd, server, controllers = self.processes
        # Whoever knows an address that changes has to begin anew with it.
        if not etcd.alive() and self._renew_ports("etcd", "etcd-peer"):
            server.stop(seconds=3)
        if not server.alive() and self._renew_ports("api"):
            controllers.stop(seconds=3)
        write_kubeconfig(self.kubeconfig, f"https://{url_host(self.address)}:{self.ports['api']}", pki)
        url = f"http://127.0.0.1:{self.ports['etcd']}"
        if not etcd.alive():
            etcd.start(*self.inside, programs / "etcd", "--data-dir", self.folder / "etcd", "--listen-client-urls", url,
                       "--advertise-client-urls", url, "--listen-peer-urls", f"http://127.0.0.1:{self.ports['etcd-peer']}",
                       "--unsafe-no-fsync", "--log-level", "warn", env=self.environment)
        if not server.alive():
            server.start(
                *self.inside, servers / "kube-apiserver", f"--etcd-servers={url}", f"--etcd-compaction-interval={self.compaction}", f"--secure-port={self.ports['api']}",
                f"--bind-address={'127.0.0.1' if self.address == '127.0.0.1' else '::' if self.families.has_ipv6 else '0.0.0.0'}",
                f"--advertise-address={self.address}", f"--tls-cert-file={pki}/api.crt", f"--tls-private-key-file={pki}/api.key",
                f"--client-ca-file={pki}/ca.crt", f"--service-cluster-ip-range={self.families.joined('services')}",
                "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={pki}/sa.key",
                f"--service-account-signing-key-file={pki}/sa.key", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
                # As OpenShift does, so that a right that only its users would miss shows.
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
                "--kubelet-preferred-address-types=InternalIP", f"--kubelet-client-certificate={pki}/admin.crt",
                f"--kubelet-client-key={pki}/admin.key", "--endpoint-reconciler-type=none" if self.address == "127.0.0.1" else
                "--endpoint-reconciler-type=lease", env=self.environment)
        wait_for(self.part, "the API server", self.ready, 180, server.log, lambda: server.alive() and etcd.alive())
        if not controllers.alive():
            controllers.start(
                *self.inside, servers / "kube-controller-manager", f"--kubeconfig={self.kubeconfig}", "--secure-port=0", *self.manager,
                f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
                f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
                # By default it asks so slowly that a new cluster takes 5 s longer.
                "--kube-api-qps=500", "--kube-api-burst=1000",
                "--use-service-account-credentials=true", "--leader-elect=false",
                f"--cluster-cidr={self.families.joined('pods')}",
                env=self.environment)
        wait_for(self.part, "the controller manager", lambda: self.kubectl("get", "sa", "default"), 60,
                 controllers.log, controllers.alive)

    def _renew_ports(self, *names):
        """Whether ports changed because others took them; those in the node's namespace are its own."""
        if self.inside:
            return False
        changed = [name for name in names if self.bed.renew_port(f"{self.part}-{name}")]
        self.ports.update((name, self.bed.port(f"{self.part}-{name}")) for name in names)
        return bool(changed)

    def down(self):
        for process in reversed(self.processes):
            # Nothing of it is worth a slow goodbye.
            process.stop(seconds=3)

    def ready(self):
        return self.kubectl("get", "--raw", "/readyz")

    def kubectl(self, *arguments, stdin=None):
        """Whether kubectl succeeds, from where the control plane runs."""
        command = [*self.inside, tools.cluster() / "kubectl", "--kubeconfig", self.kubeconfig, "--request-timeout=10s", *arguments]
        return subprocess.run([str(word) for word in command], input=stdin, text=True, capture_output=True,
                              stdin=None if stdin is not None else subprocess.DEVNULL).returncode == 0

    def _certificates(self, pki):
        """A small authority and two leaves. (The API server must not sign itself: some clients refuse an
        authority's certificate as a server's.)"""
        if (pki / "done").exists():
            return
        pki.mkdir(parents=True, exist_ok=True)
        log = self.folder / "openssl.log"

        def openssl(*arguments):
            tools.run(self.part, ["openssl", *map(str, arguments)], log)

        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pki / "ca.key", "-out", pki / "ca.crt",
                "-days", "3650", "-subj", "/CN=bed-ca")
        openssl("genrsa", "-out", pki / "sa.key", "2048")
        addresses = ["127.0.0.1", self.address, *(family.of_the_api for family in self.families.members)]
        names = ",".join([*(f"IP:{address}" for address in addresses), "DNS:kubernetes", "DNS:kubernetes.default",
                          "DNS:kubernetes.default.svc", "DNS:localhost"])
        for name, subject, alternatives in (("api", "/CN=kube-apiserver", names), ("admin", "/O=system:masters/CN=admin", "DNS:admin")):
            extensions = pki / f"{name}.ext"
            extensions.write_text(f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n")
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.csr", "-subj", subject)
            openssl("x509", "-req", "-in", pki / f"{name}.csr", "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key",
                    "-CAcreateserial", "-days", "3650", "-extfile", extensions, "-out", pki / f"{name}.crt")
        (pki / "done").touch()


def write_kubeconfig(path, server, pki):
    """A kubeconfig of the administrator; it names the files of the certificates."""
    temporary = Path(f"{path}.new")
    temporary.write_text(f"""apiVersion: v1
kind: Config
clusters: [{{name: bed, cluster: {{server: "{server}", certificate-authority: "{pki}/ca.crt"}}}}]
users: [{{name: admin, user: {{client-certificate: "{pki}/admin.crt", client-key: "{pki}/admin.key"}}}}]
contexts: [{{name: bed, context: {{cluster: bed, user: admin}}}}]
current-context: bed
""")
    os.chmod(temporary, 0o600)
    temporary.rename(path)
