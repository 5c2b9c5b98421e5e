#!/usr/bin/env python3
"""The main job, end to end: two unmodified applications, Python's http.server
and PostgreSQL, reached by curl and psql over SPIFFE mutual TLS.

    demo.py                 runs everything, prints a summary, cleans up
    demo.py --keep-running  leaves it running and prints what to try
    demo.py --down          stops what --keep-running left

Needs only Python's standard library, curl, openssl, PostgreSQL, and the two
binaries under target/debug (or $TBOT_BIN_DIR). Listens on loopback only.
"""

import argparse
import json
import os
import pwd
import random
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = Path(os.environ.get("TBOT_BIN_DIR", ROOT / "target" / "debug"))
STATE = ROOT / "target" / "demo"
TRUST_DOMAIN = "demo.example"
BACKEND = f"spiffe://{TRUST_DOMAIN}/shop/backend"
FRONTEND = f"spiffe://{TRUST_DOMAIN}/shop/frontend"
INTRUDER = f"spiffe://{TRUST_DOMAIN}/intruder"
PATIENCE = 60.0  # seconds that any one thing may take before it counts as failed

TTY = sys.stdout.isatty()
TICK = "\033[32m✔\033[0m" if TTY else "✔"
CROSS = "\033[31m✘\033[0m" if TTY else "✘"


class Failed(Exception):
    """A step did not do what it must; the text says what was seen."""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--keep-running", action="store_true")
    arguments.add_argument("--down", action="store_true")
    options = arguments.parse_args()
    if options.down:
        return stop_left_running()
    # Ends by SIGTERM or a closed terminal clean up as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    demo = Demo()
    try:
        demo.run()
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print(f"  {CROSS} {error}\n\nFAILED. Logs: {STATE.relative_to(ROOT)}/*.log", flush=True)
        demo.stop()
        return 1
    except BaseException:
        demo.stop()
        raise
    if options.keep_running:
        demo.leave_running()
    else:
        demo.stop()
    return 0


