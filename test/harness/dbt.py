"""dbt in an environment of its own (build/dbt-venv): what `make dbt` does, and the hands of test/dbt."""

import json
import os
import subprocess
import sys
import zlib

from . import place
from .place import Failed
from .postgres import locked

PROJECT = place.ROOT / "dbt"
VENV = place.BUILD / "dbt-venv"

# Runs in that environment: a line of JSON [variables, arguments] in, one with the results out. One
# process for many commands, because importing and parsing take longer than the models.
DRIVER = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
from dbt.cli.main import dbtRunner
for line in sys.stdin:
    variables, words = json.loads(line)
    os.environ.update(variables)
    outcome = dbtRunner().invoke(words)
    results = [{"name": result.node.unique_id, "status": str(result.status), "message": result.message,
                "seconds": result.execution_time} for result in getattr(outcome.result, "results", None) or []]
    answers.write(json.dumps({"success": outcome.success, "results": results,
                              "error": str(outcome.exception or "")}) + "\\n")
"""


def environment(*requirements):
    """Makes the environment, or makes it again when pins or interpreter change."""
    files = [PROJECT / "requirements.txt", *requirements]
    pins = [f"{zlib.crc32(file.read_bytes())}" for file in files]
    wanted = " ".join([sys.version.split()[0], *pins])
    stamp = VENV / f"made-from-{len(files)}"
    with locked("dbt-venv"):
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"== dbt in {VENV.relative_to(place.ROOT)}", flush=True)
            if not requirements or not (VENV / "bin" / "python").exists():
                place.run(sys.executable, "-m", "venv", "--clear", VENV)
            place.run(VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                      *(word for file in files for word in ("-r", file)))
            stamp.write_text(wanted)
    return VENV


class Dbt:
    """The project against one database; the models go to a schema of their own."""

    def __init__(self, cluster, name="dbt", dbname=None, schema="analytics", user=None):
        self.cluster = cluster
        self.dbname = dbname or cluster.dbname
        self.schema = schema
        self.user = user or cluster.dsn()["user"]
        self.work = place.BUILD / "dbt" / name
        self.work.mkdir(parents=True, exist_ok=True)
        self._driver = None

    def variables(self, schema=None):
        schema = schema or self.schema  # each has a target of its own, or dbt would parse all again
        return {"PGHOST": str(self.cluster.socket), "PGDATABASE": self.dbname, "PGPASSWORD": "",
                "PGUSER": self.user, "PULSE_DBT_SCHEMA": schema,
                "DBT_TARGET_PATH": str(self.work / schema), "DBT_LOG_PATH": str(self.work / "logs")}

    def command(self, *words):
        """A command for a person to see; returns its exit code."""
        return subprocess.run([VENV / "bin" / "dbt", *words], cwd=PROJECT, stdin=subprocess.DEVNULL,
                              env=place.environment(**self.variables())).returncode

    def invoke(self, *words, ok=True, schema=None):
        """A command in the driver; a dictionary name -> result. Failures are an error unless not ok."""
        if self._driver is None:
            self._driver = subprocess.Popen([VENV / "bin" / "python", "-c", DRIVER], cwd=PROJECT,
                                            env=place.environment(), stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        words = ["--log-level", "none", "--log-level-file", "info", *words]
        self._driver.stdin.write(json.dumps([self.variables(schema), words]) + "\n")
        self._driver.stdin.flush()
        line = self._driver.stdout.readline()
        if not line:
            self.close()
            raise Failed(f"dbt died:\n{place.tail(self.work / 'logs' / 'dbt.log')}")
        answer = json.loads(line)
        bad = [f"{result['name']}: {result['status']}: {result['message']}" for result in answer["results"]
               if result["status"] not in ("success", "pass", "warn", "no-op")]
        if ok and (bad or not answer["success"]):
            raise Failed(f"dbt {' '.join(words)}\n" + "\n".join([answer["error"], *bad]))
        return {result["name"]: result for result in answer["results"]}

    def close(self):
        if self._driver is not None:
            self._driver.stdin.close()
            self._driver.wait(60)
            self._driver = None


def on_session(session):
    """`make dbt`: install, build, test and look at the freshness on what `make up` started."""
    environment()
    dbt = Dbt(session.cluster)
    words = (os.environ.get("DBT") or "build").split()
    if dbt.command(*words) != 0:
        raise Failed(f"dbt {' '.join(words)} failed; its words are above")
    if words[0] == "build":
        # Old data is no fault of the models: shown, not failed.
        dbt.command("source", "freshness")
        print(f"The tables are in schema {dbt.schema}; try:\n"
              f"  make psql SQL='SELECT * FROM {dbt.schema}.fct_funnel_daily ORDER BY 1, 2'\n"
              f"  make dbt        again after `make produce`: only what is new\n"
              f"  make dbt DBT='build --full-refresh'")
