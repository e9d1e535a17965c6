# A chat room for those who have logged in, in Falcon.

import secrets

import falcon
import plainsocket
from plainsocket.falcon import Middleware, websocket

app = falcon.App(middleware=[Middleware()])
logins = {}  # by the cookie: who, and how often
rooms = {}


def authenticate(req, resp, resource, params):
    (key,) = req.get_cookie_values("login") or [""]
    if key not in logins:
        raise falcon.HTTPUnauthorized
    req.context.name, req.context.visits = logins[key]


class Login:
    def on_get(self, req, resp, name):  # without a password: it is an example
        (key,) = req.get_cookie_values("login") or [secrets.token_urlsafe()]
        _, visits = logins.get(key, (name, 0))
        logins[key] = name, visits + 1
        resp.set_cookie("login", key, path="/", secure=False)
        raise falcon.HTTPFound("/")


class Page:
    @falcon.before(authenticate)
    def on_get(self, req, resp):
        resp.text = f"Hello {req.context.name}"


class Chat:
    @falcon.before(authenticate)
    @websocket
    def on_get(self, req, ws, room):
        name = req.context.name
        ws.send(f"{name} is in {room}, login {req.context.visits}")
        members = rooms.setdefault(room, set())
        members.add(ws)
        try:
            for message in ws:
                if message == "/fail":
                    raise ValueError("as you wish")
                for member in list(members):
                    member.send(f"{name}: {message}")
        finally:
            members.remove(ws)


app.add_route("/", Page())
app.add_route("/login/{name}", Login())
app.add_route("/rooms/{room}", Chat())

if __name__ == "__main__":
    plainsocket.serve({}, app=app, port=8087)
