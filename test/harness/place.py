"""Where things live, as whom they run, and how to wait for them.

PostgreSQL refuses to run as root, and the user it then runs as cannot reach a clone under a 0700
home. So for root everything that a server touches goes to a private directory under TMPDIR, linked
as build/private, and servers run as an unprivileged user. For anybody else build/private is an
ordinary directory and processes run as the caller.
"""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ROOMY_BYTES = 4 << 30  # a demo of a million events takes about half of this
SOCKET_PATH_MAX = 107 - len("/.s.PGSQL.65535.lock")

# Set by users for their own servers; here they would lead tools to the wrong one.
FOREIGN_VARIABLES = {"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD",
                     "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS", "PGDATA", "PGTZ",
                     "PGSSLMODE", "CLASSPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}


class Failed(Exception):
    """Something for a person to read; shown without a traceback."""


# --- waiting -----------------------------------------------------------------------------------

def wait_until(predicate, what, timeout=30.0, interval=0.02):
    """Calls predicate until it returns something true, and returns that. The only place where
    tests wait. An exception counts as "not yet" and is shown if time runs out."""
    deadline = time.monotonic() + timeout
    last_error = None
    while True:
        try:
            result = predicate()
            last_error = None
            if result:
                return result
        except AssertionError:
            raise
        except Exception as error:  # a server that is just starting may say anything
            last_error = error
        if time.monotonic() > deadline:
            reason = f"; last error: {last_error}" if last_error else ""
            raise TimeoutError(f"waited {timeout:g} s for {what}{reason}")
        time.sleep(interval)


# --- users and processes -----------------------------------------------------------------------

def server_user():
    """The user servers run as when we are root; None when we are not."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Failed("root needs a user named postgres or nobody to run the servers as")


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    return {**kept, "LC_ALL": "C.UTF-8", **more}


def popen_options(as_server):
    """What makes a child process the server user."""
    user = server_user() if as_server else None
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": private()}


def run(*command, as_server=False, check=True, **options):
    """Runs a command to its end and returns its output (both streams); on failure that is part of
    the error."""
    options = {"env": environment(), **popen_options(as_server), **options}
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", **options)
    if check and done.returncode != 0:
        shown = " ".join(str(word) for word in command)
        raise Failed(f"{shown}\nfailed with exit code {done.returncode}:\n{done.stdout}")
    return done.stdout


def start_time(pid):
    """Tells one process from a later one with the same pid; None when there is none (a zombie is
    none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def children(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat[1]) == pid:
                found.append(int(entry.name))
    return found


class Process:
    """A process known by pid and start time, so that a signal never hits a stranger."""

    def __init__(self, pid, started=None):
        self.pid = int(pid)
        self.started = started or start_time(pid)

    def alive(self):
        return self.started is not None and start_time(self.pid) == self.started

    def send(self, sig):
        if self.alive():
            os.kill(self.pid, sig)

    def cpu_seconds(self):
        """Of a processor that it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_gone(self, timeout=30):
        wait_until(lambda: not self.alive(), f"process {self.pid} to be gone", timeout)

    def kill9(self):
        self.send(signal.SIGKILL)
        self.wait_gone()

    def save(self, path):
        path.write_text(f"{self.pid} {self.started}\n")

    @classmethod
    def load(cls, path):
        try:
            pid, started = path.read_text().split()
            return cls(pid, started)
        except (FileNotFoundError, ValueError):
            return None


# --- directories and ports ---------------------------------------------------------------------

def private():
    """The directory of everything that servers read or write."""
    link = BUILD / "private"
    if link.is_dir():
        return link.resolve()
    BUILD.mkdir(exist_ok=True)
    user = server_user()
    if user is None:
        link.mkdir()
        return link.resolve()
    link.unlink(missing_ok=True)  # dangling: /tmp was emptied
    directory = Path(tempfile.mkdtemp(prefix="pulse-", dir=_reachable_directory(user)))
    os.chown(directory, user.pw_uid, user.pw_gid)  # mkdtemp made it 0700
    link.symlink_to(directory)
    return directory


def _reachable_directory(user):
    """The first temporary directory that the server user can enter, preferably with room."""
    reachable = []
    for candidate in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp"):
        if not candidate or not os.path.isdir(candidate):
            continue
        enters = subprocess.run(["test", "-x", candidate], user=user.pw_uid, group=user.pw_gid,
                                extra_groups=[], cwd="/").returncode == 0
        if enters:
            if shutil.disk_usage(candidate).free >= ROOMY_BYTES:
                return candidate
            reachable.append(candidate)
    if not reachable:
        raise Failed(f"user {user.pw_name} can enter neither TMPDIR nor /tmp nor /var/tmp")
    return reachable[0]


def give_to_server(path):
    user = server_user()
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def server_directory(path):
    """Makes a directory that only the server user can enter."""
    for part in [*reversed(path.parents), path]:
        if not part.exists():
            part.mkdir(mode=0o700)
            give_to_server(part)
    return path


def socket_directory(wanted):
    """wanted, or a short path under /tmp where a socket's name would be too long."""
    if len(str(wanted)) <= SOCKET_PATH_MAX:
        return server_directory(wanted)
    short = Path(tempfile.mkdtemp(prefix="pulse-", dir="/tmp"))
    give_to_server(short)
    return short


def free_port():
    """A port below the range that outgoing connections take theirs from, so that a broker that was
    killed can have the same one back."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(200):
        port = random.randrange(10000, max(low, 20000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port on the loopback interface")


def tail(path, lines=40):
    try:
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return f"({path} does not exist)"
