# A chat room for those who have logged in, in Pyramid.

import plainsocket
from plainsocket.pyramid import websocket
from pyramid.authentication import SessionAuthenticationHelper
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response
from pyramid.security import Allowed, Denied, remember
from pyramid.session import SignedCookieSessionFactory
from pyramid.view import view_config

rooms = {}


class Security:
    helper = SessionAuthenticationHelper()

    def authenticated_userid(self, request):
        return self.helper.authenticated_userid(request)

    def permits(self, request, context, permission):
        is_known = self.authenticated_userid(request) is not None
        return Allowed("logged in") if is_known else Denied("not logged in")

    def remember(self, request, userid, **keywords):
        return self.helper.remember(request, userid, **keywords)


@view_config(route_name="login")
def login(request):  # without a password: it is an example
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HTTPFound("/", headers=remember(request, request.matchdict["name"]))


@view_config(route_name="page", permission="read")
def page(request):
    return Response(f"Hello {request.authenticated_userid}")


@view_config(route_name="chat", permission="chat")
@websocket
def chat(request, ws):
    name, room = request.authenticated_userid, request.matchdict["room"]
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


with Configurator(session_factory=SignedCookieSessionFactory("change me")) as config:
    config.include("plainsocket.pyramid")
    config.set_security_policy(Security())
    config.add_route("page", "/")
    config.add_route("login", "/login/{name}")
    config.add_route("chat", "/rooms/{room}")
    config.scan(__name__)
    application = config.make_wsgi_app()

if __name__ == "__main__":
    plainsocket.serve({}, app=application, port=8087)
