"""Run a script in a process of its own, end it at a chosen moment, and compare what it leaves with an unbroken run.

This file is also the program that `Starter` starts: it imports the scripts once and forks for each run, so that a run
takes a fraction of a second, and a kill hits the work and not the imports.
"""

import contextlib
import hashlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import av

ROOT = Path(__file__).resolve().parents[2]

LIMIT = 60
"""Seconds that a run may take."""

TIMES = ("seconds", "latencies", "speed", "peak_memory_mb")
"""What differs between two runs that give the same: it is left out of the comparison."""


class Starter:
    """Runs scripts of the repository, one at a time. It is a context manager.

    log: the file that gets what they print.
    """

    def __init__(self, log):
        self.log = Path(log)

    def __enter__(self):
        with open(self.log, "a") as errors:
            self._process = subprocess.Popen([sys.executable, __file__, str(self.log)], cwd=ROOT, text=True,
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                                             env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, script, arguments, kill_after=None, prepare=None):
        """Return the exit code of a script, -9 if it was killed.

        script: the module's name. kill_after: seconds after which it is killed. prepare: (name of a function of this
        file, arguments): what it returns is called in the process before the script. Fails after LIMIT seconds.
        """
        job = {"script": script, "arguments": [str(argument) for argument in arguments], "kill_after": kill_after,
               "prepare": prepare}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())
        assert code is not None, f"still running after {LIMIT} s"
        return code


def serve(log):
    """Run jobs, JSON objects as `Starter.run` sends them, and print their exit codes, null for one without end."""
    for name in ("track", "eval_generic"):
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if not process:
            _work(job, log)
        print(json.dumps(_wait(process, job["kill_after"])), flush=True)


def _work(job, log):
    """In the forked process: run the script, and end."""
    from util.errors import run_script
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        if job["prepare"]:
            name, *arguments = job["prepare"]
            globals()[name](*arguments)
        script = importlib.import_module(job["script"])
        code = run_script(script.get_args_parser(), script.main, job["arguments"])
        sys.stdout.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _wait(process, kill_after):
    end = time.monotonic() + (LIMIT if kill_after is None else kill_after)
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return None if kill_after is None else os.waitstatus_to_exitcode(status)


def kill_at_name(number):
    """Let this process kill itself when it is about to give a file its name, the Nth time.

    The temporary file is written then, and stays.
    """
    replace, count = os.replace, [0]

    def counted(*arguments, **options):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(*arguments, **options)

    os.replace = counted


def record_flushes(log, cut_after=None):
    """Let this process note in the file `log` what it flushes and what it gives names.

    cut_after: it kills itself right after it has given that many files their names. Nothing is really flushed, so that
    tests do not wait for the disk.
    """
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    replace, count = os.replace, [0]

    def note(*event):
        os.write(file, (json.dumps(event) + "\n").encode())

    def note_flush(descriptor):
        state = os.fstat(descriptor)
        note("flush", state.st_ino, state.st_size)

    def note_name(source, target, **options):
        new = not os.path.lexists(target)
        replace(source, target, **options)
        if new:
            # Of a file that takes the place of another, one of the two is there in any case.
            note("name", os.stat(target).st_ino, os.stat(os.path.dirname(target) or ".").st_ino)
        count[0] += 1
        if count[0] == cut_after:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace, os.fsync = note_name, note_flush


def limit_files(size, log):
    """Let this process write no file beyond `size` bytes, as if the disk were full then. log: takes what it prints."""
    import resource
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def cut_power(folders, log, seed):
    """Leave below `folders` what a disk may hold after a power cut, given the log of `record_flushes`.

    Of what a file has got since it was flushed nothing, half or all is there. A name that was given since its folder
    was flushed may be missing.
    """
    rng = random.Random(seed)
    flushed, named = {}, {}
    for line in Path(log).read_text().splitlines():
        kind, inode, value = json.loads(line)
        if kind == "flush":
            flushed[inode] = value
            named = {file: folder for file, folder in named.items() if folder != inode}
        else:
            named[inode] = value
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
        state = path.stat()
        safe = min(flushed.get(state.st_ino, 0), state.st_size)
        if state.st_ino in named and rng.random() < 0.3:
            path.unlink()
        elif safe < state.st_size:
            os.truncate(path, safe + rng.choice((0, 0, (state.st_size - safe) // 2, state.st_size - safe)))


def content(*paths):
    """{path below them: SHA-256} of all files below folders, and of files, without temporary files and times."""
    hashes = {}
    for number, root in enumerate(paths):
        for path in sorted(Path(root).rglob("*")) if root.is_dir() else [root]:
            if not path.is_file() or path.name.endswith(".part"):
                continue
            data = path.read_bytes()
            if path.name == "speed.json":
                data = b""
            elif path.suffix == ".mp4":
                # The encoder's bytes differ now and then.
                with av.open(str(path)) as video:
                    data = str(sum(1 for _ in video.decode(video=0))).encode()
            elif path.suffix == ".json":
                data = json.dumps({name: value for name, value in json.loads(data).items() if name not in TIMES})
                data = data.replace(str(root), "").encode()
            hashes[f"{number}/{path.relative_to(root)}"] = hashlib.sha256(data).hexdigest()
    return hashes


def left_over(*folders):
    """The temporary files that are left below folders."""
    return [path for folder in folders for path in Path(folder).rglob("*.part")]


if __name__ == "__main__":
    serve(sys.argv[1])
