#!/usr/bin/env python3
"""Measures how fast the issuer issues: over its real gRPC API, mutual TLS and the durable record included.

The issuer and the load share this machine. Agents are joined bot instances, each with one connection and
one call under way; their keys are made before. SQLite as it comes (WAL, full sync), and PostgreSQL with
fsync and synchronous commit. Then two issuers with few and with many `workload_identity` resources: both run
side by side, with the same load at the same time.

    cargo build --release -p issuer -p loadtest
    python3 loadtest/compare/issuance.py                      # about six minutes
    python3 loadtest/compare/issuance.py --write docs/benchmarks.md

Standard library only. Nothing leaves the loopback interface; whatever is started is stopped.
"""

import contextlib
import datetime
import json
import os
import pathlib
import pwd
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import harness
from harness import (CALL_SECONDS, OTHERS, RELEASE, ROOT, Failed, Report, begun, built, call, conduct, ended, first_line,
                     free_ports, machine, running, say, wait_for_quiet, wait_until_listening, weigh)

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
        call([self.options.issuer, "apply", "-f", "-", "--data-dir", self.home / "data"], "issuer apply", text)

    def rss(self):
        """Resident memory, MiB."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def load(self, *more, agents=None):
        """One `loadtest issue`; its report."""
        return loads([self], *more, agents=agents)[0]

    def command(self, *more, agents):
        options = self.options
        command = [options.loadtest, "issue", "--json", "--target", f"127.0.0.1:{self.grpc}", "--roles", "load",
                   "--admin-socket", self.home / "data/admin.sock", "--identities", self.home / "identities",
                   "--numbers", str(self.count), "-c", str(agents), "-d", f"{options.seconds}s", "--warmup", "1s",
                   "--pid", str(self.child.pid), *more]
        if self.database:
            command += ["--pid", str(self.database.child.pid), "--children"]
        return command

    def servers(self):
        return [self.child] + ([self.database.child] if self.database else [])

    def report(self, said):
        """What `loadtest` says, with CPU time by server; fails if a call failed, or a server."""
        for server in self.servers():
            if server.process.poll() is not None:
                raise Failed(f"a server ended under load ({server.log}):\n{server.last_words()}")
        report = json.loads(said)
        if report["failed"] or not report["svids"]:
            raise Failed(f"{self.home.name}: {report['failed']} calls failed: {json.dumps(report['errors'])}")
        cpu = {entry["pid"]: entry["us_per_svid"] for entry in report["cpu"]}
        report["issuer_us"] = cpu[self.child.pid]
        report["database_us"] = cpu.get(self.database.child.pid) if self.database else None
        return report


def loads(issuers, *more, agents=None):
    """The same load on each of these at the same time; their reports."""
    options = issuers[0].options
    wait_for_quiet(options.patience)
    name = lambda issuer: f"loadtest on {issuer.home.name}"
    pids = {server.pid for issuer in issuers for server in issuer.servers()}
    weigh(pids)
    with contextlib.ExitStack() as stack:
        stack.enter_context(OTHERS.beside(pids))
        tools = [stack.enter_context(begun(issuer.command(*more, agents=agents or options.agents), name(issuer)))
                 for issuer in issuers]
        said = [ended(tool, name(issuer)) for tool, issuer in zip(tools, issuers)]
    return [issuer.report(text) for issuer, text in zip(issuers, said)]


def signature_us():
    """CPU time of a P-256 signature by OpenSSL on one core now, µs: how fast the machine is. None without OpenSSL."""
    with contextlib.suppress(Failed):
        said = call(["openssl", "speed", "-seconds", "1", "ecdsap256"], "openssl speed")
        if found := re.search(r"\(nistp256\)\s+\S+\s+\S+\s+([0-9.]+)\s+[0-9.]+", said):
            return 1e6 / float(found.group(1))
    return None


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
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                raise Failed("PostgreSQL does not run as root, and there is no user postgres") from None
            os.chown(home, user.pw_uid, user.pw_gid)
            work.chmod(0o755)
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        call([*as_user, binaries / "initdb", "-D", home / "data", "-U", "app", "-A", "trust", "-E", "UTF8"], "initdb",
             cwd="/")
        [port] = free_ports(1)
        self.child = stack.enter_context(running(
            [*as_user, binaries / "postgres", "-D", home / "data", "-k", home / "data", "-h", "127.0.0.1", "-p", str(port)],
            work / "postgres.log"))
        wait_until_listening(self.child, [port])
        self.wait_until_ready([binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)])
        self.version = first_line([binaries / "postgres", "--version"])
        self.url = f"postgres://app@127.0.0.1:{port}/postgres?sslmode=disable"

    def wait_until_ready(self, probe):
        """It listens before it serves."""
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(probe, check=False, timeout=CALL_SECONDS).returncode:
            if self.child.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"PostgreSQL does not serve:\n{self.child.last_words()}")
            time.sleep(0.05)


BY_NAME = ("--workload-identity", "app-{n}")
BY_LABELS = ("--labels", "app=app-{n}", "--labels", "tier=load")


def throughput(issuer, rounds):
    """Figures of one store, medians of the rounds."""
    rows = []
    for number in range(rounds):
        signature = signature_us()
        closed = issuer.load(*BY_NAME)
        row = {
            "signature": signature,
            "signatures": closed["issuer_us"] / signature if signature else None,
            "sustained": closed["svids_per_second"],
            "cpu": closed["issuer_us"],
            "database_cpu": closed["database_us"],
            "load_cpu": closed["generator_cpu"]["us_per_svid"],
            "p99_sustained": closed["latency_uncorrected_us"]["p99"] / 1e3,
        }
        fewer = issuer.load(*BY_NAME, agents=max(1, issuer.options.agents // 2))
        row["fewer"], row["fewer_cpu"] = fewer["svids_per_second"], fewer["issuer_us"]
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
    """Latency with few and with many resources, at the same time; medians in ms."""
    rows = []
    for number in range(rounds):
        row = {}
        order = [("few", few), ("many", many)][:: 1 if number % 2 == 0 else -1]
        for way, options in (("name", BY_NAME), ("labels", BY_LABELS)):
            reports = loads([issuer for _, issuer in order], *options, "--rate", str(rate), agents=16)
            for (size, _), report in zip(order, reports):
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
    """The target, the figure as a ratio to it, and whether that is enough."""
    met = value <= target if at_most else value >= target
    return ("≤ " if at_most else "≥ ") + f"{target:,}: {value / target:.2f}, " + ("reached" if met else "missed")


def as_markdown(run):
    lite, post, sized = run["sqlite"], run.get("postgres"), run["scale"]

    def spread(rows, key, digits=0):
        if not rows or median(rows, key) is None:
            return "–"
        values = [row[key] for row in rows]
        return f"{median(rows, key):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"

    def line(title, key, digits=0, target=None):
        aim = verdict(median(lite, key), *target) if target else ""
        both = post and median(lite, key) and median(post, key)
        ratio = f"{median(post, key) / median(lite, key):.2f}" if both else "–"
        return f"| {title} | {spread(lite, key, digits)} | {spread(post, key, digits)} | {ratio} | {aim} |"

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
        f"Other programs used {run['others_busy']:.0%} of the machine during the loads (median). Median (lowest–highest).",
        "",
        "| | SQLite | PostgreSQL | ratio | target (SQLite): ratio to it |",
        "|---|---:|---:|---:|---:|",
        line(f"X509-SVIDs a second, {run['agents']} agents, closed loop", "sustained", 0, (SUSTAINED, False)),
        line("CPU of the issuer for each, µs", "cpu", 0, (CPU_US, True)),
        line("the same in P-256 signatures (`openssl speed` just before)", "signatures", 1),
        line("such a signature, µs", "signature", 1),
        line(f"X509-SVIDs a second, {run['agents'] // 2} agents", "fewer"),
        line("CPU of the issuer for each, µs", "fewer_cpu"),
        line("CPU of the database server for each, µs", "database_cpu"),
        line("CPU of the load for each, µs", "load_cpu"),
        line(f"p50 at {SUSTAINED // 2:,} a second, from when due, ms", "p50_half", 1),
        line(f"p99 at {SUSTAINED // 2:,} a second, from when due, ms", "p99_half", 1, (P99_MS, True)),
        line("CPU of the issuer for each then, in small commits, µs", "cpu_half"),
        line("X509-SVIDs a second, one agent", "alone"),
        line("p50 of one agent, ms", "alone_p50", 2),
        line("X509-SVIDs a second, 16 agents, 10 in a call", "batch"),
        line(f"JWT-SVIDs (ES256) a second, {run['agents']} agents", "jwt"),
        "",
        f"| SQLite, 16 agents, {run['scale_rate']:,} a second on each at the same time, p50 | {few} resources | {count} resources | ratio | target: ratio to it |",
        "|---|---:|---:|---:|---:|",
        compared("by name, ms", "name_{}", 2),
        compared("by labels, ms", "labels_{}", 2),
        compared("by name, µs CPU of the issuer", "name_{}_cpu", 0),
        compared("by labels, µs CPU of the issuer", "labels_{}_cpu", 0),
        f"| start-up, s | {run['few_start']:.2f} | {run['many_start']:.2f} | | {verdict(run['many_start'], START_S, True)} |",
        f"| resident memory after these loads, MiB | {run['few_rss']:.0f} | {run['many_rss']:.0f} | | {verdict(run['many_rss'], RSS_MIB, True)} |",
    ])


def arguments():
    parser = harness.parser(__doc__, "issuance", rounds=(3, "rounds"), seconds=(4, "measured seconds of each load"), minutes=30)
    parser.add_argument("--agents", type=int, default=128, help="agents where nothing else is said (128)")
    parser.add_argument("--many", type=int, default=100_000, help="resources of the large issuer (100000)")
    parser.add_argument("--scale-rate", type=int, default=500, help="calls a second where few and many are compared (500)")
    parser.add_argument("--only", choices=("sqlite", "postgres", "scale"), help="only this part (prints, writes no table)")
    parser.add_argument("--config", type=pathlib.Path, help="configuration file for the issuer")
    parser.add_argument("--issuer", type=pathlib.Path, default=RELEASE / "issuer")
    options = parser.parse_args()
    if min(options.rounds, options.agents, options.many, options.scale_rate) < 1 or options.seconds <= 0:
        parser.error("rounds, seconds, agents, resources and rate must be positive")
    return options


def measure(options, stack):
    built([options.loadtest, options.issuer], ["issuer", "loadtest"])
    work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="issuance-")))
    wanted = lambda part: options.only in (None, part)
    run = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "version": "this checkout, " + first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "scale_rate": options.scale_rate,
        "agents": options.agents,
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
    run["others_busy"] = OTHERS.median()
    tables = as_markdown(run) if options.only is None else None
    return Report(run, tables or "", tables)


if __name__ == "__main__":
    sys.exit(conduct("issuance", MARKERS, arguments(), measure))
