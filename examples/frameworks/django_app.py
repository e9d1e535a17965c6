# A chat room for those who have logged in, in Django: a whole site in one file.

import plainsocket
from django.conf import settings

settings.configure(
    DEBUG=True,
    SECRET_KEY="change me",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "plainsocket.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    LOGIN_URL="/login",
)

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import path
from plainsocket.django import websocket

rooms = {}


def log_in(request, name):  # without a password: it is an example
    user, _ = User.objects.get_or_create(username=name)
    login(request, user)
    request.session["visits"] = request.session.get("visits", 0) + 1
    return redirect("/")


@login_required
def page(request):
    return HttpResponse(f"Hello {request.user.username}")


@websocket
def chat(request, ws, room):
    if not request.user.is_authenticated:
        raise PermissionDenied
    name = request.user.username
    ws.send(f"{name} is in {room}, login {request.session['visits']}")
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


urlpatterns = [
    path("", page),
    path("login/<str:name>", log_in),
    path("rooms/<str:room>", chat),
]

if __name__ == "__main__":
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    plainsocket.serve({}, app=application, port=8087)
