#!/usr/bin/env python3
"""Measures how fast the issuer issues: over its real gRPC API, mutual TLS and the durable record included.

The issuer and the load share this machine. Agents are joined bot instances, each with one connection and
one call under way; their keys are made before. SQLite as it comes (WAL, full sync), and PostgreSQL with
fsync and synchronous commit. Then the same issuer with few and with many `workload_identity` resources:
both run side by side, and each load is put on one after the other.

    cargo build --release -p issuer -p loadtest
    python3 loadtest/compare/issuance.py                      # about six minutes
    python3 loadtest/compare/issuance.py --write docs/benchmarks.md

Standard library only. Nothing leaves the loopback interface; whatever is started is stopped.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import pwd
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from compare import (ROOT, Failed, first_line, free_ports, machine, others_busy, running, say, stopped, too_long,
                     wait_for_quiet, wait_until_listening, write_between_markers)

MARKERS = ("<!-- issuance:begin -->", "<!-- issuance:end -->")
CHUNK = 1000  # resources applied in one call
START_SECONDS = 120

# Targets of the issue: at least or at most.
SUSTAINED = 3000
P99_MS = 50
CPU_US = 250
RATIO = 1.5
START_S = 5
RSS_MIB = 400


def resources(first, last):
    """`app-N` with the label `app: app-N`, and `tier: load` for the role."""
    one = ("kind: workload_identity\nversion: v1\nmetadata: {{ name: app-{n}, labels: {{ app: app-{n}, tier: load }} }}\n"
           "spec: {{ spiffe: {{ id: /apps/app-{n} }} }}\n")
    return "---\n".join(one.format(n=n) for n in range(first, last))


ROLE = ("kind: role\nversion: v1\nmetadata: { name: load }\n"
        "spec: { allow: { workload_identity_labels: { tier: [load] } } }\n")


class Issuer:
    """A running issuer with a directory of its own."""

    def __init__(self, options, stack, work, name, database=None, count=100):
        self.options, self.count, self.home = options, count, work / name
        self.home.mkdir()
        self.database = database
        self.grpc, self.diagnostics = free_ports(2)
        self.child = None
        self.stack = stack
        self.start()
        self.apply(ROLE)
        for first in range(0, count, CHUNK):
            self.apply(resources(first, min(count, first + CHUNK)))

    def start(self):
        """Starts it; seconds until it says that it is ready."""
        command = [str(self.options.issuer), "serve", "--trust-domain", "bench.test", "--data-dir", str(self.home / "data"),
                   "--listen", f"127.0.0.1:{self.grpc}", "--diagnostics", f"127.0.0.1:{self.diagnostics}",
                   "--log-level", "warn"]
        if self.options.config:
            command += ["--config", str(self.options.config)]
        if self.database:
            command += ["--database", self.database.url]
        begun = time.monotonic()
        self.running = contextlib.ExitStack()
        self.stack.enter_context(self.running)
        self.child = self.running.enter_context(running(command, self.home / "log"))
        while not self.ready():
            if self.child.process.poll() is not None:
                raise Failed(f"the issuer ended at its start:\n{self.child.last_words()}")
            if time.monotonic() > begun + START_SECONDS:
                raise Failed(f"the issuer is not ready after {START_SECONDS} s:\n{self.child.last_words()}")
            time.sleep(0.01)
        return time.monotonic() - begun

    def restart(self):
        self.running.close()
        return self.start()

    def ready(self):
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.diagnostics}/readyz", timeout=2) as answer:
                return answer.status == 200
        return False

    def apply(self, text):
        done = subprocess.run([self.options.issuer, "apply", "-f", "-", "--data-dir", self.home / "data"], input=text,
                              text=True, capture_output=True, timeout=120, check=False)
        if done.returncode:
            raise Failed(f"apply: {done.stderr.strip()}")

    def rss(self):
        """Resident memory, MiB."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def load(self, *more, agents=64):
        """One `loadtest issue`; its report."""
        options = self.options
        wait_for_quiet(options.patience)
        command = [options.loadtest, "issue", "--json", "--target", f"127.0.0.1:{self.grpc}", "--roles", "load",
                   "--admin-socket", self.home / "data/admin.sock", "--identities", self.home / "identities",
                   "--numbers", str(self.count), "-c", str(agents), "-d", f"{options.seconds}s", "--warmup", "1s",
                   "--pid", str(self.child.pid), *more]
        if self.database:
            command += ["--pid", str(self.database.child.pid), "--children"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Failed(f"loadtest: {done.stderr.strip()}\n{done.stdout}")
        report = json.loads(done.stdout)
        cpu = {entry["pid"]: entry["us_per_svid"] for entry in report["cpu"]}
        report["issuer_us"] = cpu[self.child.pid]
        report["database_us"] = cpu.get(self.database.child.pid) if self.database else None
        return report


class Postgres:
    """A PostgreSQL cluster of this run alone, as it comes: fsync and synchronous commit."""

    def __init__(self, stack, work):
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise Failed("PostgreSQL is missing: apt-get install postgresql")
        binaries, home = found[-1].parent, work / "postgres"
        home.mkdir()
        as_user = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(home, user.pw_uid, user.pw_gid)
            work.chmod(0o755)
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run([*as_user, binaries / "initdb", "-D", home / "data", "-U", "app", "-A", "trust", "-E", "UTF8"],
                       check=True, capture_output=True, cwd="/", timeout=120)
        [port] = free_ports(1)
        self.child = stack.enter_context(running(
            [*as_user, binaries / "postgres", "-D", home / "data", "-k", home / "data", "-h", "127.0.0.1", "-p", str(port)],
            work / "postgres.log"))
        wait_until_listening(self.child, [port])
        self.version = first_line([binaries / "postgres", "--version"])
        self.url = f"postgres://app@127.0.0.1:{port}/postgres?sslmode=disable"


BY_NAME = ("--workload-identity", "app-{n}")
BY_LABELS = ("--labels", "app=app-{n}", "--labels", "tier=load")


def throughput(issuer, rounds):
    """Figures of one store, medians of the rounds."""
    rows = []
    for number in range(rounds):
        closed = issuer.load(*BY_NAME)
        row = {
            "sustained": closed["svids_per_second"],
            "cpu": closed["issuer_us"],
            "database_cpu": closed["database_us"],
            "load_cpu": closed["generator_cpu"]["us_per_svid"],
            "p99_sustained": closed["latency_uncorrected_us"]["p99"] / 1e3,
        }
        half = issuer.load(*BY_NAME, "--rate", str(SUSTAINED // 2))
        row["p50_half"] = half["latency_corrected_us"]["p50"] / 1e3
        row["p99_half"] = half["latency_corrected_us"]["p99"] / 1e3
        row["cpu_half"] = half["issuer_us"]
        alone = issuer.load(*BY_NAME, agents=1)
        row["alone"] = alone["svids_per_second"]
        row["alone_p50"] = alone["latency_uncorrected_us"]["p50"] / 1e3
        row["batch"] = issuer.load(*BY_NAME, "--batch", "10", agents=16)["svids_per_second"]
        row["jwt"] = issuer.load(*BY_NAME, "--kind", "jwt")["svids_per_second"]
        rows.append(row)
        say(f"{issuer.home.name} round {number + 1}: " + ", ".join(
            f"{key} {value:.1f}" for key, value in row.items() if value is not None))
    return rows


def scale(few, many, rounds, rate):
    """Latency with few and with many resources, side by side; medians in ms."""
    rows = []
    for number in range(rounds):
        row = {}
        order = [("few", few), ("many", many)]
        for way, options in (("name", BY_NAME), ("labels", BY_LABELS)):
            for size, issuer in order[:: 1 if number % 2 == 0 else -1]:
                report = issuer.load(*options, "--rate", str(rate), agents=16)
                row[f"{way}_{size}"] = report["latency_corrected_us"]["p50"] / 1e3
                row[f"{way}_{size}_cpu"] = report["issuer_us"]
            row[f"{way}_ratio"] = row[f"{way}_many"] / row[f"{way}_few"]
            row[f"{way}_cpu_ratio"] = row[f"{way}_many_cpu"] / row[f"{way}_few_cpu"]
        rows.append(row)
        say(f"scale round {number + 1}: " + ", ".join(f"{key} {value:.2f}" for key, value in row.items()))
    return rows


def median(rows, key):
    values = [row[key] for row in rows if row[key] is not None]
    return statistics.median(values) if values else None


def verdict(value, target, at_most):
    met = value <= target if at_most else value >= target
    return ("≤ " if at_most else "≥ ") + f"{target:,} " + ("reached" if met else "missed")


def as_markdown(run):
    lite, post, sized = run["sqlite"], run.get("postgres"), run["scale"]

    def spread(rows, key, digits=0):
        if not rows or median(rows, key) is None:
            return "–"
        values = [row[key] for row in rows]
        return f"{median(rows, key):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"

    def line(title, key, digits=0, target=None):
        aim = verdict(median(lite, key), *target) if target else ""
        return f"| {title} | {spread(lite, key, digits)} | {spread(post, key, digits)} | {aim} |"

    versions = f"{run['version']}, SQLite (WAL, full sync)" + (f", {run['postgres_version']} (fsync, synchronous commit)" if post else "")
    few, many = run["few"], run["many"]
    count = f"{many:,}"

    def compared(title, key, digits):
        ratio = median(sized, key.replace("{}", "ratio") if "_cpu" not in key else key.replace("{}_cpu", "cpu_ratio"))
        aim = verdict(ratio, RATIO, True) if "_cpu" not in key else ""
        return (f"| {title} | {spread(sized, key.format('few'), digits)} | {spread(sized, key.format('many'), digits)} "
                f"| {ratio:.2f} | {aim} |")

    return "\n".join([
        f"{run['date']}, {run['rounds']} rounds of {run['seconds']:g} s a load. {run['machine']}. {versions}. "
        f"Other programs used {run['others_busy']:.0%} of the machine (before the loads). Median (lowest–highest).",
        "",
        "| | SQLite | PostgreSQL | target (SQLite) |",
        "|---|---:|---:|---:|",
        line("X509-SVIDs a second, 64 agents, closed loop", "sustained", 0, (SUSTAINED, False)),
        line("CPU of the issuer for each, µs", "cpu", 0, (CPU_US, True)),
        line("CPU of the database server for each, µs", "database_cpu"),
        line("CPU of the load for each, µs", "load_cpu"),
        line(f"p50 at {SUSTAINED // 2:,} a second, from when due, ms", "p50_half", 1),
        line(f"p99 at {SUSTAINED // 2:,} a second, from when due, ms", "p99_half", 1, (P99_MS, True)),
        line("X509-SVIDs a second, one agent", "alone"),
        line("p50 of one agent, ms", "alone_p50", 2),
        line("X509-SVIDs a second, 16 agents, 10 in a call", "batch"),
        line("JWT-SVIDs (ES256) a second, 64 agents", "jwt"),
        "",
        f"| SQLite, 16 agents, {run['scale_rate']:,} a second, p50 | {few} resources | {count} resources | ratio | target |",
        "|---|---:|---:|---:|---:|",
        compared("by name, ms", "name_{}", 2),
        compared("by labels, ms", "labels_{}", 2),
        compared("by name, µs CPU of the issuer", "name_{}_cpu", 0),
        compared("by labels, µs CPU of the issuer", "labels_{}_cpu", 0),
        f"| start-up, s | {run['few_start']:.2f} | {run['many_start']:.2f} | | {verdict(run['many_start'], START_S, True)} |",
        f"| resident memory after these loads, MiB | {run['few_rss']:.0f} | {run['many_rss']:.0f} | | {verdict(run['many_rss'], RSS_MIB, True)} |",
    ])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=float, default=4, help="measured seconds of each load (4)")
    parser.add_argument("--many", type=int, default=100_000, help="resources of the large issuer (100000)")
    parser.add_argument("--scale-rate", type=int, default=500, help="calls a second where few and many are compared (500)")
    parser.add_argument("--only", choices=("sqlite", "postgres", "scale"), help="only this part (prints, writes no table)")
    parser.add_argument("--patience", type=float, default=5,
                        help="seconds to wait before each load for other programs to leave the machine alone (5)")
    parser.add_argument("--minutes", type=float, default=30, help="end after this time at the latest (30)")
    parser.add_argument("--config", type=pathlib.Path, help="configuration file for the issuer")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "target/bench/issuance.json",
                        help="where all figures go (target/bench/issuance.json)")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE",
                        help="put the tables between the markers of this Markdown file")
    release = ROOT / "target/release"
    parser.add_argument("--loadtest", type=pathlib.Path, default=release / "loadtest")
    parser.add_argument("--issuer", type=pathlib.Path, default=release / "issuer")
    return parser.parse_args()


