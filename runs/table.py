"""What came out of a list of videos: videos.csv, videos.parquet and a page."""

import csv
import html
import importlib.util
import io
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

from runs.addresses import is_address, open_address
from runs.row import COLUMNS, FAILED, THUMBNAIL
from util.errors import InputError
from util.files import atomic_path, write_text

STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 1300px; padding: 24px; font: 15px/1.45 system-ui, Helvetica, Arial, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 18px; margin-top: 20px; }
figure { margin: 0; content-visibility: auto; contain-intrinsic-size: 230px 220px; }
img, .none { display: block; width: 100%; aspect-ratio: 16/9; object-fit: contain; background: #8882; }
b { overflow-wrap: anywhere; } .soft { opacity: .7; } .bad { color: #dc2626; }
"""


def order_rows(rows, worst_first):
    """The rows in the order of the table. rows: {column: value}, in the order of the list."""
    if not worst_first:
        return rows
    return sorted(rows, key=lambda row: (row["status"] != FAILED, 2 if row["quality"] is None else row["quality"]))


def write_table(folder, rows, suffix, title):
    """Write videos.csv, index.html and, where pyarrow is installed, videos.parquet into a folder; return their names.

    folder: local, or an address. rows: {column of COLUMNS: value}. suffix: what comes behind "videos" and "index".
    Raises InputError, or OSError that names the file, if something cannot be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) if is_address(folder) else Path(folder)
        names = [f"videos{suffix}.csv", f"index{suffix}.html"]
        write_text(local / names[0], _format_csv(rows))
        write_text(local / names[1], _format_page(rows, title, folder))
        if importlib.util.find_spec("pyarrow"):
            names.append(f"videos{suffix}.parquet")
            _write_parquet(local / names[2], rows)
        if is_address(folder):
            files, inside = open_address(folder)
            try:
                files.makedirs(inside, exist_ok=True)
                for name in names:
                    files.put_file(str(local / name), f"{inside}/{name}")
            except Exception as error:
                raise InputError(f"{folder}: cannot be written ({error})") from None
    return names


def _format_csv(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow("" if row[name] is None else str(row[name]).lower() if kind is bool else row[name]
                        for name, kind in COLUMNS.items())
    return text.getvalue()


def _write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet
    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    columns = {name: pyarrow.array([row[name] for row in rows], kinds[kind]) for name, kind in COLUMNS.items()}
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)


def _format_page(rows, title, folder):
    """The page as HTML. Its pictures are files in the videos' folders, and are only loaded when they are looked at."""
    failed = sum(row["status"] == FAILED for row in rows)
    figures = [_format_video(row, folder) for row in rows]
    shown = html.escape(title)
    return "\n".join([
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{shown}</title><style>{STYLE}</style>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>', f"<body><h1>{shown}</h1>",
        f'<p class="soft">{len(rows)} videos, {sum(row["frames"] or 0 for row in rows)} frames, {failed} failed</p>',
        '<div class="videos">', *figures, "</div></body></html>", ""])


def _format_video(row, folder):
    place = html.escape(quote(row["name"]))
    picture = '<div class="none"></div>'
    if row["status"] != FAILED and (is_address(folder) or os.path.exists(Path(folder) / row["name"] / THUMBNAIL)):
        picture = f'<a href="{place}/"><img src="{place}/{THUMBNAIL}" loading="lazy" alt=""></a>'
    lines = [f"<b>{html.escape(row['name'])}</b>"]
    if row["status"] == FAILED:
        lines.append(f'<span class="bad">{html.escape(row["error"])}</span>')
    else:
        quality = "" if row["quality"] is None else f", quality {100 * row['quality']:.0f} %"
        lines.append(f"{row['frames']} frames, {row['objects']} objects{quality}")
    lines += [f'<span class="soft">worth a look: {html.escape(row["worst_frames"])}</span>'] if row["worst_frames"] \
        else []
    lines += [f'<span class="soft">{html.escape(row["notes"])}</span>'] if row["notes"] else []
    return f"<figure>{picture}<figcaption>{'<br>'.join(lines)}</figcaption></figure>"
