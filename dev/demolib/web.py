"""The visitors of the ticketing system, who come through the ingress by host name."""
import json
import urllib.error
import urllib.request

from .telling import Failed

HOST = "ticketing.dev"


class Web:
    """A visitor who comes through the ingress, with a session of their own."""

    def __init__(self, base, cookie=None, host=HOST):
        self.base, self.cookie, self.host = base, cookie, host

    def request(self, method, path, body=None):
        headers = {"Host": self.host}
        if self.cookie:
            headers["Cookie"] = self.cookie
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()
        except OSError as error:
            raise Failed(f"{method} {path}: {error}") from error

    def expect(self, status, method, path, body=None):
        got, headers, text = self.request(method, path, body)
        if got != status:
            raise Failed(f"{method} {path}: expected {status}, got {got}: {text[:300]}")
        return headers, text

    def served_by(self, who, path):
        headers, text = self.expect(200, "GET", path)
        if headers.get("X-Stand-In") != who:
            raise Failed(f"GET {path}: expected an answer of {who}, got one of {headers.get('X-Stand-In')}")
        return text

    def sign_in(self, email):
        headers, _ = self.expect(200, "POST", "/api/users/signin", {"email": email})
        return Web(self.base, headers["Set-Cookie"].split(";")[0], self.host)

    def neighbour(self, status, who, method, path, body=None):
        """An answer of a neighbour of the orders API, as JSON."""
        headers, text = self.expect(status, method, path, body)
        if headers.get("X-Stand-In") != who:
            raise Failed(f"{method} {path}: expected an answer of {who}, got one of {headers.get('X-Stand-In', 'somebody')}")
        return json.loads(text)

    def orders_api(self, status, method, path, body=None):
        """An answer of the orders API, as JSON; without its route, the client's page would be the answer."""
        headers, text = self.expect(status, method, path, body)
        try:
            return json.loads(text)
        except ValueError:
            raise Failed(f"{method} {path}: no JSON, but an answer of {headers.get('X-Stand-In', 'somebody')}") from None

    def reserve(self, ticket):
        return self.orders_api(201, "POST", "/api/orders", {"ticketId": ticket})

    def order(self, order):
        return self.orders_api(200, "GET", f"/api/orders/{order}")
