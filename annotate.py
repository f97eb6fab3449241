"""Make masks of a video in the browser: draw an object in one frame, and let it be tracked through the others.

    python annotate.py                                  # choose a video on the page
    python annotate.py clip.mp4                         # any video, or a folder of images
    python annotate.py --example                        # the built-in example
    python annotate.py clip.mp4 --output masks --size 720
    python annotate.py clip.mp4 --no-browser            # over ssh, see below

The page needs no GPU, no account and no network. Every stroke is saved at once: the page may be loaded anew, and this
script ended and started again, at any moment.

A project is a folder in that of --output, named after its video. track.py takes its `annotations` as masks, and
export_masks.py the project itself:

    python track.py clip.mp4 out/clip/annotations --output out/clip-tracked
    python export_masks.py out/clip --format coco

On another machine, where the GPU is: start the script there with --no-browser, and give this command on yours, then
open the address that the script has printed.

    ssh -L 8765:127.0.0.1:8765 MACHINE

With --host 0.0.0.0, other machines reach the page without ssh. The address then holds a token, without which nobody
gets in; what is sent is not encrypted.
"""

import contextlib
import functools
import secrets
import socket
import sys
import threading
import webbrowser
from pathlib import Path

import numpy as np
import uvicorn

from interactive.access import LOOPBACK
from interactive.server import make_app
from interactive.workspace import UPLOADS, Workspace
from util.errors import InputError, run_script
from util.hyper_para import PageSettings, TrackingSettings
from util.machine import keep_freed_memory
from util.options import OptionParser, settings_from

PORTS_TRIED = 20
"""So many ports are tried, from --port on."""


def get_args_parser():
    parser = OptionParser("annotate.py", __doc__)
    parser.add_argument("video", nargs="?", metavar="VIDEO",
                        help="a video file or a folder of images (default: choose one on the page)")
    parser.add_argument("--example", action="store_true", help="open the built-in example (default: see VIDEO)")
    parser.add_settings(PageSettings, "page")
    parser.add_settings(TrackingSettings, "tracking", amp="auto")
    return parser


def main(args):
    page, tracking = settings_from(PageSettings, args), settings_from(TrackingSettings, args)
    if args.example and args.video:
        raise InputError("--example has a video of its own; leave out one of them")
    if not Path(page.root).is_dir():
        raise InputError(f"{page.root}: no such folder")
    output, made = Path(page.output), {}
    if tracking.mode != "stm":
        # As `open_network` does, which is called too late for the thread that tracks.
        keep_freed_memory(for_threads=True)

    # The page is there before torch, which takes seconds to load.
    def load_networks():
        from inference_core.clicks import ClickSession
        from interactive.clicking import Clicker
        from interactive.jobs import Engines, Tracker
        from model import load_clicks
        from util.device import pick_device
        engines = Engines(tracking)
        load = functools.cache(lambda: load_clicks(device=pick_device(tracking.device)))
        made["tracker"] = lambda project, tell: Tracker(project, engines, tell)
        made["clicker"] = lambda: Clicker(load)
        # So that the first click need not wait: first uses take longest. Whoever clicks gets the error.
        with contextlib.suppress(InputError):
            ClickSession(load(), np.zeros((480, 854, 3), np.uint8)).click(427, 240, True)

    def make(what, *given):
        loading.join()
        return made[what](*given)

    def make_example():
        from dataset.synthetic import write_example
        folder = output / UPLOADS / "example"
        if not (folder / "truth").is_dir():
            write_example(folder)
        return folder / "frames"

    loading = threading.Thread(target=load_networks)
    workspace = Workspace(output, page.root, functools.partial(make, "tracker"), functools.partial(make, "clicker"))
    token = None if page.host in LOOPBACK else secrets.token_urlsafe(16)
    place = ""
    if args.video or args.example:
        room = workspace.open(make_example(), "example") if args.example else workspace.open(args.video)
        place = f"#{room.name}"
    listening = listen(page.host, page.port)
    shown = socket.gethostname() if page.host in ("0.0.0.0", "::") else page.host
    shown = f"[{shown}]" if ":" in shown else shown
    address = f"http://{shown}:{listening.getsockname()[1]}/{f'?token={token}' if token else ''}{place}"
    print(f"the page is at {address} (end with Ctrl-C)", flush=True)
    loading.start()
    if not page.no_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    app = make_app(workspace, token=token, host=page.host, make_example=make_example)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2,
                                           ws_max_size=2**20))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    return 0


def listen(host, port):
    """Return a socket that listens at this port, or at one of the next. Raises InputError if none can be had."""
    for number in range(port, min(port + PORTS_TRIED, 65536)):
        try:
            return socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            reason = error.strerror or str(error)
    raise InputError(f"--host {host} --port {port}: cannot be listened at, nor the next ones ({reason})")


if __name__ == "__main__":
    sys.exit(run_script(get_args_parser(), main))
