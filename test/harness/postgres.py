"""A private PostgreSQL with pulse in it, and throw-away clusters made from that.

The system's PostgreSQL is copied (programs find their libraries relative to themselves, so a copy
that keeps the layout works), and the extension is installed into the copy: nothing outside build/
or the private directory is written, and no cluster of the user's is ever touched.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import psycopg

from . import place
from .place import Failed, Process, wait_until

DEBIAN_PG_CONFIG = "/usr/lib/postgresql/15/bin/pg_config"

# What a test wants; fsync is off because a kill -9 of processes leaves the operating system's
# cache alone. The demo and the benchmark turn it on.
DEFAULTS = {
    "shared_preload_libraries": "pulse",
    "listen_addresses": "",
    "max_connections": 50,
    "max_worker_processes": 16,
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "fsync": "off",
    "jit": "off",
    "restart_after_crash": "on",
    "log_line_prefix": "%m [%p] %b: ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@contextmanager
def locked(name):
    """One at a time on this clone: two makes in one tree would trip over each other."""
    place.BUILD.mkdir(exist_ok=True)
    with open(place.BUILD / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Installation:
    """A copy of the PostgreSQL tree with the extension installed; testing has the failpoints."""

    def __init__(self, testing=False):
        self.testing = testing
        self.root = place.private() / ("pg-testing" if testing else "pg")
        source = os.environ.get("PG_CONFIG") or DEBIAN_PG_CONFIG
        if "/" not in source:
            source = shutil.which(source) or source
        self.source = source
        self._paths = None

    def prepare(self):
        with locked("install"):
            self._copy()
            self._install_extension()
        return self

    def _ask(self, what):
        if self._paths is None:
            self._paths = {}
            for line in place.run(self.source).splitlines():
                name, _, value = line.partition(" = ")
                self._paths[name] = value
        return self._paths[what]

    def _prefix(self):
        return Path(os.path.commonpath([self._ask("BINDIR"), self._ask("PKGLIBDIR"),
                                        self._ask("SHAREDIR")]))

    def _inside(self, what):
        return self.root / Path(self._ask(what)).relative_to(self._prefix())

    @property
    def bindir(self):
        return self._inside("BINDIR")

    @property
    def pgxs(self):
        return self._inside("PKGLIBDIR") / "pgxs"

    def program(self, name):
        return self.bindir / name

    def _fingerprint(self):
        """Changes when the package is upgraded."""
        postgres = os.stat(Path(self._ask("BINDIR")) / "postgres")
        return f"{self.source} {self._ask('VERSION')} {postgres.st_size} {postgres.st_mtime_ns}"

    def _copy(self):
        stamp = self.root / "copied-from"
        if stamp.exists() and stamp.read_text() == self._fingerprint():
            return
        if self._in_use():
            raise Failed("PostgreSQL's package was upgraded while servers run from a copy of the "
                         "old one: `make down`, then try again")
        shutil.rmtree(self.root, ignore_errors=True)
        place.server_directory(self.root)
        for what in ("BINDIR", "PKGLIBDIR", "SHAREDIR"):
            shutil.copytree(self._ask(what), self._inside(what), symlinks=True,
                            ignore=shutil.ignore_patterns("bitcode", "man", "*.a", "pulse*"))
        include = self.root / Path(self._ask("INCLUDEDIR")).relative_to(self._prefix())
        include.parent.mkdir(parents=True, exist_ok=True)
        include.symlink_to(self._ask("INCLUDEDIR"))
        if Path(place.run(self.program("pg_config"), "--pkglibdir").strip()) != \
                self._inside("PKGLIBDIR"):
            raise Failed(f"the copy of {self._ask('BINDIR')} does not find its own libraries")
        stamp.write_text(self._fingerprint())

    def _in_use(self):
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and \
                        os.readlink(entry / "exe").startswith(f"{self.root}/"):
                    return True
            except OSError:
                continue
        return False

    def _install_extension(self):
        variables = [f"PG_CONFIG={self.program('pg_config')}",
                     f"PULSE_TESTING={1 if self.testing else ''}"]
        if os.environ.get("WERROR"):
            variables.append(f"WERROR={os.environ['WERROR']}")
        jobs = f"-j{len(os.sched_getaffinity(0))}"
        print(f"== Build{' with failpoints' if self.testing else ''}", flush=True)
        log = place.run("make", "-C", place.ROOT, jobs, "--no-print-directory", "all", "install",
                        *variables, check=False)
        told = [line for line in log.splitlines()
                if not line.startswith(("g++ ", "gcc ", "/bin/mkdir ", "/usr/bin/install "))]
        if told:
            print("\n".join(told), flush=True)
        if any(line.startswith("make: ***") for line in told):
            raise Failed("the extension does not build; the compiler's words are above")

    def template(self):
        """An initialised data directory to copy clusters from: initdb takes two seconds."""
        key = hashlib.sha256(self._fingerprint().encode()).hexdigest()[:12]
        template = place.private() / f"template-{key}"
        with locked("template"):
            if not (template / "PG_VERSION").exists():
                shutil.rmtree(template, ignore_errors=True)
                place.run(self.program("initdb"), "--pgdata", template, "--username", "postgres",
                          "--encoding", "UTF8", "--locale", "C.UTF-8", "--auth", "trust",
                          "--no-sync", "--no-instructions", as_server=True)
        return template


class Cluster:
    """One PostgreSQL cluster. Connections come in through a socket in a private directory."""

    def __init__(self, directory, installation, **conf):
        self.directory = Path(directory)
        self.installation = installation
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.dbname = "pulse"
        self._popen = None
        self._sockets = self.directory / "sockets"
        self.conf = {**DEFAULTS, **{key.replace("__", "."): value for key, value in conf.items()}}
        if self._sockets.exists():
            self.socket = Path(self._sockets.read_text())

    # --- life

    def create(self, template=None):
        if self.directory.exists():
            self.destroy()
        place.server_directory(self.directory)
        place.run("cp", "-a", "--reflink=auto", template or self.installation.template(),
                  self.data, as_server=True)
        self.socket = place.socket_directory(self.directory / "s")
        self._sockets.write_text(str(self.socket))
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write("include 'pulse-test.conf'\n")
        self._write_conf()
        return self

    def _write_conf(self):
        lines = []
        for name, value in {"unix_socket_directories": self.socket, **self.conf}.items():
            quoted = str(value).replace("'", "''")
            lines.append(f"{name} = '{quoted}'\n")
        (self.data / "pulse-test.conf").write_text("".join(lines))

    def configure(self, reload=True, **conf):
        """Changes settings (`__` stands for the dot: pulse__workers=2) and reloads. None removes."""
        for key, value in conf.items():
            name = key.replace("__", ".")
            if value is None:
                self.conf.pop(name, None)
            else:
                self.conf[name] = value
        self._write_conf()
        if reload and self.running():
            self._pg_ctl("reload")

    def _pg_ctl(self, *arguments):
        try:
            return place.run(self.installation.program("pg_ctl"), "--pgdata", self.data, "--wait",
                             "--timeout", 90, *arguments, as_server=True)
        except Failed as error:
            raise Failed(f"{error}\n--- {self.log}\n{place.tail(self.log)}") from None

    def start(self, timeout=90):
        """Starts the server as a child of this process, which reaps it when it is killed: a zombie
        would keep postmaster.pid valid."""
        with open(self.log, "ab") as log:
            place.give_to_server(self.log)
            self._popen = subprocess.Popen(
                [self.installation.program("postgres"), "-D", self.data],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, env=place.environment(),
                **{"cwd": self.data, **place.popen_options(as_server=True)})

        def started():
            if self._popen.poll() is not None:
                raise AssertionError(f"the server ended with {self._popen.returncode} while "
                                     f"starting:\n--- {self.log}\n{place.tail(self.log)}")
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and int(lines[0]) == self._popen.pid and \
                lines[7].strip() in ("ready", "standby")
        wait_until(started, f"the server to start ({self.log})", timeout)
        return self

    def stop(self, mode="fast"):
        if self.running():
            self._pg_ctl("--mode", mode, "stop")
        if self._popen is not None:
            self._popen.wait()

    def restart(self, mode="fast"):
        self.stop(mode)
        return self.start()

    def cold_copy(self):
        """A copy of the stopped server, for bring_back(); the server goes on."""
        self.stop()
        copy = self.directory / f"copy{len(list(self.directory.glob('copy*')))}"
        place.run("cp", "-a", "--reflink=auto", self.data, copy, as_server=True)
        self.start()
        return copy

    def bring_back(self, copy, **conf):
        """The copy is restored: what was committed since then has never happened."""
        self.stop()
        shutil.rmtree(self.data)
        place.run("cp", "-a", "--reflink=auto", copy, self.data, as_server=True)
        self.configure(**conf)
        return self.start()

    def postmaster(self):
        """The postmaster as a Process, or None. Its working directory is what proves it ours."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            process = Process(pid)
            if process.alive() and os.readlink(f"/proc/{pid}/cwd") == str(self.data):
                return process
        except (OSError, ValueError, IndexError):
            pass
        return None

    def running(self):
        return self.postmaster() is not None

    def kill9(self):
        """Kills the postmaster and waits until all its children have noticed."""
        postmaster = self.postmaster()
        family = [Process(pid) for pid in place.children(postmaster.pid)]
        postmaster.send(signal.SIGKILL)
        if self._popen is not None and self._popen.pid == postmaster.pid:
            self._popen.wait()
        else:
            wait_until(lambda: not Path(f"/proc/{postmaster.pid}").exists(), "the postmaster's end")
        for process in family:
            process.wait_gone()

    def destroy(self):
        if self.running():
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)
        if getattr(self, "socket", None) and not self.socket.is_relative_to(self.directory):
            shutil.rmtree(self.socket, ignore_errors=True)

    # --- SQL

    def dsn(self, dbname=None):
        return {"host": str(self.socket), "dbname": dbname or self.dbname, "user": "postgres"}

    def connect(self, dbname=None, autocommit=True, **more):
        more.setdefault("options", "-c statement_timeout=5min")  # a call that hangs fails its test
        return psycopg.connect(**self.dsn(dbname), autocommit=autocommit, connect_timeout=10, **more)

    def query(self, sql, *parameters, dbname=None):
        """Runs one statement on a connection of its own; a list of tuples, or None."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def value(self, sql, *parameters, dbname=None):
        """The first column of the first row, or None."""
        rows = self.query(sql, *parameters, dbname=dbname)
        return rows[0][0] if rows else None

    def psql(self, *arguments, dbname=None, check=True):
        return place.run(self.installation.program("psql"), "-X", "-h", self.socket, "-U",
                         "postgres", "-d", dbname or self.dbname, *arguments, check=check)

    def psql_command(self, dbname=None):
        """The command line for a person."""
        return shlex.join([str(self.installation.program("psql")), "-h", str(self.socket), "-U",
                           "postgres", "-d", dbname or self.dbname])

    def create_database(self, name=None):
        self.query(f'CREATE DATABASE "{name or self.dbname}"', dbname="postgres")
        return self

    def ready(self):
        """True when a connection is possible, for example after a crash."""
        return self.value("SELECT 1", dbname="postgres") == 1

    def wait_recovered(self, since, timeout=60):
        """After a kill -9 of a process: the server has noticed it and is there again."""
        for line in ("was terminated by signal 9", "database system is ready to accept connections"):
            wait_until(lambda line=line: line in self.log_text(since), line, timeout)
        self.wait_ready(timeout)

    def wait_ready(self, timeout=60):
        wait_until(self.ready, f"the server to take connections ({self.log})", timeout)

    def backends(self, kind="pulse worker"):
        """pids of one kind of process: `pulse launcher|coordinator|worker|sender`."""
        return [pid for pid, in self.query(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = %s ORDER BY pid", kind,
            dbname="postgres")]

    def freeze(self, pid):
        """SIGSTOP for a process of pulse, but not while it holds the lock of the shared memory: nobody could look at
        anything then, and no timeout ends that. Returns the Process."""
        process = Process(pid)
        while process.alive():
            process.send(signal.SIGSTOP)
            look = threading.Thread(target=self.query, args=("SELECT count(*) FROM pulse.stat_worker",), daemon=True)
            look.start()
            look.join(5)
            if not look.is_alive():
                break
            process.send(signal.SIGCONT)
            look.join()
        return process

    def kill9_backend(self, kind="pulse worker"):
        """kill -9 of the one process of that kind; the server then restarts itself. Returns its
        pid, or None when there was none at this moment."""
        pids = self.backends(kind)
        if not pids:
            return None
        process = Process(pids[0])
        process.send(signal.SIGKILL)
        process.wait_gone()
        return pids[0]

    # --- log

    def log_text(self, since=0):
        return self.log.read_text(errors="replace")[since:] if self.log.exists() else ""

    def log_mark(self):
        """A position for log_text(since)."""
        return len(self.log_text())
