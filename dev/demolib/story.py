"""The story: an installation, a seller and two buyers who go through the ingress by host name. Each step is checked."""
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from .cluster import NAMESPACE, OPERATOR
from .telling import Failed, Teller, paint, until
from .web import HOST, Web


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def tell(place, chaos):
    """The whole story; `place` says where, as own_bed.py and current.py do."""
    story = Teller()
    place.prepare(story)
    cluster = place.cluster

    story.chapter("The installation, as a user does it")
    story.step("helm install", place.install)
    story.step("kubectl apply -f examples/", place.apply_examples)
    story.step("kubectl wait --for=condition=Ready osvc/orders", cluster.wait_ready)
    story.step("routes in order, the client last", cluster.routes)
    crowd = [secrets.token_hex(12) for _ in range(4)]
    story.step("orders-operator tickets import", lambda: cluster.import_tickets(
        place.image, [(each, "Match") for each in crowd], place.database))

    story.chapter(f"The story, through the ingress at http://{HOST}")
    web = Web(place.address())

    def page():
        text = until(180, lambda: web.served_by("client", "/"), "the client's page at /")
        if "<title>Ticketing" not in text:
            raise Failed(f"no page: {text[:200]}")

    story.step("/ shows the client's page", page)
    for service, path in [("auth", "/api/users/currentuser"), ("tickets", "/api/tickets"), ("payments", "/api/payments")]:
        story.step(f"{path} goes to {service}",
                   lambda: until(60, lambda: web.served_by(service, path), f"{service} at {path}") and None)
    story.step("/some/page goes to the client", lambda: web.served_by("client", "/some/page") and None)
    story.step("/api/orders goes to the orders API, which asks to sign in",
               lambda: until(60, lambda: web.expect(401, "GET", "/api/orders"), "401")[1])
    buyers = {}

    def sign_in():
        for name in ("alice", "bob", "carol"):
            buyers[name] = web.sign_in(f"{name}@{HOST}")
        return "by the auth service's cookie"

    story.step("alice, bob and carol sign in", sign_in)
    offered = {}

    def offer():
        for title in ("Concert", "Theatre"):
            offered[title] = until(60, lambda: buyers["carol"].neighbour(201, "tickets", "POST", "/api/tickets", {"title": title, "price": 20}),
                                   "tickets to offer")["id"]
        return "201, and an event ticket:created for each"

    story.step("carol offers a concert and a theatre at the tickets service", offer)
    ticket, other = offered["Concert"], offered["Theatre"]

    def tickets_heard(wanted, order):
        """What the tickets service knows of a ticket: the order that holds it, if any."""
        until(20, lambda: web.neighbour(200, "tickets", "GET", f"/api/tickets/{wanted}").get("orderId") == order,
              f"the tickets service to hear that the ticket is {f'held by {order}' if order else 'free'}")

    held = {}

    def reserve():
        order = until(20, lambda: buyers["alice"].reserve(ticket), "a reservation, once the event has arrived")
        if order["status"] != "created" or order["ticket"]["id"] != ticket:
            raise Failed(f"an order of another kind: {order}")
        held.update(order)
        left = (moment(order["expiresAt"]) - datetime.now(timezone.utc)).total_seconds()
        return f"201, order {order['id']}, {left:.0f} s to pay"

    story.step("alice reserves the concert", reserve)
    story.step("the tickets service hears of it", tickets_heard, ticket, held["id"])
    story.step("bob is refused",
               lambda: "400 " + buyers["bob"].expect(400, "POST", "/api/orders", {"ticketId": ticket})[1])
    story.step("bob cannot see alice's order",
               lambda: "401 " + buyers["bob"].expect(401, "GET", f"/api/orders/{held['id']}")[1])
    story.step("kubectl get osvc", cluster.table)
    if chaos:
        story.chapter("Chaos: what was killed must come back by itself")
        story.step("the controller's and the sweeper's pod is killed", lambda: cluster.kill(OPERATOR, f"app.kubernetes.io/name={OPERATOR}"))
        story.step("every pod of the orders API is killed", lambda: cluster.kill(NAMESPACE, "app.kubernetes.io/name=orders-service"))
        story.step("the children are deleted while no controller runs", lambda: cluster.kubectl(
            "-n", NAMESPACE, "delete", "ingress/orders", "service/orders", "--wait=true").replace("\n", ", "))

    def expired():
        order = until(90, lambda: (found := buyers["alice"].order(held["id"]))["status"] == "cancelled" and found,
                      "alice's order cancelled")
        if order["version"] != held["version"] + 1:
            raise Failed(f"cancelled, but not exactly once: version {held['version']} became {order['version']}")
        late = (datetime.now(timezone.utc) - moment(held["expiresAt"])).total_seconds()
        return f"seen {late:.1f} s after it expired"

    story.step("alice does not pay; her order is cancelled", expired)
    story.step("the tickets service hears of it", tickets_heard, ticket, None)
    bought = {}

    def get():
        bought.update(until(10, lambda: buyers["bob"].reserve(ticket), "a reservation"))
        return f"201, order {bought['id']}"

    story.step("bob gets the ticket", get)

    def pay():
        payment = until(20, lambda: buyers["bob"].neighbour(201, "payments", "POST", "/api/payments", {"orderId": bought["id"]}),
                        "a payment, once the payments service has heard of the order")
        until(20, lambda: buyers["bob"].order(bought["id"])["status"] == "complete", "bob's order complete")
        return f"201, payment {payment['id']}, and his order is complete"

    story.step("bob pays at the payments service", pay)
    story.step("alice, whose order is cancelled, cannot pay any more", lambda: "400 " + buyers["alice"].expect(
        400, "POST", "/api/payments", {"orderId": held["id"]})[1].strip())
    story.step("alice is refused now",
               lambda: "400 " + buyers["alice"].expect(400, "POST", "/api/orders", {"ticketId": ticket})[1])

    def cancel():
        order = buyers["alice"].reserve(other)
        tickets_heard(other, order["id"])
        buyers["alice"].expect(204, "DELETE", f"/api/orders/{order['id']}")
        tickets_heard(other, None)
        return f"204, then {buyers['alice'].order(order['id'])['status']}; the tickets service hears of both"

    story.step("alice reserves the theatre and cancels", cancel)
    if chaos:
        story.step("kubectl wait --for=condition=Ready osvc/orders", cluster.wait_ready)
        story.step("routes in order, the client last", cluster.routes)

    def roll():
        over = threading.Event()

        def buy(wanted):
            requests = 0
            while not over.is_set():
                order = buyers["alice"].reserve(wanted)["id"]
                buyers["alice"].order(order)
                buyers["alice"].expect(204, "DELETE", f"/api/orders/{order}")
                requests += 3
            return requests

        with ThreadPoolExecutor() as pool:
            buying = [pool.submit(buy, each) for each in crowd]
            try:
                pods = cluster.roll()
            finally:
                over.set()
            return f"{pods} pods, {sum(each.result() for each in buying)} requests, none lost"

    story.step("every pod is replaced while alice reserves and cancels four at a time", roll)
    print(f"\n{paint(1, 'All of it held')}, in {story.took():.0f} s. {place.look_around(web.base, buyers['bob'].cookie)}", flush=True)
