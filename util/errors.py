"""Errors that the user can mend, and the one place where scripts report them."""

import contextlib
import errno
import os
import signal
import stat
import sys
import traceback


class InputError(ValueError):
    """What was given cannot be used.

    The first line of the message is one sentence for the user: which file, what was found, what was
    expected. Further lines, if any, are details that scripts leave out.
    """


def pixels(size):
    """A size (width, height) as messages show it: "854×480"."""
    return f"{size[0]}×{size[1]}"


SHOWN_NAMES = 4
"""Messages that give examples name so many of them."""


def name_a_few(names):
    """The first names and how many there are in all, like "a, b, c, d, … (9)"."""
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown}, … ({len(names)})"


def run_script(parser, main, argv=None):
    """Parse `argv`, call `main(args)` and return the exit code of a command line script.

    0 done (or the code that `main` returns), 2 unusable input in one line on standard error, 130
    interrupted. An operating system error that concerns a file (disk full, no permission) is unusable
    input, too. SIGTERM, and the end of the terminal's session, are treated like Ctrl-C, so that what is finished is
    kept. With RDE_TRACEBACK=1 in the
    environment the error's whole traceback comes before its line, for whoever looks for the cause in the code.
    """
    _prepare_streams()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:
        return end.code
    previous = catch_end(signal.default_int_handler)
    try:
        code = main(args) or 0
        # Here an error can still be told.
        sys.stdout.flush()
        return code
    except InputError as error:
        _show_traceback()
        message = str(error).splitlines()[0]
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        _show_traceback()
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EPIPE, errno.EBADF):
            # All that is written into files names them; printing does not.
            error.filename = "standard output"
            _drop_output()
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    except KeyboardInterrupt as interrupt:
        print(f"interrupted{f': {interrupt}' if interrupt.args else ''}", file=sys.stderr)
        return 130
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    print(f"{parser.prog}: error: {message}", file=sys.stderr)
    return 2


def catch_end(handler):
    """Let `handler(number, frame)` take the signals by which systems and launchers ask a process to end.

    They are SIGTERM, and SIGHUP unless it is ignored, as under nohup. After a SIGHUP nothing can be written to the
    terminal any more; what is written then goes nowhere instead of failing. Returns {number: the handler before}.
    """
    def hang_up(number, frame):
        with open(os.devnull, "w") as nowhere:
            for descriptor in (1, 2):
                with contextlib.suppress(OSError):
                    if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                        os.dup2(nowhere.fileno(), descriptor)
        handler(number, frame)

    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, handler)}
    number = getattr(signal, "SIGHUP", None)
    if number and signal.getsignal(number) != signal.SIG_IGN:
        previous[number] = signal.signal(number, hang_up)
    return previous


def _prepare_streams():
    """Let no name and no closed stream stop a script: otherwise hours of work would end in an error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by whoever started this script (2>&-). Nobody reads what is written then.
            setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))  # noqa: SIM115 (stays open)
        elif hasattr(stream, "reconfigure"):
            # A terminal that cannot show a name gets it with escapes.
            stream.reconfigure(errors="backslashreplace")


def _drop_output():
    """Let what is still to be written to standard output go nowhere. Python would try at the end, and show an error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_traceback():
    if os.environ.get("RDE_TRACEBACK") == "1":
        traceback.print_exc()
