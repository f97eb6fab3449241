"""Write a report on scores as one HTML file that needs no other files: tables, curves over time, the worst frames."""

import base64
import html
import platform
from datetime import datetime

import cv2
import numpy as np
from PIL import __version__ as pillow_version

from evaluation.decoding import read_ids
from evaluation.measures import object_statistics
from evaluation.results import describe_run
from evaluation.tables import make_comparison
from util.files import write_text
from util.image_io import read_image

WORST_FRAMES = 12
"""So many frames are shown at most."""

WORST_PER_OBJECT = 2
"""So many frames of one object are shown at most."""

WORST_APART = 10
"""Least number of frames between two frames of the same object: neighbours show the same failure."""

PANEL_WIDTH = 360
"""Width of the embedded pictures in pixels."""

CROP_AT_LEAST = 1 / 3
"""Least share of the frame's width and height that a crop shows, so that one still sees where the object is."""

JPEG_QUALITY = 82

CHART_WIDTH, CHART_HEIGHT, CHART_LEFT, CHART_FOOT = 330, 120, 24, 16
"""Size of a chart, and its margins for the labels on the left and below, in units of the SVG."""

GROUND_TRUTH_COLOUR, PREDICTION_COLOUR, CROP_COLOUR = (34, 197, 94), (239, 68, 68), (250, 204, 21)
"""RGB, 0 to 255."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2330; --soft: #667085; --line: #dfe3ea;
  --panel: #f6f7f9; --j: #2563eb; --f: #d97706; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161d; --ink: #e6e9ef; --soft: #97a1b2;
  --line: #2b323e; --panel: #1a2029; --j: #6ea0ff; --f: #f5a742; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 60px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 12px; }
p { margin: 4px 0 12px; } .soft { color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
th:first-child, td:first-child { text-align: left; }
tr.sequence td { font-weight: 600; background: var(--panel); }
tr.object td:first-child { padding-left: 28px; }
td.bar { width: 130px; padding-right: 0; }
td.bar i { display: block; height: 9px; border-radius: 3px; background: var(--j); }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
.wide { overflow-x: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px; }
figure { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; }
figcaption { font-size: 13px; display: flex; justify-content: space-between; gap: 12px; flex-wrap: wrap; }
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { fill: var(--soft); font-size: 10px; } svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.j { color: var(--j); stroke: var(--j); } .f { color: var(--f); stroke: var(--f); }
span.j, span.f { font-weight: 600; }
.worst { display: grid; gap: 14px; }
.panels { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; margin-top: 8px; }
.panels img { width: 100%; height: auto; display: block; border-radius: 4px; }
.panels div { font-size: 12px; color: var(--soft); }
.facts td { text-align: left; white-space: normal; }
.facts td:first-child { color: var(--soft); width: 220px; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  body { padding: 16px 12px 40px; } h1 { font-size: 21px; overflow-wrap: anywhere; }
  .panels { grid-template-columns: 1fr; } td.bar, th:nth-child(2):empty { display: none; }
  th, td { padding: 4px 7px; } .facts td:first-child { width: 110px; } .tile { padding: 8px 12px; }
}
"""


def write_report(path, title, runs, summary, settings, decay_rule="correct", binary=False):
    """Write a report on scores to `path`, atomically.

    runs: {folder of results: its ObjectScores}; the report is on the first one, and compares it with the others.
    summary: {name: score} of all its objects together. settings: {name: text} of how it was scored. binary: in masks,
    all ids above 0 are the object.
    """
    # Collect what the report says.
    folder, scores = next(iter(runs.items()))
    tracking = describe_run(folder)
    objects = len(scores)
    videos = len({score.sequence for score in scores})
    frames = sum(len(score.frames) for score in scores)
    facts = {
        "results": folder,
        **tracking,
        **settings,
        "scored": f"{frames} object frames, {objects} objects, {videos} sequences",
        "scored at": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "Python": platform.python_version(),
        "NumPy, OpenCV, Pillow": f"{np.__version__}, {cv2.__version__}, {pillow_version}",
    }
    worst = find_worst_frames(scores)

    # Make the page.
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="soft">{html.escape(", ".join([folder, *_list_facts(tracking)]))}</p>',
        f'<p class="soft">{videos} sequences, {objects} objects. J is region similarity, F boundary accuracy '
        "(Perazzi et al., CVPR 2016), both from 0 to 1.</p>",
        f'<div class="tiles">{"".join(_make_tile(*item) for item in summary.items())}</div>',
        *_make_comparison(runs),
        "<h2>Sequences and objects</h2>",
        _make_table(scores, decay_rule),
        '<h2>Over time: <span class="j">J</span> and <span class="f">F</span></h2>',
        f'<div class="charts">{"".join(map(_make_chart, scores))}</div>',
        f"<h2>The {len(worst)} worst frames</h2>",
        f'<p class="soft">The lowest J&amp;F, at most {WORST_PER_OBJECT} frames of an object. The yellow box '
        "on the left is the part that the other two show. The white line is the outline of the ground "
        "truth, on the prediction, too.</p>",
        f'<div class="worst">{"".join(_make_worst_frame(score, t, binary) for score, t in worst)}</div>',
        "<h2>Settings and versions</h2>",
        f'<table class="facts">{"".join(_make_fact(*item) for item in facts.items())}</table>',
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}{viewport}</head>\n<body>\n'
    write_text(path, page + "\n".join(body) + "\n</body></html>\n")


