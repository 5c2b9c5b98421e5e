"""What the measurements beside this file share: processes, the share of other programs, the command line, tables.

Standard library only.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target/release"
START_SECONDS = 15
STOP_SECONDS = 5
CALL_SECONDS = 120  # a call of a tool: apply, initdb, a load
QUIET = 0.1


class Failed(Exception):
    """Something did not work; the message says what and what to do."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# -- programs ------------------------------------------------------------------------------------


def find(program):
    """Finds a program; administrators' programs too, which are not on everyone's path."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def first_line(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = " ".join(model.group(1).split()) if model else platform.machine()
    return f"{os.cpu_count()} × {name}, {gib:.0f} GiB, Linux {platform.release()}"


# -- processes -----------------------------------------------------------------------------------


def die_with_parent():
    """Runs in the child: it ends when this script does, however that ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)


def share_of_processor():
    """The weight of this session among those that share the processor (Linux autogroup); None if there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(pathlib.Path("/proc/self/autogroup").read_text().split()[-1])
    return None


class Child:
    """A process in a session of its own, ended with all that it started."""

    def __init__(self, command, log):
        self.log = log
        share = share_of_processor()

        def prepare():
            die_with_parent()
            # Its session is as heavy as ours: else the load is measured, which is in ours.
            with contextlib.suppress(OSError):
                if share:
                    pathlib.Path("/proc/self/autogroup").write_text(str(share))

        with open(log, "ab") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL,
                                            start_new_session=True, preexec_fn=prepare)

    @property
    def pid(self):
        return self.process.pid

    def last_words(self):
        text = pathlib.Path(self.log).read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-8:]) or "(it said nothing)"

    def stop(self):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
                break
        # What it left in its session goes too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(command, log):
    child = Child(command, log)
    try:
        yield child
    finally:
        child.stop()


def call(command, name, text=None, **more):
    """Runs a tool to its end; what it printed. Says what it said if it fails."""
    with begun(command, name, **more) as tool:
        return ended(tool, name, text)


@contextlib.contextmanager
def begun(command, name, **more):
    """A tool under way; killed if it is not at its end when this is left."""
    pipe = subprocess.PIPE
    try:
        tool = subprocess.Popen([str(part) for part in command], stdin=pipe, stdout=pipe, stderr=pipe, text=True,
                                preexec_fn=die_with_parent, **more)
    except OSError as error:
        raise Failed(f"{name} cannot be started: {error}") from None
    try:
        yield tool
    finally:
        tool.kill()
        tool.communicate()


def ended(tool, name, text=None):
    """What a tool printed until its end."""
    try:
        out, errors = tool.communicate(text, timeout=CALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise Failed(f"{name} has not ended after {CALL_SECONDS} s") from None
    if tool.returncode:
        said = "\n".join((errors.strip() or out.strip()).splitlines()[-8:])
        raise Failed(f"{name} failed with status {tool.returncode}: {said or '(it said nothing)'}")
    return out


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def wait_until_listening(child, ports):
    """Waits until every port accepts; says what the process said if it does not come to that."""
    deadline = time.monotonic() + START_SECONDS
    for port in ports:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if child.process.poll() is not None:
                raise Failed(f"ended with status {child.process.returncode} at its start:\n{child.last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"does not listen on port {port} after {START_SECONDS} s:\n{child.last_words()}")
            time.sleep(0.05)


# -- who uses the processor ----------------------------------------------------------------------


def family(pids):
    """These processes and their children: directory in `/proc`, and the fields of `stat` from the third on."""
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (directory / "stat").read_text().rsplit(")", 1)[1].split()
            if int(directory.name) in pids or int(fields[1]) in pids:
                yield directory, fields


def cpu_of(pids):
    """CPU seconds that these processes and their children have used so far."""
    return sum(int(fields[11]) + int(fields[12]) for _, fields in family(pids)) / os.sysconf("SC_CLK_TCK")


def weigh(pids):
    """Makes their sessions as heavy as ours: each process of PostgreSQL has one of its own."""
    if share := share_of_processor():
        for directory, _ in family(pids):
            with contextlib.suppress(OSError):
                (directory / "autogroup").write_text(str(share))


def others_busy(seconds=0.4):
    """Share of all cores that other programs use now, from 0 to 1 (ours must be at rest)."""
    def busy_and_total():
        with open("/proc/stat", encoding="ascii") as stat:
            ticks = [int(field) for field in stat.readline().split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    busy, total = busy_and_total()
    time.sleep(seconds)
    busy_then, total_then = busy_and_total()
    return (busy_then - busy) / max(1, total_then - total)


def wait_for_quiet(patience):
    """Waits until others leave the machine alone, up to `patience` seconds; returns their share."""
    deadline = time.monotonic() + patience
    while (share := others_busy()) > QUIET and time.monotonic() < deadline:
        pass
    return share


def machine_busy():
    """CPU seconds that all programs have used so far, and those that there were."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in stat.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Others:
    """What other programs use while a load runs, as a share of all cores, from 0 to 1."""

    def __init__(self):
        self.shares = []

    @contextlib.contextmanager
    def beside(self, pids):
        own = lambda: cpu_of(pids) + sum(os.times()[2:4])
        (busy, total), ours = machine_busy(), own()
        yield
        (busy_then, total_then), ours_then = machine_busy(), own()
        share = (busy_then - busy - (ours_then - ours)) / max(0.01, total_then - total)
        self.shares.append(max(0.0, share))

    def median(self):
        return statistics.median(self.shares) if self.shares else 0.0


