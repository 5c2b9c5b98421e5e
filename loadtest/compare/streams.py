#!/usr/bin/env python3
"""Measures what the agent costs a machine: at rest, for each stream of the Workload API, at a rotation, for a token.

A real issuer and real agents; all workloads are `loadtest`. All of them share this machine.

    cargo build --release -p issuer -p tbot-proxy -p loadtest
    python3 loadtest/compare/streams.py                      # three to four minutes
    python3 loadtest/compare/streams.py --write docs/benchmarks.md

Standard library only. Nothing leaves the loopback interface; whatever is started is stopped.
"""

import contextlib
import datetime
import json
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time
import urllib.request

import harness
from harness import (OTHERS, RELEASE, ROOT, Failed, Report, built, call, conduct, first_line, free_ports, machine,
                     running, say, wait_for_quiet)
from issuance import Issuer

MARKERS = ("<!-- streams:begin -->", "<!-- streams:end -->")
IDENTITIES = 100
TOKENS = 5000
READY_SECONDS = 60
SETTLE_SECONDS = 4  # from the first stream of an idle agent until it is looked at

# Targets of the issue: at most.
STREAM_KIB = 8
SDS_STREAM_KIB = 16
ROTATED_S = 2
IDLE_MIB = 15
TOKEN_US = 300

# Name, kind, streams, streams of a connection, KiB a stream that are the target.
LOADS = (
    ("10,000 streams, each on its own connection", "x509", 10_000, 1, STREAM_KIB),
    ("10,000 streams on 100 connections", "x509", 10_000, 100, STREAM_KIB),
    ("1,000 SDS streams, each on its own connection", "sds", 1_000, 1, SDS_STREAM_KIB),
    ("1,000 SDS streams on 100 connections", "sds", 1_000, 10, SDS_STREAM_KIB),
)


class Agent:
    """An agent with a Workload API for each of `count` identities."""

    def __init__(self, options, stack, issuer, home, count):
        home.mkdir()
        joined = json.loads(call([options.issuer, "bot", "add", home.name, "--roles", "load", "-o", "json",
                                  "--data-dir", issuer.home / "data"], "issuer bot add"))
        [self.diagnostics] = free_ports(1)
        self.sockets = [home / f"{number}.sock" for number in range(count)]
        services = "".join(
            f"  - {{ type: workload-identity-api, name: api-{number}, selector: {{ name: app-{number} }}, "
            f"listen: \"unix://{socket}\" }}\n" for number, socket in enumerate(self.sockets))
        (home / "agent.yaml").write_text(
            f"version: v1\nissuer: {{ address: \"127.0.0.1:{issuer.grpc}\", ca_pins: [\"{joined['ca_pin']}\"] }}\n"
            f"onboarding: {{ join_method: token, token: {joined['token']} }}\nstorage: {{ type: memory }}\n"
            f"diagnostics: {{ listen: \"127.0.0.1:{self.diagnostics}\" }}\nservices:\n{services}")
        self.child = stack.enter_context(running(
            [str(options.agent), "start", "-c", str(home / "agent.yaml"), "--log-level", "warn"], home / "log"))
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            if self.child.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the agent is not ready:\n{self.child.last_words()}")
            time.sleep(0.05)

    def ready(self):
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.diagnostics}/readyz", timeout=2) as answer:
                return answer.status == 200
        return False

    def memory(self):
        """Resident memory by kind, KiB."""
        lines = pathlib.Path(f"/proc/{self.child.pid}/smaps_rollup").read_text().splitlines()[1:]
        fields = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return {"rss": fields["Rss"], "anonymous": fields["Anonymous"], "private_dirty": fields["Private_Dirty"],
                "file": fields["Rss"] - fields["Anonymous"]}

    def wake_ups(self):
        """How often each thread has gone to sleep of its own will so far, by thread."""
        switches = {}
        for task in pathlib.Path(f"/proc/{self.child.pid}/task").iterdir():
            status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            switches[task.name] = (status["Name"].strip(), int(status["voluntary_ctxt_switches"]))
        return switches


def loadtest(options, *arguments):
    """Runs `loadtest`; its report."""
    wait_for_quiet(options.patience)
    with OTHERS.beside({os.getpid()}):
        return json.loads(call([options.loadtest, *arguments, "-o", "json"], f"loadtest {arguments[0]}"))


def streams(options, issuer, home, load):
    """One load on a fresh agent: memory, and a rotation that the issuer orders."""
    _, kind, count, per_connection, _ = load
    with contextlib.ExitStack() as stack:
        agent = Agent(options, stack, issuer, home, IDENTITIES)
        arguments = ["streams", *agent.sockets, "--kind", kind, "-c", count, "--per-connection", per_connection,
                     "--baseline", 0, "--pid", agent.child.pid, "--watch", "30s", "-o", "json",
                     "--", options.issuer, "renew-now", "--data-dir", issuer.home / "data"]
        wait_for_quiet(options.patience)
        report = json.loads(call([options.loadtest, *arguments], "loadtest streams"))
        process, rotation = report["processes"][0], report["rotation"]
        return {"kib": process["bytes_per_stream"] / 1024, "rotated_s": rotation["last_seconds"],
                "spread_s": rotation["spread_seconds"], "rss_kib": process["rss_after"] / 1024}


