"""Who may use the page, and which files: checks of Host, Origin, token and paths."""

import contextlib
import hmac
import ipaddress
import re
import socket
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse

from util.errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")

COOKIE = "annotate_token_{port}"
"""The cookie that holds the token. Browsers give it to all ports of a machine, so it has the port in its name."""


LONGEST_NAME = 100
"""Characters of a file's or project's name; the end of a longer one is kept."""


class Guard:
    """An ASGI layer that lets through only who may use the page.

    token: has to be in the URL once (?token=…), which gives the browser a cookie; None on loopback. host: the name or
    address that the server listens at.

    Host: the server's names, or a number: a foreign page that has its own name point here gets nothing. Origin: if a
    browser names one, it is this page.
    """

    def __init__(self, app, token=None, host="127.0.0.1"):
        self._app, self._token = app, token
        self._names = {*LOOPBACK, host, "testserver", socket.gethostname(), socket.getfqdn()}

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        cookie = COOKIE.format(port=(scope.get("server") or ("", 0))[1])
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[0]
        if not self._is_ours(headers.get("host", "")):
            return await _refuse(scope, receive, send, "this page is not served under this name")
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc != headers.get("host"):
            return await _refuse(scope, receive, send, "a foreign page has no access")
        if self._token is not None and not self._knows(given or _read_cookie(headers.get("cookie", ""), cookie)):
            return await _refuse(scope, receive, send, "open the address with the token that annotate.py has printed")
        if given is not None and scope["type"] == "http" and scope["path"] == "/":
            # The token leaves the address line, and with it the history and screenshots.
            answer = RedirectResponse("/", status_code=303)
            if self._token is not None:
                answer.set_cookie(cookie, given, httponly=True, samesite="strict")
            return await answer(scope, receive, send)
        return await self._app(scope, receive, send)

    def _is_ours(self, host):
        """Whether a Host header names this server."""
        name = _split(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            return name in self._names

    def _knows(self, token):
        return token is not None and hmac.compare_digest(token.encode(), self._token.encode())


def _split(address):
    """The parts of an address; of what is none, such as http://[::1, they are empty."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _read_cookie(text, name):
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return None
    return found and found.value


async def _refuse(scope, receive, send, reason):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403, "reason": reason})
        return
    await JSONResponse({"error": reason}, status_code=403)(scope, receive, send)


def confine(root, text):
    """The path that `text`, relative to the folder `root` or absolute, means. Raises InputError if it leads out."""
    root, path = Path(root).resolve(), None
    with contextlib.suppress(ValueError):  # no name of a file can have such letters
        path = (root / str(text)).resolve()
    if path is None or not path.is_relative_to(root):
        raise InputError(f"{text}: outside of {root}, the folder that this page may read; another one is given with "
                         "--root")
    return path


def plain_file_name(text):
    """The last part of a name that a browser gave, without what could lead elsewhere. Raises InputError if none."""
    name = re.sub(r"[^\w.() -]", "_", Path(str(text).replace("\\", "/")).name).lstrip(". ")
    # What is cut may begin in another place that leads elsewhere.
    name = name[-LONGEST_NAME:].lstrip(". ")
    if not name:
        raise InputError("the file has no name")
    return name
