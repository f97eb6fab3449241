"""The web server of annotate.py. The server is the truth: a page can be loaded anew at any moment.

    GET  /                                the page
    GET  /api/start                       projects, and what is in the root folder
    GET  /api/browse?folder=              what is in a folder below the root
    POST /api/open {video|project|uploaded|example}    open a project; answers {project}
    POST /api/upload?name=                the body is a video file; answers {project}
    POST /api/folder?name=                make a folder for images; answers {folder}
    POST /api/upload?folder=&name=        the body is an image for such a folder
    GET  /api/p/NAME                      the project: size, objects, references, job
    GET  /api/p/NAME/frame/POSITION?w=    a frame as JPEG, w pixels wide at most; never changes
    GET  /api/p/NAME/mask/POSITION        a mask as indexed PNG; its ETag is its revision
    GET  /api/p/NAME/quality              one byte for each frame, object after object
    POST /api/p/NAME/command, /export     {formats, options}: the command line of an export; run it
    GET  /api/p/NAME/download/FILE        what was exported
    WS   /api/p/NAME/events               the page sends actions, the server events; each action is answered by one of
                                          them, "done" or "error"; "refused": no such project

Errors are {"error": sentence} with status 400.
"""

import asyncio
import contextlib
import filecmp
import json
import traceback
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

from interactive.access import Guard, confine, plain_file_name
from interactive.room import export_command
from util.errors import InputError
from util.files import temporary_path

STATIC = Path(__file__).parent / "static"

LARGEST_UPLOAD = 16 * 2**30
"""Bytes of a video that may be uploaded."""

LARGEST_MESSAGE = 2**20
"""Bytes of any other body, and of a message."""

LARGEST_WIDTH = 8192
"""Pixels; the widest picture of a frame that may be asked for."""


def make_app(workspace, *, token=None, host="127.0.0.1", make_example=None, largest_upload=LARGEST_UPLOAD):
    """The page's ASGI application.

    workspace: a `workspace.Workspace`. token, host: see `access.Guard`. make_example: a function that makes the
    built-in example, and returns the folder of its frames; None: there is none. largest_upload: in bytes.
    """
    routes = [
        Route("/", index),
        Route("/api/start", start),
        Route("/api/browse", browse),
        Route("/api/open", open_project, methods=["POST"]),
        Route("/api/upload", upload, methods=["POST"]),
        Route("/api/folder", upload_folder, methods=["POST"]),
        Route("/api/p/{name}", describe),
        Route("/api/p/{name}/frame/{position}", frame),
        Route("/api/p/{name}/mask/{position}", mask),
        Route("/api/p/{name}/quality", quality),
        Route("/api/p/{name}/command", command, methods=["POST"]),
        Route("/api/p/{name}/export", export, methods=["POST"]),
        Route("/api/p/{name}/download/{target}", download),
        WebSocketRoute("/api/p/{name}/events", events),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await run_in_threadpool(workspace.close)

    app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Guard, token=token, host=host)],
                    exception_handlers={InputError: tell_error, OSError: tell_error})
    app.state.workspace, app.state.make_example, app.state.largest_upload = workspace, make_example, largest_upload
    return app


class Answer(JSONResponse):
    """JSON in ASCII: names of files, and what a page sends, may have letters that UTF-8 cannot hold."""

    def render(self, content):
        return json.dumps(content).encode()


async def tell_error(request, error):
    return Answer({"error": _sentence(error)}, status_code=400)


async def index(request):
    return FileResponse(STATIC / "index.html", headers={
        "Cache-Control": "no-cache",
        # Nothing of this page comes from elsewhere, and nothing goes there.
        "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
                                   "connect-src 'self' ws: wss:; frame-ancestors 'none'",
    })


async def start(request):
    workspace = request.app.state.workspace
    return Answer({"projects": workspace.list_projects(), "root": str(workspace.root),
                         "example": request.app.state.make_example is not None, **workspace.browse()})


async def browse(request):
    return Answer(request.app.state.workspace.browse(request.query_params.get("folder", "")))


async def open_project(request):
    """Open a video, a project or the example."""
    asked, workspace = await _read_json(request), request.app.state.workspace
    make_example = request.app.state.make_example
    if asked.get("example") and make_example:
        room = await run_in_threadpool(lambda: workspace.open(make_example(), "example"))
    elif asked.get("uploaded"):
        path = await run_in_threadpool(workspace.uploads) / plain_file_name(asked["uploaded"])
        room = await run_in_threadpool(workspace.open, path)
    elif asked.get("project"):
        room = await run_in_threadpool(workspace.room, str(asked["project"]))
    else:
        path = confine(workspace.root, asked.get("video", ""))
        room = await run_in_threadpool(workspace.open, path)
    return Answer({"project": room.name})


async def upload(request):
    """Take a video file, and open it, or one of a folder's images. It is written while it comes, never held in memory.
    """
    workspace, inside = request.app.state.workspace, request.query_params.get("folder")
    folder = await run_in_threadpool(workspace.uploads) / (plain_file_name(inside) if inside else "")
    if not folder.is_dir():
        raise InputError(f"{inside}: no such folder")
    path = confine(folder, plain_file_name(request.query_params.get("name", "")))
    temporary, size = temporary_path(path), 0
    try:
        with open(temporary, "wb") as file:
            async for block in request.stream():
                size += len(block)
                if size > request.app.state.largest_upload:
                    raise InputError(f"{path.name}: larger than {request.app.state.largest_upload} bytes; put it below "
                                     f"{workspace.root} on this machine instead")
                await run_in_threadpool(file.write, block)
        known = path.exists() and not inside
        if known and not await run_in_threadpool(filecmp.cmp, path, temporary, False):
            number = 2
            while (other := path.with_stem(f"{path.stem}-{number}")).exists():
                number += 1
            path, known = other, False
        if not known:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if inside:
        return Answer({"folder": inside})
    try:
        room = await run_in_threadpool(workspace.open, path)
    except InputError:
        if not known:
            path.unlink()
        raise
    return Answer({"project": room.name})


