# A chat room for those who have logged in, in Flask.

import plainsocket
from flask import Flask, redirect, session
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from plainsocket.flask import Sockets

app = Flask(__name__)
app.secret_key = "change me"
logins = LoginManager(app)
sockets = Sockets(app)
rooms = {}


class User(UserMixin):
    def __init__(self, name):
        self.id = name


logins.user_loader(User)


@app.get("/login/<name>")
def login(name):  # without a password: it is an example
    login_user(User(name))
    session["visits"] = session.get("visits", 0) + 1
    return redirect("/")


@app.get("/")
@login_required
def page():
    return f"Hello {current_user.id}"


@sockets.route("/rooms/<room>")
@login_required
def chat(ws, room):
    ws.send(f"{current_user.id} is in {room}, login {session['visits']}")
    members = rooms.setdefault(room, set())
    members.add(ws)
    try:
        for message in ws:
            if message == "/fail":
                raise ValueError("as you wish")
            for member in list(members):
                member.send(f"{current_user.id}: {message}")
    finally:
        members.remove(ws)


if __name__ == "__main__":
    plainsocket.serve({}, app=app, port=8087)