OTHERS = Others()


# -- a measurement -------------------------------------------------------------------------------


class Report(typing.NamedTuple):
    """What a measurement found."""

    figures: dict
    text: str  # for a person, "" for nothing
    markdown: str | None  # the tables of `--write`, None if only a part was measured


def parser(description, name, rounds, seconds, minutes):
    """The options that every measurement has; `rounds` and `seconds` are (default, what it is)."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=rounds[0], help=f"{rounds[1]} ({rounds[0]})")
    options.add_argument("--seconds", type=float, default=seconds[0], help=f"{seconds[1]} ({seconds[0]})")
    options.add_argument("--patience", type=float, default=5,
                         help="seconds to wait before each load for other programs to leave the machine alone (5)")
    options.add_argument("--minutes", type=float, default=minutes, help=f"end after this time at the latest ({minutes})")
    options.add_argument("--json", type=pathlib.Path, default=ROOT / f"target/bench/{name}.json",
                         help=f"where all figures go (target/bench/{name}.json)")
    options.add_argument("--write", type=pathlib.Path, metavar="FILE",
                         help="put the tables between the markers of this Markdown file")
    options.add_argument("--loadtest", type=pathlib.Path, default=RELEASE / "loadtest")
    return options


def built(programs, packages):
    """Fails if one of these programs is missing."""
    for program in programs:
        if not os.access(program, os.X_OK):
            raise Failed(f"{program} is missing: cargo build --release {' '.join(f'-p {name}' for name in packages)}")


def too_long(_signal, _frame):
    raise Failed("the time of --minutes is over")


def stopped(_signal, _frame):
    raise KeyboardInterrupt


def write_between_markers(path, markdown, markers):
    text = path.read_text()
    begin, end = markers
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise Failed(f"{path}: {begin} and {end} must stand in it once each, in this order")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_text(f"{head}{begin}\n{markdown}\n{end}{tail}")
    temporary.replace(path)


def conduct(name, markers, options, measure):
    """Runs `measure(options, stack)` within its time and shows its `Report`; the status to exit with."""
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, stopped)
    signal.setitimer(signal.ITIMER_REAL, options.minutes * 60)
    try:
        with contextlib.ExitStack() as stack:
            report = measure(options, stack)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report.figures, indent=1) + "\n")
        if report.text:
            print(report.text)
        say(f"all figures: {options.json}")
        if options.write and report.markdown:
            write_between_markers(options.write, report.markdown, markers)
            say(f"tables written to {options.write}")
    except Failed as error:
        say(f"{name}: {error}")
        return 1
    except KeyboardInterrupt:
        say(f"{name}: stopped")
        return 130
    return 0
