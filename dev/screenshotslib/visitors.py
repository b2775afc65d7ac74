"""Visitors, and the services of tickets and payments: what makes the figures move."""
import asyncio
import http.client
import json
import math
import random
import secrets
import time

from bedlib.session import cookie

from .product import JWT_KEY, SERVICES

# Visitors at the same time, for each OrdersService, and how long each looks around between two of them.
VISITORS, PAUSE = {"ticketing": 6, "festival": 3, "museum": 2}, 1.0


def request(address, method, path, user=None, body=None):
    """The status and the JSON of an answer; none where there is no answer."""
    connection = http.client.HTTPConnection(address, timeout=15)
    headers = {"Content-Type": "application/json"} | ({"Cookie": cookie(user, JWT_KEY)} if user else {})
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    except (OSError, ValueError, http.client.HTTPException):
        return None, None
    finally:
        connection.close()


class Visitors:
    """Everybody who comes, from now on until they are told to go."""

    def __init__(self, product, broker):
        self.product, self.broker, self.begun = product, broker, time.monotonic()

    async def come(self):
        await asyncio.gather(*(self.visit(namespace) for namespace in SERVICES for _ in range(VISITORS[namespace])))

    async def tell(self, namespace, subject, data):
        await self.broker.publish(self.product.subject(namespace, subject), json.dumps(data).encode() if isinstance(data, dict) else data)

    async def visit(self, namespace):
        while True:
            await self.once(namespace, random.choice(self.product.apis[namespace]), secrets.token_hex(4))
            # They come in waves of two minutes.
            wave = 1 + 0.7 * math.sin((time.monotonic() - self.begun) * math.tau / 120)
            await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE / wave)

    async def once(self, namespace, address, user):
        def ask(*words, **more):
            return asyncio.to_thread(request, address, *words, **more)

        ticket = secrets.token_hex(12)
        await self.tell(namespace, "ticket:created", {"id": ticket, "version": 0, "title": "concert", "price": random.choice((15, 20, 30))})
        status, order = 404, None
        for _ in range(20):
            # Until the ticket has been heard of.
            await asyncio.sleep(0.2)
            status, order = await ask("POST", "/api/orders", user, {"ticketId": ticket})
            if status != 404:
                break
        if status != 201:
            return
        await ask("GET", f"/api/orders/{order['id']}", user)
        if random.random() < 0.3:
            await ask("POST", "/api/orders", secrets.token_hex(4), {"ticketId": ticket})
        fate = random.random()
        if fate < 0.3:
            await self.tell(namespace, "payment:created", {"id": secrets.token_hex(12), "orderId": order["id"]})
        elif fate < 0.5:
            await ask("DELETE", f"/api/orders/{order['id']}", user)
        if random.random() < 0.2:
            await ask("GET", "/api/orders")
        if random.random() < 0.1:
            await ask("POST", "/api/orders", user, {"ticketId": "no-id"})
        await ask("GET", "/api/orders", user)

    async def send_nonsense(self):
        """What no service can read."""
        await self.tell("festival", "ticket:created", b"no JSON")
