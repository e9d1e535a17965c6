# A chat room for those who have logged in, in Bottle.

from bottle import Bottle, abort, redirect, request, response, run
from plainsocket.bottle import Server, websocket

SECRET = "change me"

app = Bottle()
rooms = {}


def known():
    return request.get_cookie("login", "", secret=SECRET).split()


@app.get("/login/<name>")
def login(name):  # without a password: it is an example
    _, visits = known() or (name, "0")
    response.set_cookie("login", f"{name} {int(visits) + 1}", secret=SECRET, path="/")
    redirect("/")


@app.get("/")
def page():
    name, _ = known() or abort(401)
    return f"Hello {name}"


@app.get("/rooms/<room>", apply=[websocket])
def chat(ws, room):
    name, visits = known() or abort(401)
    ws.send(f"{name} is in {room}, login {visits}")
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


if __name__ == "__main__":
    run(app, server=Server, port=8087, quiet=True)