async def upload_folder(request):
    """Make a folder of this name, or of this name with a number, into which images are uploaded."""
    folder = await run_in_threadpool(request.app.state.workspace.uploads)
    name = stem = plain_file_name(request.query_params.get("name", ""))
    number = 1
    while (folder / name).exists():
        number += 1
        name = plain_file_name(f"{stem}-{number}")
    (folder / name).mkdir()
    return Answer({"folder": name})


async def describe(request):
    room = await _room(request)
    return Answer(await run_in_threadpool(room.describe))


async def frame(request):
    room = await _room(request)
    width = _number(request.query_params.get("w", "")) or LARGEST_WIDTH
    data = await run_in_threadpool(room.picture, _position(room, request), min(width, LARGEST_WIDTH))
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


async def mask(request):
    """A mask, or status 204 where nothing is known. Browsers ask whether it has changed before they show it again."""
    room = await _room(request)
    position = _position(room, request)
    file = room.project.mask_file(position)
    try:
        revision = f'"{file.stat().st_mtime_ns:x}"'
    except FileNotFoundError:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    headers = {"ETag": revision, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == revision:
        return Response(status_code=304, headers=headers)
    return Response(await run_in_threadpool(file.read_bytes), media_type="image/png", headers=headers)


async def quality(request):
    room = await _room(request)

    def read():
        with room.project.lock:
            return b"".join(room.project.quality(object_id).tobytes() for object_id in room.project.objects)

    return Response(await run_in_threadpool(read), media_type="application/octet-stream",
                    headers={"Cache-Control": "no-store"})


async def command(request):
    room, asked = await _room(request), await _read_json(request)
    return Answer({"command": export_command(room.project.folder, *_formats(asked))})


async def export(request):
    room, asked = await _room(request), await _read_json(request)
    return Answer(await run_in_threadpool(room.export, *_formats(asked)))


async def download(request):
    room = await _room(request)
    path, name = await run_in_threadpool(room.exported, request.path_params["target"])
    removing = BackgroundTask(path.unlink, missing_ok=True) if path.name != name else None
    return FileResponse(path, filename=name, background=removing)


async def events(websocket):
    """The page's line to the server: actions come in and are done one after another, events go out to all pages."""
    await websocket.accept()
    loop, waiting, room = asyncio.get_running_loop(), asyncio.Queue(), None

    def listener(event):
        with contextlib.suppress(RuntimeError):  # the server is ending
            loop.call_soon_threadsafe(waiting.put_nowait, event)

    async def send():
        # The page may be closed by now.
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(json.dumps(await waiting.get()))

    try:
        room = await run_in_threadpool(websocket.app.state.workspace.room, websocket.path_params["name"])
        await run_in_threadpool(room.listen, listener)
    except Exception as error:
        # Without a word, the page would connect again and again.
        if room:
            await run_in_threadpool(room.leave, listener)
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.send_text(json.dumps({"event": "refused", "text": _sentence(error)}))
            await websocket.close()
        return
    sending = asyncio.create_task(send())
    try:
        # What a page has sent is done, even if it was closed before it could be answered.
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            try:
                text = message.get("text") or ""
                if len(text) > LARGEST_MESSAGE:
                    raise InputError("this message is too long")
                await run_in_threadpool(room.act, _parse(text))
                listener({"event": "done"})
            except Exception as error:
                listener({"event": "error", "text": _sentence(error)})
    finally:
        sending.cancel()
        await run_in_threadpool(room.leave, listener)


def _sentence(error):
    """What the page says of an error. Of one that nobody expected, the terminal says where it was."""
    text = next(iter(str(error).splitlines()), type(error).__name__)
    if isinstance(error, (InputError, OSError)):
        return text
    traceback.print_exception(error)
    return f"this did not work: {text}"


async def _room(request):
    return await run_in_threadpool(request.app.state.workspace.room, request.path_params["name"])


def _position(room, request):
    """The position that a request's path names. Raises InputError if there is none."""
    text = request.path_params["position"]
    position = _number(text)
    if position is None or position >= len(room.project):
        raise InputError(f"there is no frame {text[:20]}; there are {len(room.project)}")
    return position


def _number(text):
    """A text as a whole number from 0, None if it is none, or has more digits than anything here."""
    return int(text) if text.isdecimal() and len(text) < 16 else None


async def _read_json(request):
    """The body as a dict. Raises InputError if it is none, or too long."""
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > LARGEST_MESSAGE:
            raise InputError("this request is too long")
    return _parse(body)


def _parse(text):
    """JSON as a dict. Raises InputError if it is none."""
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise InputError("an object of JSON was expected")
    return asked


def _formats(asked):
    formats, options = asked.get("formats", []), asked.get("options", {})
    if not isinstance(formats, list) or not isinstance(options, dict):
        raise InputError("formats is a list, options an object")
    return formats, options
