"""The bed of this checkout as the place of the story: everything is built and started here, and stays up."""
import os
import re
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

from .cluster import NAMESPACE, Cluster, looks
from .telling import ROOT, run

BED = ROOT / "dev" / "bed"
STAND_IN = "localhost/stand-in:dev"
# The cargo profile of the operator's image.
PROFILE = os.environ.get("PROFILE") or "demo"


class OwnBed:
    """A database, and a cluster of one node with an ingress controller."""

    # Of the connection string.
    database = None

    def prepare(self, story):
        self.bring_up(story)
        story.step("stand-in image built and loaded", lambda: run("dev/stand-in/build", env=self.environment, quiet=False) and None)
        story.step("NATS image built and loaded", self._load_nats)

    def bring_up(self, story):
        """The bed, with the operator's image only."""
        story.chapter("The bed: a database, and a cluster of one node with an ingress controller")
        with ThreadPoolExecutor() as pool:
            # What is linked at the end of one build leaves a processor to the other.
            compiling = pool.submit(run, "dev/image", env=os.environ | {"PROFILE": PROFILE}, quiet=False)
            story.step("bed up", self._up)
        self.cluster = Cluster(self.environment)
        story.chapter("The images of what runs in the cluster")
        story.step("operator image built and loaded", self._load, compiling)

    def _up(self):
        run(BED, "up", "mongo", "node", "ingress", quiet=False)
        self.environment = environment()
        return "a node at " + " and ".join(self.addresses())

    def addresses(self):
        """The node's, at which pods reach the database."""
        return self.environment["NODE_ADDRESSES"].split(",")

    def _load(self, compiling):
        self.image = compiling.result().splitlines()[-1]
        run(BED, "image", "load", self.image, env=self.environment)
        binary = Path(self.environment["CARGO_TARGET_DIR"]) / "image-stage" / "out" / "orders-operator"
        return f"{self.image}, one static file of {binary.stat().st_size / 1e6:.1f} MB"

    def _load_nats(self):
        # By the name that the examples have, as if it had been pulled.
        self.nats = re.search(r"image: (nats:\S+)", (ROOT / "examples/15-nats.yaml").read_text())[1]
        folder = Path(run(BED, "tool", "nats-server", env=self.environment)).parent
        run(BED, "image", "build", f"docker.io/library/{self.nats}", "dev/nats", "--build-context", f"build={folder}", env=self.environment, quiet=False)
        return self.nats

    def load_also(self, name):
        """Gives the operator's image another name on the node, as if there were another version."""
        run(BED, "image", "load", self.image, "--also", name, env=self.environment)

    def install(self):
        return self.cluster.install(self.image)

    def apply_examples(self):
        # The database of the bed is outside the cluster: a Service without selector leads there, in each family that the node has.
        metadata = {"name": "orders-mongo", "namespace": NAMESPACE}
        port = {"name": "mongo", "port": 27017, "protocol": "TCP"}
        families = [f"IPv{ip_address(address).version}" for address in self.addresses()]
        self.cluster.kubectl("apply", "-f", "examples/00-namespace.yaml")
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ipFamilyPolicy": "PreferDualStack", "ports": [port]}},
            *({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family, "ports": [port],
               "metadata": {"name": f"orders-mongo-{family.lower()}", "namespace": NAMESPACE,
                            "labels": {"kubernetes.io/service-name": "orders-mongo"}},
               "endpoints": [{"addresses": [address]}]} for family, address in zip(families, self.addresses())))
        return self.cluster.apply_examples()

    def address(self):
        return self.environment["INGRESS_URL"]

    def look_around(self, base, cookie):
        return f"""Look around:

  eval "$(dev/bed env)"; export KUBECONFIG="$NODE_KUBECONFIG"     kubectl and helm for this cluster
{looks(base, cookie)}

Stop it all: make down
"""

    def leave(self, failed):
        if failed:
            return "The cluster is left up: `dev/bed status`, `dev/bed logs PART`, or `make down`."
        return None


def environment():
    """The environment that `bed env` prints, with KUBECONFIG set to the node's cluster."""
    values = dict(os.environ)
    for name, value in re.findall(r"^export (\w+)='?(.*?)'?$", run(BED, "env"), re.M):
        values[name] = value
    values["KUBECONFIG"] = values["NODE_KUBECONFIG"]
    values.setdefault("CARGO_TARGET_DIR", f"{values['BED_CACHE']}/target")
    return values
