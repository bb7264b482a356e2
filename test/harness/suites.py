"""Runs the test suites and adds up their numbers: `make test` and its parts.

The last line printed is `N passed, N failed` (`, N skipped` where there are some). A suite that
breaks without a failed test counts as one failure; a suite without tests is named and left out.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack
from dataclasses import dataclass

from . import place
from .kafka import Broker
from .postgres import Installation, locked

TEST = place.ROOT / "test"
MINUTE = 60
NOTHING_SELECTED = 5  # exit code of pytest


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def stream(command, *, timeout, as_server=False, env=None, quiet=False, cwd=place.ROOT):
    """Runs a command and shows its output as it comes. Returns (exit code, output); a command that
    takes too long is killed with all its children."""
    options = {"cwd": cwd, **place.popen_options(as_server)}
    if as_server:
        options["cwd"] = cwd
    child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace", start_new_session=True,
                             env=env or place.environment(), **options)
    watchdog = subprocess.Popen([sys.executable, "-c", WATCHDOG, str(child.pid), str(timeout)],
                                stdin=subprocess.DEVNULL)
    lines = []
    try:
        for line in child.stdout:
            lines.append(line)
            if not quiet:
                print(line, end="", flush=True)
        code = child.wait()
    finally:
        watchdog.kill()
        watchdog.wait()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    if code == -signal.SIGKILL:
        print(f"killed: it took longer than {timeout // MINUTE} minutes", flush=True)
    return code, "".join(lines)


WATCHDOG = ("import os, signal, sys, time; time.sleep(float(sys.argv[2])); "
            "os.killpg(int(sys.argv[1]), signal.SIGKILL)")


def warnings_are_errors():
    return os.environ.get("WERROR") == "1" or os.environ.get("CI", "") not in ("", "false")


# --- the suites: each returns a Tally, or None when it has no tests ---------------------------

def lint():
    """Every executable under test/lint, the layout of the sources, the exported symbols, and a
    release build."""
    make = ["make", "--no-print-directory", "-C", place.ROOT, f"PG_CONFIG={Installation().source}"]
    strict = ["WERROR=1"] if warnings_are_errors() else []
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    checks = [("release build", [*make, jobs, "all", *strict]),
              ("symbols", [*make, "symbols", *strict])]
    checks += [(path.name, [path]) for path in sorted((TEST / "lint").glob("*"))
               if path.is_file() and os.access(path, os.X_OK)]
    checks.append(("format", [*make, "format-check"]))
    tally = Tally()
    with locked("install"):
        for name, command in checks:
            code, output = stream(command, timeout=15 * MINUTE, quiet=True)
            print(f"{'ok    ' if code == 0 else 'FAILED'} {name}", flush=True)
            if code == 0:
                tally.passed += 1
            else:
                tally.failed += 1
                shown = [line for line in output.splitlines() if not line.startswith(("g++", "gcc"))]
                print("\n".join(shown[-100:]), flush=True)
    return tally


def unit():
    if not list((TEST / "unit").glob("*_test.cpp")):
        return None
    make = ["make", "--no-print-directory", "-C", TEST / "unit", "build",
            f"-j{len(os.sched_getaffinity(0))}"]
    if warnings_are_errors():
        make.append("WERROR=1")
    code, output = stream(make, timeout=20 * MINUTE, quiet=True)
    if code != 0:
        print("\n".join(line for line in output.splitlines() if not line.startswith("g++ ")))
        return Tally(failed=1)
    results = place.BUILD / "unit" / "results.json"
    results.unlink(missing_ok=True)
    code, _ = stream([place.BUILD / "unit" / "unit_tests", "--gtest_brief=1",
                      f"--gtest_output=json:{results}"], timeout=10 * MINUTE)
    if not results.exists():
        return Tally(failed=1)
    tally = Tally()
    for group in json.loads(results.read_text())["testsuites"]:
        for case in group["testsuite"]:
            if case.get("failures"):
                tally.failed += 1
            elif case.get("result") == "SKIPPED":
                tally.skipped += 1
            else:
                tally.passed += 1
    return broken(tally, code)


def installcheck():
    return regress("sql", "sql", "regress/pg_regress")


def isolation():
    return regress("specs", "spec", "isolation/pg_isolation_regress")


def regress(folder, suffix, program):
    """pg_regress on a temporary server from the private copy. Inputs and results are where the
    server user can reach them; results come back to build/results."""
    names = sorted(path.stem for path in (TEST / folder).glob(f"*.{suffix}"))
    if not names:
        return None
    schedule = TEST / f"{folder}.schedule"
    installation = Installation(testing=True).prepare()
    work = fresh_directory(f"regress-{folder}")
    copy_for_server(TEST / folder, work / folder)
    copy_for_server(place.ROOT / "expected", work / "expected")
    shutil.copy(TEST / "regress.conf", work / "regress.conf")
    tests = [f"--schedule={work / 'schedule'}"] if schedule.exists() else names
    if schedule.exists():
        shutil.copy(schedule, work / "schedule")
    code, output = stream(
        [installation.pgxs / "src" / "test" / program, f"--bindir={installation.bindir}",
         f"--inputdir={work}", f"--outputdir={work}", f"--temp-instance={work / 'instance'}",
         f"--temp-config={work / 'regress.conf'}", "--encoding=UTF8", "--no-locale",
         "--dbname=contrib_regression", "--load-extension=pulse", *tests],
        as_server=True, timeout=15 * MINUTE, cwd=work)
    tally = Tally(passed=len(re.findall(r"\.\.\. ok\b", output)),
                  failed=len(re.findall(r"\.\.\. FAILED\b", output)))
    diffs = work / "regression.diffs"
    if diffs.exists() and diffs.stat().st_size:
        print(diffs.read_text(errors="replace"))
    results = place.BUILD / "results" / folder
    shutil.rmtree(results, ignore_errors=True)
    if (work / "results").exists():
        shutil.copytree(work / "results", results)
        print(f"(results are in build/results/{folder})")
    if code not in (0, 1):
        for log in sorted((work / "log").glob("*")):
            print(f"--- {log.name}\n{place.tail(log)}")
    return broken(tally, code)


def tap():
    names = sorted(file for file in (TEST / "perl").glob("*.pl") if os.environ.get("TAP", "") in file.name)
    if not names:
        return None
    installation = Installation(testing=True).prepare()
    work = fresh_directory("tap")
    copy_for_server(TEST / "perl", work / "t")
    env = place.environment(
        PATH=f"{installation.bindir}:{os.environ['PATH']}", TESTDIR=str(work),
        PG_REGRESS=str(installation.pgxs / "src" / "test" / "regress" / "pg_regress"),
        HOME=str(work))
    tally = Tally()
    with ExitStack() as stack:
        if any("PULSE_BROKERS" in path.read_text() for path in names):
            from .feeder import feeder  # needs the Kafka client of the Python environment
            broker = Broker(place.private() / "tap-broker").create().start()
            stack.callback(broker.destroy)
            env["PULSE_BROKERS"] = broker.address
            env["PULSE_FEEDER"] = str(stack.enter_context(feeder(broker, work / "feeder")))
        for path in names:
            code, output = stream(
                ["prove", "--verbose", "-I", installation.pgxs / "src" / "test" / "perl",
                 "-I", work / "t", work / "t" / path.name],
                as_server=True, timeout=15 * MINUTE, cwd=work, env=env)
            skipped = len(re.findall(r"^ok \d+.*# skip", output, re.MULTILINE | re.IGNORECASE))
            one = Tally(passed=len(re.findall(r"^ok \d+", output, re.MULTILINE)) - skipped,
                        failed=len(re.findall(r"^not ok \d+", output, re.MULTILINE)),
                        skipped=skipped)
            one = broken(one, code)
            if one.failed:
                for log in sorted((work / "tmp_check" / "log").glob(f"{path.stem}*.log")):
                    print(f"--- {log.name}\n{place.tail(log)}")
            tally = Tally(tally.passed + one.passed, tally.failed + one.failed,
                          tally.skipped + one.skipped)
    return tally


def e2e(soak=False):
    return pytest("e2e", soak)


def dbt_test(soak=False):
    """The dbt project against events whose truth is known; without a broker but for one test."""
    return pytest("dbt", soak)


def pytest(folder, soak):
    if not list((TEST / folder).glob("test_*.py")):
        return None
    report = place.BUILD / f"{folder}.xml"
    report.unlink(missing_ok=True)
    env = {**os.environ, "PYTHONPATH": str(TEST), "PYTHONDONTWRITEBYTECODE": "1"}
    code, _ = stream(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-v", "-ra",
         f"--junit-xml={report}", *(["--soak"] if soak else []),
         *shlex.split(os.environ.get("PYTEST", "")), TEST / folder],
        timeout=(24 * 60 if soak else 60) * MINUTE, env=env)
    if not report.exists():
        return Tally(failed=1)
    if code == NOTHING_SELECTED and os.environ.get("PYTEST"):
        return None  # the tests that were asked for are in another folder, or main() finds none at all
    tally = Tally()
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            tally.failed += 1
        elif case.find("skipped") is not None:
            tally.skipped += 1
        else:
            tally.passed += 1
    return broken(tally, code)


def soak():
    return e2e(soak=True)


def dbt_soak():
    return dbt_test(soak=True)


def broken(tally, code):
    """A suite that ends badly without naming a failed test has failed all the same."""
    if code != 0 and tally.failed == 0:
        tally.failed = 1
    return tally


def fresh_directory(name):
    path = place.private() / name
    shutil.rmtree(path, ignore_errors=True)
    return place.server_directory(path)


def copy_for_server(source, destination):
    shutil.copytree(source, destination)
    for path in [destination, *destination.rglob("*")]:
        os.chmod(path, 0o755 if path.is_dir() else 0o644)


SUITES = {
    "test": (lint, unit, installcheck, isolation, tap, e2e, dbt_test),
    "verify": (lint, unit, installcheck),
    "lint": (lint,), "unit": (unit,), "installcheck": (installcheck,), "isolation": (isolation,),
    "tap": (tap,), "e2e": (e2e,), "dbt-test": (dbt_test,), "soak": (soak, dbt_soak),
}


def main(command, _arguments):
    if command not in SUITES:
        raise place.Failed(f"no such command: {command}")
    total, table, began = Tally(), [], time.monotonic()
    for suite in SUITES[command]:
        print(f"\n==== {suite.__name__}", flush=True)
        start = time.monotonic()
        try:
            tally = suite()
        except place.Failed as error:
            print(error)
            tally = Tally(failed=1)
        took = time.monotonic() - start
        if tally is None:
            table.append(f"{suite.__name__:<13} no tests")
            continue
        table.append(f"{suite.__name__:<13} {tally.passed:>6} passed {tally.failed:>6} failed "
                     f"{tally.skipped:>6} skipped {took:>7.0f} s")
        total.passed += tally.passed
        total.failed += tally.failed
        total.skipped += tally.skipped
    print(f"\n==== {command}: {time.monotonic() - began:.0f} s", *table, "", sep="\n")
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    print(f"{total.passed} passed, {total.failed} failed{skipped}", flush=True)
    return 1 if total.failed or not total.passed else 0


def bench(arguments, script="run.py"):
    script = TEST / "bench" / script
    if not script.exists():
        raise place.Failed(f"there is no {script} yet")
    words = arguments or shlex.split(os.environ.get("BENCH", ""))
    os.execve(sys.executable, [sys.executable, str(script), *words],
              {**os.environ, "PYTHONPATH": str(TEST)})
