"""What the page asks of the server, without a browser."""

import io

import av
import numpy as np
from PIL import Image

COUNT = 8
"""Frames of the videos."""


def open_video(client, video="one"):
    return client.post("/api/open", json={"video": video}).json()["project"]


def until(line, event):
    """The next event of this kind."""
    while (found := line.receive_json())["event"] != event:
        assert found["event"] != "error", found
    return found


def act(line, **message):
    """Send an action, and return the state afterwards."""
    line.send_json(message)
    return until(line, "changed")


def mask_of(client, name, position):
    answer = client.get(f"/api/p/{name}/mask/{position}")
    return None if answer.status_code == 204 else np.array(Image.open(io.BytesIO(answer.content)))


def draw_dog(line):
    """Add an object, and draw it in the second frame."""
    act(line, do="add object", name="dog")
    act(line, do="draw", tool="brush", frame=1, object=1, points=[[20, 20]], width=9)


def video_bytes(clip, kind="mp4"):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 72, 100, "yuv420p"
        for image in clip[0][:COUNT]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    return file.getvalue()