class Demo:
    """The processes of the demo, the ports they use, and what was seen."""

    def __init__(self):
        self.processes = []
        self.seen = []  # (what, how it showed) for the summary
        self.port = free_ports((
            "issuer", "issuer_diagnostics", "http", "postgres",
            "backend_web", "backend_db", "frontend_web", "frontend_db",
            "intruder_web", "backend_diagnostics", "frontend_diagnostics",
            "intruder_diagnostics",
        ))

    # ---- the story, in order -------------------------------------------------

    def run(self):
        self.prepare()
        heading("Issuer")
        self.start_issuer()
        self.register()
        heading("Applications that know nothing of TLS")
        self.start_http_server()
        self.start_postgres()
        heading("Agents")
        self.start_agents()
        heading("Requests over mutual TLS")
        self.request_by_curl()
        psql = self.session_by_psql()
        heading("Refusals")
        self.refuse_intruder()
        self.refuse_plaintext()
        heading("Rotation under a running session")
        self.rotate_under(psql)
        heading("Records")
        self.show_connections()
        self.show_audit()
        self.summary()

    def prepare(self):
        for name in ("issuer", "tbot-proxy"):
            if not (BIN / name).is_file():
                raise Failed(f"{BIN / name} is missing: run `make demo`, which builds it")
        if (STATE / "pids").exists():
            stop_left_running(quiet=True)
        shutil.rmtree(STATE, ignore_errors=True)
        STATE.mkdir(parents=True)

    def start_issuer(self):
        self.spawn(
            "issuer",
            [BIN / "issuer", "serve", "--data-dir", STATE / "issuer-data",
             "--trust-domain", TRUST_DOMAIN,
             "--listen", f"127.0.0.1:{self.port['issuer']}",
             "--diagnostics", f"127.0.0.1:{self.port['issuer_diagnostics']}"],
        )
        status = wait_for("the issuer", lambda: json.loads(self.issuer("status", "-o", "json")))
        self.ca_pin = status["ca_pin"]
        tick(f"serves trust domain {TRUST_DOMAIN}; CA pin {self.ca_pin[:23]}…")

    def register(self):
        self.issuer("apply", "-f", HERE / "resources.yaml")
        self.tokens = {}
        for bot in ("backend", "frontend", "intruder"):
            added = json.loads(self.issuer("bot", "add", bot, "--roles", bot, "-o", "json"))
            self.tokens[bot] = added["token"]
        tick("three workload identities, roles and bots registered; one single-use join token each")

    def start_http_server(self):
        site = STATE / "site"
        site.mkdir()
        (site / "index.html").write_text("hello from an unmodified http.server\n")
        self.spawn(
            "http.server",
            [sys.executable, "-m", "http.server", self.port["http"],
             "--bind", "127.0.0.1", "--directory", site],
        )
        wait_for("http.server", lambda: connects(self.port["http"]))
        tick("Python http.server, plain HTTP")

    def start_postgres(self):
        programs = postgres_programs()
        data = STATE / "postgres"
        data.mkdir()
        user = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            account = pwd.getpwnam("postgres")
            # Reached through parents that only root may read: give it a place of its own.
            data = Path(f"/tmp/tbot-demo-postgres-{os.getpid()}")
            data.mkdir(mode=0o700)
            os.chown(data, account.pw_uid, account.pw_gid)
            self.postgres_data = data
            user = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        run([*user, programs / "initdb", "-D", data, "-U", "app", "-A", "trust",
             "--no-sync", "-E", "UTF8"], cwd="/")
        self.spawn(
            "postgres",
            [*user, programs / "postgres", "-D", data, "-h", "127.0.0.1",
             "-p", self.port["postgres"], "-k", data, "-c", "ssl=off"],
            cwd="/",
        )
        wait_for("PostgreSQL", lambda: run(
            ["psql", "-XAtc", "select 1", self.database("postgres")]))
        run(["psql", "-Xqc", "create table orders as select n as id from generate_series(1, 1000) n",
             self.database("postgres")])
        tick("PostgreSQL, ssl=off")

    def start_agents(self):
        for name in ("backend", "frontend", "intruder"):
            text = string.Template((HERE / f"{name}.yaml").read_text()).substitute(
                ca_pin=self.ca_pin, state=STATE, **self.port)
            config = STATE / f"{name}.yaml"
            config.write_text(text)
            self.spawn(name, [BIN / "tbot-proxy", "start", "-c", config],
                       environment={"TBOT_TOKEN": self.tokens[name]})
        for name in ("backend", "frontend", "intruder"):
            port = self.port[f"{name}_diagnostics"]
            wait_for(f"agent {name}", lambda: http_status(port, "/readyz") == 200)
        tick(f"backend  joined, is {BACKEND}; inbound proxies before both applications")
        tick(f"frontend joined, is {FRONTEND}; plain local ports for curl and psql")
        tick(f"intruder joined, is {INTRUDER}: a valid identity that nobody allows")

    def request_by_curl(self):
        body = run(["curl", "-sS", "--fail", "--max-time", "20", self.url("frontend_web")])
        if "unmodified" not in body:
            raise Failed(f"curl got {body!r}")
        record = self.connection("backend", service="web-in", peer_id=FRONTEND)
        self.first_serial = record["peer_serial"]
        self.shown("curl → http.server over mTLS", f"{record['peer_id']} → {record['local_id']}")

    def session_by_psql(self):
        session = Psql(self.database("frontend_db"))
        self.processes.append(session.process)
        rows = session.ask("select count(*) from orders")
        if rows != "1000":
            raise Failed(f"psql saw {rows!r} rows, not 1000")
        self.backend_pid = session.ask("select pg_backend_pid()")
        self.shown("psql → PostgreSQL over mTLS", f"1000 rows; session {self.backend_pid} stays open")
        return session

    def refuse_intruder(self):
        refused = subprocess.run(
            ["curl", "-sS", "--max-time", "20", self.url("intruder_web")],
            capture_output=True, text=True)
        if refused.returncode == 0:
            raise Failed(f"the intruder got an answer: {refused.stdout!r}")
        record = self.connection("backend", service="web-in", peer_id=INTRUDER)
        if record["bytes_in"] or record["bytes_out"]:
            raise Failed(f"bytes flowed for the intruder: {record}")
        self.shown("third identity refused", f"{INTRUDER}: {record['reason']}")

    def refuse_plaintext(self):
        refused = subprocess.run(
            ["curl", "-sS", "--max-time", "20", self.url("backend_web")],
            capture_output=True, text=True)
        if refused.returncode == 0:
            raise Failed(f"plaintext got an answer: {refused.stdout!r}")
        record = self.connection("backend", service="web-in", peer_id=None)
        self.shown("direct plaintext refused", f"{record['reason']}")

    def rotate_under(self, psql):
        before = {name: self.serial(name) for name in ("backend", "frontend")}
        self.issuer("renew-now")
        for name in before:
            wait_for(f"a new SVID of {name}", lambda: self.serial(name) != before[name])
        tick("both agents have new SVIDs (serials in their output files changed)")
        same = psql.ask("select pg_backend_pid()")
        if same != self.backend_pid:
            raise Failed(f"the psql session was cut: backend {self.backend_pid}, then {same}")
        run(["curl", "-sS", "--fail", "--max-time", "20", self.url("frontend_web")])
        record = self.connection("backend", service="web-in", peer_id=FRONTEND, last=True)
        if record["peer_serial"] == self.first_serial:
            raise Failed("a new connection still used the old SVID")
        rows = psql.ask("select count(*) from orders")
        psql.close()
        record = self.connection("backend", service="db-in", peer_id=FRONTEND)
        if record["reason"] != "complete" or rows != "1000":
            raise Failed(f"the psql session did not end cleanly: {record}")
        self.shown("SVIDs rotated under a running psql",
                   "same database session; new connections use the new SVID")

    def show_connections(self):
        print("  connections, as the backend's proxy recorded them:")
        for record in self.connections("backend"):
            print(f"    {record['service']:<7} {record['reason']:<17} "
                  f"{record.get('peer_id') or '(no identity)':<36} "
                  f"in {record['bytes_in']:>6} B  out {record['bytes_out']:>6} B", flush=True)

    def show_audit(self):
        print("  audit trail of the issuer:")
        events = [json.loads(line) for line in self.issuer("audit", "-o", "json").splitlines()]
        for event in events:
            fields = event["fields"]
            about = (fields.get("spiffe_id") or fields.get("bot_name")
                     or fields.get("name") or "")
            verdict = "ok" if event["success"] else "DENIED"
            print(f"    {event['sequence']:>3}  {event['event']:<26} {verdict:<6} {about}", flush=True)
        issued = [e for e in events if e["event"] == "spiffe.svid.issued" and e["success"]]
        joins = [e for e in events if e["event"] == "bot.join" and e["success"]]
        if len(joins) != 3 or len(issued) < 5:
            raise Failed(f"the audit trail has {len(joins)} joins and {len(issued)} issuances")
        if [e["sequence"] for e in events] != list(range(1, len(events) + 1)):
            raise Failed("the audit trail has gaps")
        self.shown("audit trail without gaps", f"{len(events)} events, {len(joins)} joins, {len(issued)} SVIDs")

    def summary(self):
        print("\nSummary", flush=True)
        width = max(len(what) for what, _ in self.seen)
        for what, how in self.seen:
            print(f"  {TICK} {what:<{width}}  {how}", flush=True)
        print("\nOK: two unmodified applications spoke mutual TLS.", flush=True)

    # ---- what the steps are made of ------------------------------------------

    def shown(self, what, how):
        self.seen.append((what, how))
        tick(f"{what}: {how}")

    def issuer(self, *arguments):
        return run([BIN / "issuer", *arguments, "--data-dir", STATE / "issuer-data"])

    def database(self, port):
        return f"host=127.0.0.1 port={self.port[port]} user=app dbname=postgres sslmode=disable gssencmode=disable connect_timeout=20"

    def url(self, port):
        return f"http://127.0.0.1:{self.port[port]}/"

    def serial(self, agent):
        leaf = run(["openssl", "x509", "-noout", "-serial", "-in", STATE / f"{agent}-svid" / "svid.pem"])
        return leaf.strip()

    def connections(self, agent):
        log = STATE / f"{agent}-connections.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def connection(self, agent, service, peer_id, last=False):
        """Waits for the record of an ended connection of this peer."""
        def find():
            found = [r for r in self.connections(agent)
                     if r["service"] == service and r.get("peer_id") == peer_id]
            if last and len(found) < 2:
                return None
            return found[-1] if found else None
        return wait_for(f"the record of {peer_id or 'a peer without identity'} on {service}", find)

    def spawn(self, name, command, environment=None, cwd=None):
        with open(STATE / f"{name}.log", "w") as log:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=cwd, env={**os.environ, **(environment or {})}, start_new_session=True)
        process.name = name
        self.processes.append(process)

    def stop(self):
        for process in reversed(self.processes):
            end(process.pid, process)
        self.remove_postgres_data()

    def remove_postgres_data(self):
        if hasattr(self, "postgres_data"):
            shutil.rmtree(self.postgres_data, ignore_errors=True)

    def leave_running(self):
        lines = [f"{p.pid} {getattr(p, 'name', 'psql')}" for p in self.processes if p.poll() is None]
        lines += [f"path {self.postgres_data}"] if hasattr(self, "postgres_data") else []
        (STATE / "pids").write_text("\n".join(lines) + "\n")
        relative = BIN.relative_to(ROOT) if BIN.is_relative_to(ROOT) else BIN
        data = f"--data-dir {STATE.relative_to(ROOT)}/issuer-data"
        print(f"""
Left running. Try:
  curl {self.url('frontend_web')}
  psql "{self.database('frontend_db')}"
  curl {self.url('intruder_web')}                 # refused: an identity that nobody allows
  curl http://127.0.0.1:{self.port['backend_diagnostics']}/readyz           # or /metrics
  {relative}/issuer audit --follow {data}
  {relative}/issuer renew-now {data}       # rotates every SVID
  tail -f {STATE.relative_to(ROOT)}/backend-connections.jsonl
  make demo-down                                  # stops it""")


