"""A web server on this machine that serves bytes, and misbehaves as it is told."""

import contextlib
import http.server
import re
import threading


class Server:
    """What is served, and what was asked for.

    files: {path: bytes, or str for a page}.
    cuts: {path: numbers of bytes after which successive connections are cut}.
    stalls: {path: number of bytes after which nothing more comes}.
    announced: {path: the size it is said to have, None: nothing is said}.
    ranges: whether Range is understood. shift: by how many bytes more than asked for the start is passed over.
    requests: [(path, first byte asked for)].
    """

    def __init__(self, address):
        self.address = address
        self.files, self.cuts, self.stalls, self.announced = {}, {}, {}, {}
        self.ranges, self.shift = True, 0
        self.requests = []
        self.closing = threading.Event()

    def url(self, path, content=None):
        """The URL of a path, whose content is served from now on."""
        if content is not None:
            self.files[path] = content
        return f"{self.address}/{path}"


@contextlib.contextmanager
def serving():
    """Yield a Server that runs until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self, server)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server = Server(f"http://127.0.0.1:{listener.server_address[1]}")
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            listener.shutdown()
            thread.join()


def answer(handler, server):
    path = handler.path.lstrip("/").partition("?")[0]
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(asked[1]) if asked else 0
    server.requests.append((path, start))
    content = server.files.get(path)
    if content is None:
        handler.send_error(404)
        return
    kind = "application/octet-stream"
    if isinstance(content, str):
        content, kind, start = content.encode(), "text/html; charset=utf-8", 0
    start = start if server.ranges else 0
    start += server.shift if start else 0
    size = server.announced.get(path, len(content))
    beyond = start and start >= (size or len(content))
    handler.send_response(416 if beyond else 206 if start else 200)
    handler.send_header("Content-Type", kind)
    if beyond:
        handler.send_header("Content-Range", f"bytes */{size}")
        handler.end_headers()
        return
    if size is not None:
        handler.send_header("Content-Length", str(size - start))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{size or '*'}")
    handler.end_headers()
    cuts = server.cuts.get(path)
    with contextlib.suppress(ConnectionError):
        handler.wfile.write(content[start:][:cuts.pop(0) if cuts else server.stalls.get(path)])
    if path in server.stalls:
        server.closing.wait()