def find_worst_frames(scores):
    """Return (ObjectScore, index into its frames) of the frames with the lowest J + F, the worst first."""
    order = sorted(
        ((score.j[t] + score.f[t], index, t) for index, score in enumerate(scores) for t in range(len(score.j)))
    )
    chosen = []
    for value, index, t in order:
        same = [other for chosen_index, other in chosen if chosen_index == index]
        apart = all(abs(other - t) >= WORST_APART for other in same)
        # A frame with J = F = 1 is perfect.
        if value < 2 and len(same) < WORST_PER_OBJECT and apart:
            chosen.append((index, t))
        if len(chosen) == WORST_FRAMES:
            break
    return [(scores[index], t) for index, t in chosen]


def _list_facts(facts):
    """Return {name: text} as texts in a row."""
    return [f"{name} {value}" for name, value in facts.items()]


def _make_comparison(runs):
    """Return parts of the page: what is known of each run, and the J&F of all, the best in bold; none of one run."""
    if len(runs) == 1:
        return []
    known = (_make_fact(folder, ", ".join(_list_facts(describe_run(folder))) or "no record of how it was tracked")
             for folder in runs)
    header, rows = make_comparison(runs)
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in header)]
    for name, *values in rows:
        best = np.nanmax(values)
        cells = (f"<td><b>{_format_number(value)}</b></td>" if value == best else f"<td>{_format_number(value)}</td>"
                 for value in values)
        lines.append(f"<td>{html.escape(name)}</td>{''.join(cells)}")
    return ["<h2>J&amp;F of all runs</h2>", f'<table class="facts">{"".join(known)}</table>',
            f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>']


def _make_tile(name, value):
    return f'<div class="tile"><b>{_format_number(value)}</b><span>{html.escape(name)}</span></div>'


def _format_number(value):
    return "–" if np.isnan(value) else f"{value:.3f}"


def _make_fact(name, value):
    return f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"


def _make_table(scores, decay_rule):
    """Return the HTML table of all sequences and their objects."""
    names = "J&amp;F", "J", "J recall", "J decay", "F", "F recall", "F decay", "frames"
    header = f"<th></th><th></th>{''.join(f'<th>{name}</th>' for name in names)}"
    rows = []
    for sequence in dict.fromkeys(score.sequence for score in scores):
        own = [score for score in scores if score.sequence == sequence]
        statistics = [
            [number for values in (score.j, score.f) for number in object_statistics(values, decay_rule)]
            for score in own
        ]
        frames = [len(score.j) for score in own]
        rows.append(_make_row("sequence", _make_link(own[0], sequence), np.mean(statistics, axis=0), max(frames)))
        if len(own) > 1:
            rows += [
                _make_row("object", _make_link(score, f"object {score.label}"), numbers, count)
                for score, numbers, count in zip(own, statistics, frames, strict=True)
            ]
    return f"<div class=\"wide\"><table><tr>{header}</tr>{''.join(rows)}</table></div>"


def _make_link(score, text):
    return f'<a href="#{html.escape(score.name)}">{html.escape(text)}</a>'


def _make_row(kind, name, statistics, frames):
    """Return an HTML table row. kind: its CSS class. statistics: mean, recall and decay of J, then of F."""
    both = (statistics[0] + statistics[3]) / 2
    cells = "".join(f"<td>{_format_number(value)}</td>" for value in (both, *statistics))
    bar = f'<td class="bar"><i style="width:{100 * both:.1f}%"></i></td>'
    return f'<tr class="{kind}"><td>{name}</td>{bar}{cells}<td>{frames}</td></tr>'


def _make_chart(score):
    """Return an HTML figure with J and F of one ObjectScore over time."""
    width, height = CHART_WIDTH - CHART_LEFT - 6, CHART_HEIGHT - CHART_FOOT - 6

    def across(t):
        return CHART_LEFT + width * t / max(len(score.j) - 1, 1)

    def down(value):
        return 6 + height * (1 - value)

    # The grid, and the names of the first and the last frame.
    parts = []
    for value in (0, 0.5, 1):
        y = down(value)
        parts.append(f'<line class="grid" x1="{CHART_LEFT}" x2="{CHART_LEFT + width}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{CHART_LEFT - 5}" y="{y + 3.5}" text-anchor="end">{value}</text>')
    for t, anchor in ((0, "start"), (len(score.j) - 1, "end"))[: len(score.j)]:
        frame = html.escape(score.video.frames[score.frames[t]])
        parts.append(f'<text x="{across(t)}" y="{CHART_HEIGHT - 3}" text-anchor="{anchor}">{frame}</text>')

    # The curves; a single frame is a point.
    for name, values in (("f", score.f), ("j", score.j)):
        points = " ".join(f"{across(t):.1f},{down(value):.1f}" for t, value in enumerate(values))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
        if len(values) == 1:
            parts.append(f'<circle class="{name}" cx="{across(0)}" cy="{down(values[0])}" r="2"/>')

    # The caption, and all together.
    j, f = np.mean(score.j), np.mean(score.f)
    caption = f'<b>{html.escape(score.name)}</b><span><span class="j">J {j:.3f}</span>'
    caption += f' &nbsp; <span class="f">F {f:.3f}</span></span>'
    label = html.escape(f"J and F of {score.name} over {len(score.j)} frames")
    picture = f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" aria-label="{label}">'
    return (
        f'<figure id="{html.escape(score.name)}"><figcaption>{caption}</figcaption>'
        f"{picture}{''.join(parts)}</svg></figure>"
    )


def _make_worst_frame(score, t, binary):
    """Return an HTML figure of one frame: image, ground truth and prediction side by side."""
    video, index = score.video, score.frames[t]
    truth, prediction = read_ids(video.ground_truth[index]), read_ids(video.prediction[index])
    truth = truth > 0 if binary else truth == score.ground_truth_id
    prediction = prediction > 0 if binary else prediction == score.prediction_id
    has_image = video.images[index].is_file()
    image = read_image(video.images[index]) if has_image else np.full((*truth.shape, 3), 128, np.uint8)
    if image.shape[:2] != truth.shape:
        image = cv2.resize(image, truth.shape[::-1], interpolation=cv2.INTER_AREA)
    part = _crop_around(truth | prediction)
    pictures = (
        ("frame" if has_image else "no frame at hand", _draw_crop(image, part)),
        ("ground truth", _draw_mask(image[part], truth[part], GROUND_TRUTH_COLOUR, truth[part])),
        ("prediction", _draw_mask(image[part], prediction[part], PREDICTION_COLOUR, truth[part])),
    )
    panels = "".join(
        f'<div><img alt="{name}" src="{_make_data_uri(picture)}">{name}</div>' for name, picture in pictures
    )
    where = f"{score.name}, frame {video.frames[index]}"
    caption = f'<b>{html.escape(where)}</b><span><span class="j">J {score.j[t]:.3f}</span> &nbsp; '
    caption += f'<span class="f">F {score.f[t]:.3f}</span></span>'
    return f'<figure><figcaption>{caption}</figcaption><div class="panels">{panels}</div></figure>'


def _crop_around(mask):
    """Return the slices of a crop around a bool mask H×W, with the frame's proportions and some room."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    if not w:
        return slice(0, height), slice(0, width)
    share = min(max(1.5 * w / width, 1.5 * h / height, CROP_AT_LEAST), 1)
    part = []
    for start, size, full in ((y, h, height), (x, w, width)):
        length = round(share * full)
        first = min(max(start + size // 2 - length // 2, 0), full - length)
        part.append(slice(first, first + length))
    return tuple(part)


def _draw_crop(image, part):
    """Return a copy of uint8 H×W×3 `image` with a box around the crop, two slices; no box if the crop is all of it."""
    image = image.copy()
    rows, columns = part
    if rows.stop - rows.start < image.shape[0]:
        corners = (columns.start, rows.start), (columns.stop - 1, rows.stop - 1)
        cv2.rectangle(image, *corners, CROP_COLOUR, max(image.shape[1] // 250, 1))
    return image


def _draw_mask(image, mask, colour, outline):
    """Return uint8 H×W×3 `image` in the size of a panel, with a bool mask in colour, and another mask's outline.

    The outline is white and one pixel wide and lies around its mask, so that it covers nothing of a small object.
    """
    picture = _resize(image)
    mask, outline = (cv2.resize(each.view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
                     for each in (np.ascontiguousarray(mask), np.ascontiguousarray(outline)))
    picture[mask] = (0.45 * picture[mask] + 0.55 * np.array(colour)).astype(np.uint8)
    around = cv2.dilate(outline.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    picture[around & ~outline] = 255
    return picture


def _resize(picture):
    """Return uint8 H×W×3 in the size of a panel."""
    height, width = picture.shape[:2]
    size = PANEL_WIDTH, max(round(PANEL_WIDTH * height / width), 1)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if width > PANEL_WIDTH else cv2.INTER_LINEAR)


def _make_data_uri(picture):
    """Return RGB uint8 H×W×3 as a JPEG of PANEL_WIDTH in a data URI."""
    _, data = cv2.imencode(".jpg", _resize(picture)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