class Psql:
    """One psql process, one database session, asked one question after another."""

    def __init__(self, database):
        self.process = subprocess.Popen(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", database], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)

    def ask(self, statement):
        self.process.stdin.write(statement + ";\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        if self.process.wait(PATIENCE) != 0:
            raise Failed(f"psql ended with status {self.process.returncode}: {self.process.stdout.read()}")


def heading(text):
    print(f"\n{text}", flush=True)


def tick(text):
    print(f"  {TICK} {text}", flush=True)


def run(command, cwd=None):
    """Runs to the end; its standard output, or Failed with its errors."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          timeout=PATIENCE, cwd=cwd)
    if done.returncode != 0:
        words = " ".join(str(part) for part in command[:3])
        raise Failed(f"`{words} …` ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_for(what, probe):
    """Asks until the answer is true; Failed when patience ends."""
    end_at, problem = time.monotonic() + PATIENCE, "no answer"
    while time.monotonic() < end_at:
        try:
            answer = probe()
            if answer:
                return answer
        except (Failed, OSError, ValueError, subprocess.SubprocessError) as error:
            problem = error
        time.sleep(0.1)
    raise Failed(f"{what} did not come in {PATIENCE:.0f} s: {problem}")


def free_ports(names):
    """A port for each name, below those that the kernel gives to outgoing connections."""
    ports = {}
    while len(ports) < len(names):
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports.values():
            ports[names[len(ports)]] = port
    return ports


def connects(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def http_status(port, path):
    out = run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5",
               f"http://127.0.0.1:{port}{path}"])
    return int(out)


def postgres_programs():
    """Debian's newest, else what is on the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    if versions:
        return versions[-1]
    found = shutil.which("initdb")
    if not found:
        raise Failed("PostgreSQL's initdb is missing: apt-get install postgresql")
    return Path(found).parent


def end(pid, process=None):
    """SIGTERM to the process group, SIGKILL if it does not end in ten seconds."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pid, number)
        except (ProcessLookupError, PermissionError):
            break
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if process.poll() is not None if process else not alive(pid):
                return
            time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def stop_left_running(quiet=False):
    pids = STATE / "pids"
    if not pids.exists():
        if not quiet:
            print("nothing is running")
        return 0
    for line in reversed(pids.read_text().splitlines()):
        number, name = line.split(" ", 1)
        if number == "path":
            shutil.rmtree(name, ignore_errors=True)
        else:
            end(int(number))
    pids.unlink()
    if not quiet:
        print("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