def measure(options, stack):
    for program in (options.loadtest, options.issuer):
        if not os.access(program, os.X_OK):
            raise Failed(f"{program} is missing: cargo build --release -p issuer -p loadtest")
    work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="issuance-")))
    wanted = lambda part: options.only in (None, part)
    run = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "version": "this checkout, " + first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "scale_rate": options.scale_rate,
        "others_busy": others_busy(2),
        "few": 100,
        "many": options.many,
    }
    few = Issuer(options, stack, work, "sqlite")
    if wanted("sqlite"):
        run["sqlite"] = throughput(few, options.rounds)
    if wanted("postgres"):
        with contextlib.ExitStack() as inner:
            database = Postgres(inner, work)
            run["postgres_version"] = database.version
            run["postgres"] = throughput(Issuer(options, inner, work, "postgresql", database), options.rounds)
    if wanted("scale"):
        begun = time.monotonic()
        many = Issuer(options, stack, work, "many", count=options.many)
        run["applied_s"] = time.monotonic() - begun
        say(f"{options.many:,} resources applied in {run['applied_s']:.1f} s")
        run["few_start"], run["many_start"] = few.restart(), many.restart()
        say(f"start-up {run['few_start']:.2f} s and {run['many_start']:.2f} s, {many.rss():.0f} MiB at rest")
        run["scale"] = scale(few, many, options.rounds, options.scale_rate)
        run["few_rss"], run["many_rss"] = few.rss(), many.rss()
        say(f"resident {run['few_rss']:.0f} MiB and {run['many_rss']:.0f} MiB")
    return run


def main():
    options = arguments()
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, stopped)
    signal.setitimer(signal.ITIMER_REAL, options.minutes * 60)
    try:
        with contextlib.ExitStack() as stack:
            run = measure(options, stack)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(run, indent=1) + "\n")
        say(f"all figures: {options.json}")
        if options.only is None:
            print(as_markdown(run))
            if options.write:
                write_between_markers(options.write, as_markdown(run), MARKERS)
                say(f"tables written to {options.write}")
    except Failed as error:
        say(f"issuance: {error}")
        return 1
    except KeyboardInterrupt:
        say("issuance: stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