def idle(options, issuer, home, seconds):
    """An agent with one identity that one stream holds: memory and wake-ups; then tokens from its cache."""
    with contextlib.ExitStack() as stack:
        agent = Agent(options, stack, issuer, home, 1)
        holder = stack.enter_context(running(
            [str(options.loadtest), "streams", str(agent.sockets[0]), "-c", "1", "--baseline", "0", "--settle",
             f"{SETTLE_SECONDS + seconds}s"], home / "holder.log"))
        time.sleep(SETTLE_SECONDS)
        before = agent.wake_ups()
        time.sleep(seconds)
        after = agent.wake_ups()
        memory = agent.memory()
        if holder.process.poll() is not None:
            raise Failed(f"the stream of the idle agent ended:\n{holder.last_words()}")
        by_thread = {}
        for thread, (name, count) in after.items():
            by_thread[name] = by_thread.get(name, 0) + count - before.get(thread, (name, 0))[1]
        tokens = loadtest(options, "tokens", agent.sockets[0], "-n", TOKENS)
    return {"memory": memory, "wake_ups_per_s": sum(by_thread.values()) / seconds, "wake_ups": by_thread,
            "token_us": tokens["p50_us"], "token_p99_us": tokens["p99_us"]}


def measure(options, stack):
    built([options.loadtest, options.issuer, options.agent], ["issuer", "tbot-proxy", "loadtest"])
    work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streams-")))
    work.chmod(0o755)
    issuer = Issuer(options, stack, work, "issuer", count=IDENTITIES)
    run = {"date": datetime.date.today().isoformat(), "machine": machine(), "rounds": options.rounds,
           "version": "this checkout, " + first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
           "idle": [], "streams": {load[0]: [] for load in LOADS}}
    for number in range(options.rounds):
        if options.only in (None, "idle"):
            row = idle(options, issuer, work / f"idle-{number}", options.seconds)
            run["idle"].append(row)
            say(f"round {number + 1}  idle: {row['memory']} KiB, {row['wake_ups_per_s']:.1f} wake-ups/s {row['wake_ups']}, "
                f"token {row['token_us']:.0f} µs")
        for index, load in enumerate(LOADS):
            if options.only in (None, "streams"):
                row = streams(options, issuer, work / f"streams-{number}-{index}", load)
                run["streams"][load[0]].append(row)
                say(f"round {number + 1}  {load[0]}: {row['kib']:.1f} KiB, rotated after {row['rotated_s']:.2f} s "
                    f"(spread {row['spread_s']:.2f} s)")
    run["others_busy"] = OTHERS.median()
    return Report(run, as_markdown(run), as_markdown(run) if options.only is None else None)


def as_markdown(run):
    def row(name, values, digits, unit, most=None):
        median = statistics.median(values)
        show = lambda value: f"{value:,.{digits}f}"
        verdict = "" if most is None else f"≤ {most} {unit}: {median / most:.2f}, {'reached' if median <= most else 'missed'}"
        return f"| {name} | {show(median)} {unit} ({show(min(values))}–{show(max(values))}) | {verdict} |"

    lines = [f"{run['date']}, {run['rounds']} rounds. {run['machine']}. {run['version']}.", "",
             "| median (lowest–highest) | | target: ratio to it |", "|---|---:|---:|"]
    if run["idle"]:
        of = lambda part: [part(idle) for idle in run["idle"]]
        lines += [
            row("idle agent with one identity, RSS", of(lambda idle: idle["memory"]["rss"] / 1024), 1, "MiB", IDLE_MIB),
            row("of which not backed by files", of(lambda idle: idle["memory"]["anonymous"] / 1024), 1, "MiB"),
            row("its wake-ups, all threads", of(lambda idle: idle["wake_ups_per_s"]), 2, "a second"),
            row("JWT-SVID from the cache, median", of(lambda idle: idle["token_us"]), 0, "µs", TOKEN_US),
            row("the same, p99", of(lambda idle: idle["token_p99_us"]), 0, "µs"),
        ]
    for name, _, _, _, most in LOADS:
        if rows := run["streams"][name]:
            lines.append(row(f"{name}: a stream", [each["kib"] for each in rows], 1, "KiB", most))
            lines.append(row("all have a rotated SVID after the order", [each["rotated_s"] for each in rows], 2, "s", ROTATED_S))
    return "\n".join(lines)


def arguments():
    parser = harness.parser(__doc__, "streams", rounds=(3, "rounds, of which medians are shown"),
                            seconds=(10, "how long the idle agent is watched"), minutes=8)
    parser.add_argument("--only", choices=("idle", "streams"), help="only this part (prints, writes no table)")
    parser.add_argument("--config", type=pathlib.Path, help="configuration file for the issuer")
    parser.add_argument("--issuer", type=pathlib.Path, default=RELEASE / "issuer")
    parser.add_argument("--agent", type=pathlib.Path, default=RELEASE / "tbot-proxy")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("rounds and seconds must be positive")
    return options


if __name__ == "__main__":
    # A connection is a descriptor of both ends, and what is started inherits the limit.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.exit(conduct("streams", MARKERS, arguments(), measure))
