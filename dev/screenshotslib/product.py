"""The product at work: two controllers, two sweepers, the pods of three orders APIs, and a database that goes away.

There is no kubelet: the Deployments have no pods, and what would run in them runs beside the cluster, as it would there.
"""
import asyncio
import base64
import os
import secrets

from bedlib import tools

from .processes import kubectl, read

OPERATOR = "orders-operator"
JWT_KEY = "a-key-of-the-screenshots"
# The namespace of each OrdersService, and how many pods it has. The database of the last one goes away.
SERVICES = {"ticketing": 2, "festival": 1, "museum": 1}
LOST = "museum"
# How long a reservation lasts, so that many expire while somebody looks.
WINDOW = 20


class Product:
    """What runs, and where: the pages of metrics with the labels that the chart's PodMonitors give them."""

    def __init__(self, processes, program):
        self.processes, self.program = processes, program
        self.run = secrets.token_hex(3)
        self.targets, self.commands = [], {}
        # The API of each pod, by namespace.
        self.apis = {namespace: [] for namespace in SERVICES}
        self.way = Way(os.environ["MONGO_URI"].split("//")[1].split("/")[0])

    def mongo_uri(self, namespace):
        return f"mongodb://{self.way.address if namespace == LOST else self.way.server}/"

    async def start(self):
        await self.way.open()
        watched = list(SERVICES)
        kubectl("apply", "--server-side", "-f", str(tools.DEV.parent / "crds/ordersservices.yaml"))
        kubectl("delete", "namespace", "--ignore-not-found", *watched, OPERATOR)
        kubectl("apply", "-f", "-", objects=[
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in [*watched, OPERATOR]])
        port = self.processes.port()
        self.nats = f"nats://127.0.0.1:{port}"
        kubectl("apply", "-f", "-", objects=[each for name in SERVICES for each in self.objects(name)])
        self.processes.start("nats", tools.pypi_tool("nats-server"), "--addr", "127.0.0.1", "--port", port, "--jetstream",
                             "--store_dir", self.processes.folder / "jetstream")
        for number in (1, 2):
            for part in ("controller", "sweeper"):
                more = ["--default-image", "registry.example/orders-operator:0.2.0"] if part == "controller" else []
                self.start_part(part, f"orders-operator-{number}", *more, "--namespace", ",".join(watched),
                                "--lease-namespace", OPERATOR, KUBECONFIG=os.environ["KUBECONFIG"])
        for namespace, pods in SERVICES.items():
            for number in range(1, pods + 1):
                self.start_api(namespace, f"orders-{number}")

    def start_part(self, part, pod, *more, **environment):
        port = self.processes.port()
        name = f"{pod}-{part}"
        command = [self.program, part, "--listen-address", "127.0.0.1", "--admin-port", port, *more]
        self.commands[name] = (command, environment, f"http://127.0.0.1:{port}/metrics")
        self.processes.start(name, *command, env=environment)
        self.watch(name, port, job=OPERATOR, namespace=OPERATOR, pod=pod, container=part)

    async def lose_leader(self):
        """Kills the controller that leads; after some time it is started again."""
        for name, (command, environment, page) in self.commands.items():
            if b"orders_operator_controller_leading 1" in await asyncio.to_thread(read, page):
                self.processes.children[name].kill()
                await asyncio.sleep(20)
                self.processes.start(name, *command, env=environment)
                return

    def start_api(self, namespace, pod):
        port, admin = self.processes.port(), self.processes.port()
        name = f"{namespace}-{pod}"
        self.processes.start(
            name, self.program, "serve", "--listen-address", "127.0.0.1", "--port", port, "--admin-port", admin,
            env={"JWT_KEY": JWT_KEY, "MONGO_URI": self.mongo_uri(namespace), "MONGO_DATABASE": self.database(namespace),
                 "EXPIRATION_WINDOW_SECONDS": str(WINDOW), "NATS_URL": self.nats, "NATS_STREAM": namespace, "NATS_DURABLE": namespace,
                 "NATS_SUBJECTS": ",".join(f"{subject}={self.subject(namespace, subject)}" for subject in SUBJECTS)})
        self.apis[namespace].append(f"127.0.0.1:{port}")
        self.watch(name, admin, job=f"{OPERATOR}-orders", namespace=namespace, pod=pod, container="orders-api", orders_service="orders")

    def watch(self, name, port, **labels):
        self.processes.wait_for_page(name, f"http://127.0.0.1:{port}/metrics")
        self.targets.append((f"127.0.0.1:{port}", labels))

    def database(self, namespace):
        """The database, whose server others use too."""
        return f"orders-{namespace}-{self.run}"

    @staticmethod
    def subject(namespace, name):
        """The first has the names of the course, and the others have others, since all share a server."""
        return name if namespace == "ticketing" else f"{namespace}:{name}"

    def objects(self, name):
        def secret(of, key, value):
            data = {key: base64.b64encode(value.encode()).decode()}
            return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": of, "namespace": name}, "data": data}

        spec = {
            "replicas": 0, "auth": {"jwtSecretRef": {"name": "jwt-secret"}}, "expiration": {"windowSeconds": WINDOW},
            "database": {"uriSecretRef": {"name": "orders-mongo"}, "name": self.database(name)},
            "events": {"nats": {"servers": [self.nats]}, "jetStream": {"stream": name, "durable": name}},
            "ingress": {"hosts": [f"{name}.example"], "routes": [{"path": "/api/tickets", "service": "tickets-srv"}]}}
        services = [("orders", spec)]
        if name == "ticketing":
            # Somebody has forgotten a Secret.
            services.append(("orders-next", spec | {"auth": {"jwtSecretRef": {"name": "next-secret"}}, "ingress": {"hosts": ["next.example"]}}))
        return [secret("jwt-secret", "JWT_KEY", JWT_KEY), secret("orders-mongo", "MONGO_URI", self.mongo_uri(name)), *(
            {"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": of, "namespace": name}, "spec": spec}
            for of, spec in services)]

    async def remove(self):
        self.processes.stop()
        await self.way.close()
        kubectl("delete", "namespace", "--wait=false", *SERVICES, OPERATOR)


SUBJECTS = ("ticket:created", "ticket:updated", "payment:created", "order:created", "order:cancelled", "order:completed", "payment:refused")


class Way:
    """The way to a database that can be lost: connections pass until it is closed, and then there is nobody any more."""

    def __init__(self, server):
        self.server, self.listener, self.passing = server, None, set()

    async def open(self):
        self.listener = await asyncio.start_server(self.connect, "127.0.0.1", 0)
        self.address = "{}:{}".format(*self.listener.sockets[0].getsockname())

    async def connect(self, reader, writer):
        host, port = self.server.split(":")
        there = await asyncio.open_connection(host, int(port))
        both = [asyncio.create_task(self.carry(reader, there[1])), asyncio.create_task(self.carry(there[0], writer))]
        self.passing.update(both)
        for task in both:
            task.add_done_callback(self.passing.discard)

    @staticmethod
    async def carry(reader, writer):
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def close(self):
        if self.listener:
            self.listener.close()
            self.listener = None
        for task in list(self.passing):
            task.cancel()
