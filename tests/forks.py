"""Programs in processes of their own that do not wait for imports.

    process = start_python("main.py", "--config=tests/tiny.py", "--workdir=/tmp/run")
    out, err = process.communicate(timeout=100)

Importing JAX, Flax, Orbax and the rest takes longer than a tiny run. A server imports them once
and forks for each program, which then ends as any other does: exit status, signals, tracebacks
and exit handlers are Python's own. The server computes nothing, so no device and no thread of JAX
exists before the fork. Where forking a process with these libraries is not safe (macOS), each
program starts from the beginning.
"""

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
# One device, and quick compilation as in the other tests; huge pages would need a second start.
ENVIRONMENT = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "GLIBC_TUNABLES": ""}
IMPORTED = ("rattn_jax.training.run", "rattn_jax.training.selftest", "sklearn.datasets")


def start_python(*command, **environment):
    """Starts a program in the root of the repository.

    Args:
        *command: what follows `python`: a file, or "-m" and a module; then its arguments.
        **environment: variables that replace those of `ENVIRONMENT`; None removes one.

    Returns:
        A `subprocess.Popen`, or what does as much as tests need of one.
    """
    if sys.platform != "linux":
        return start_afresh(*command, **environment)
    command, environment = [*map(str, command)], _variables(environment)
    pipes = [os.pipe() for _ in range(3)]
    request = json.dumps([command, environment]).encode()
    server = _server()
    ends = [write for _, write in pipes]
    socket.send_fds(server, [len(request).to_bytes(4, "big")], ends)
    server.sendall(request)
    for end in ends:
        os.close(end)
    return ForkedProcess(int.from_bytes(_receive(server, 4), "big"), *(read for read, _ in pipes))


def start_afresh(*command, **environment):
    """The same, but as a user does, imports and all."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=_variables(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _variables(environment):
    """`ENVIRONMENT` with these changes."""
    changed = ENVIRONMENT | environment
    return {name: value for name, value in changed.items() if value is not None}


class ForkedProcess:
    """A program that runs; as much as tests need of `subprocess.Popen`.

    Attributes:
        pid: of the process.
        returncode: its exit status, or minus the signal that ended it; None while it runs.
        stdout: what it prints, a text file.
    """

    def __init__(self, pid, stdout, stderr, status):
        self.pid, self.returncode = pid, None
        self.stdout = io.TextIOWrapper(io.FileIO(stdout))
        self._stderr, self._status = io.FileIO(stderr), io.FileIO(status)

    def poll(self):
        """The exit status, see `returncode`."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readall())
        return self.returncode

    def communicate(self, timeout=None):
        """What is left of its standard output and error, once it has ended."""
        end = None if timeout is None else time.monotonic() + timeout
        texts = dict.fromkeys((self.stdout, self._stderr, self._status), b"")
        with selectors.DefaultSelector() as selector:
            for file in texts:
                if not file.closed:
                    selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(end and max(end - time.monotonic(), 0))
                if not ready:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
                for key, _ in ready:
                    data = os.read(key.fd, 2**16)
                    texts[key.fileobj] += data
                    if not data:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
        out, err, status = (text.decode() for text in texts.values())
        self.returncode = int(status) if status else self.returncode
        return out, err

    def send_signal(self, number):
        """Sends it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        """Ends it with SIGKILL."""
        self.send_signal(signal.SIGKILL)


@cache
def _server():
    """Connection to the server of this process, which ends with it."""
    here, there = socket.socketpair()
    with there:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", str(there.fileno())],
            cwd=ROOT,
            env=ENVIRONMENT,
            pass_fds=[there.fileno()],
        )

    def end():
        here.close()
        process.wait()

    atexit.register(end)
    return here


def _serve(connection):
    """Forks for each request; returns in the new processes, with their commands."""
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as in conftest.py
    wake, woken = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    statuses = {}
    while True:
        ready, _, _ = select.select([connection, wake], [], [])
        if wake in ready:
            os.read(wake, 2**16)
            _report_ended(statuses)
        if connection not in ready:
            continue
        size, files, _, _ = socket.recv_fds(connection, 4, 3)
        if not size:
            sys.exit()
        command, environment = json.loads(_receive(connection, int.from_bytes(size, "big")))
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for file in (connection.fileno(), wake, woken, *statuses.values()):
                os.close(file)
            _become(files, environment)
            return command
        connection.sendall(pid.to_bytes(4, "big"))
        stdout, stderr, statuses[pid] = files
        os.close(stdout)
        os.close(stderr)


def _report_ended(statuses):
    """Writes the exit status of each process that has ended to its pipe."""
    with suppress(ChildProcessError):
        while ended := os.waitpid(-1, os.WNOHANG):
            pid, status = ended
            if not pid:
                return
            with suppress(BrokenPipeError), open(statuses.pop(pid), "w") as file:
                file.write(str(os.waitstatus_to_exitcode(status)))


def _become(files, environment):
    """Gives this process the output and the environment of a new program."""
    import jax

    files = [os.open(os.devnull, os.O_RDONLY), *files[:2], files[2]]
    for i, file in enumerate(files):
        if i < 3:
            os.dup2(file, i)
        os.close(file)
    # Those that Python began with remember what kind of file they were.
    sys.stdout, sys.stderr = (os.fdopen(i, "w", buffering=1, closefd=False) for i in (1, 2))
    # JAX reads these when it is imported, other variables when it first computes.
    read = {name for name in {**environment, **os.environ} if name.startswith("JAX_")}
    changed = {name for name in read if environment.get(name) != os.environ.get(name)}
    assert changed <= {"JAX_NUM_CPU_DEVICES"}, changed
    jax.config.update("jax_num_cpu_devices", int(environment.get("JAX_NUM_CPU_DEVICES", -1)))
    os.environ.clear()
    os.environ.update(environment)


def _receive(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the server of tests/forks.py has ended")
        data += part
    return data


if __name__ == "__main__":
    sys.argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
