#!/usr/bin/env python3
"""What streams of the Workload API cost: memory a stream, and how far a rotation is spread.

Starts the example server `test_identities` (100 workloads, keys and certificates of a test
CA) and holds streams on it with `loadtest streams`. Each stream has a connection of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Kind, streams, bytes a stream that are the target.
RUNS = [("x509", 10_000, 8 * 1024), ("sds", 1_000, 16 * 1024)]


def measure(target: Path, kind: str, streams: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/wl.sock"
        server = subprocess.Popen(
            [target / "examples/test_identities", socket, "100"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        server.stdout.readline()
        command = [target / "loadtest", "streams", socket, "--kind", kind, "-c", str(streams)]
        command += ["--pid", str(server.pid), "--watch", "120s", "-o", "json"]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        done = threading.Event()

        def rotate() -> None:
            # Until the load has seen one with all its streams open.
            while not done.wait(5):
                print("rotate", file=server.stdin, flush=True)

        rotating = threading.Thread(target=rotate)
        time.sleep(streams / 1000 + 8)
        rotating.start()
        told, _ = load.communicate()
        done.set()
        rotating.join()
        server.stdin.close()
        server.wait()
        if load.returncode != 0:
            sys.exit(f"loadtest streams ended with {load.returncode}")
        return json.loads(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=ROOT / "target/release")
    arguments = parser.parse_args()
    print("| streams | bytes a stream | target | RSS before, after (KiB) | last update after the first |")
    print("|---|---|---|---|---|")
    for kind, streams, most in RUNS:
        report = measure(arguments.target, kind, streams)
        process = report["processes"][0]
        before, after = process["rss_before"] // 1024, process["rss_after"] // 1024
        spread = report["rotation"]["spread_seconds"]
        each = process["bytes_per_stream"]
        print(f"| {streams:,} {kind} | {each:,.0f} | {most:,} | {before:,}, {after:,} | {spread:.2f} s |")


if __name__ == "__main__":
    main()
