"""Requests per second of serve.py: 50 clients whose photos share batches, beside one client answered one at a time.

    python -m benchmarks.serving_speed --model_dir experiments/base_model --photo photo.jpg

Two servers are started: one as shipped, and one with --max_batch 1, which a single client asks. wrk measures them back
to back, --seconds each, in --rounds rounds. Errors are answers other than 200, and connections that failed. The memory
of each server is its resident set before the first request, after half of the rounds, and after the last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.hardware import describe_hardware
from tests.helpers import draw_photo

ROOT = Path(__file__).parent.parent

# what wrk runs: the request, and its figures as a line of JSON
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=limit"
local file = io.open(os.getenv("PHOTO"), "rb")
wrk.body = '--limit\\r\\nContent-Disposition: form-data; name="file"; filename="a.jpg"\\r\\n\\r\\n'
  .. file:read("*a") .. "\\r\\n--limit--\\r\\n"
file:close()
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "microseconds": %d, "p50": %f, "p99": %f, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Measured(NamedTuple):
    per_second: float
    p50: float  # milliseconds
    p99: float
    errors: int


@contextlib.contextmanager
def start_server(model_dir: str, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server's process and address, once it answers."""
    command = [sys.executable, "serve.py", "--model_dir", model_dir, "--port", "0", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+:\d+", line):
                yield process, found[0]
                break
        else:
            raise SystemExit(f"{' '.join(command)}: does not start.")
    finally:
        process.terminate()
        process.wait()


def measure(url: str, connections: int, seconds: int, script: Path, photo: str) -> Measured:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"{url}/predict"]
    output = subprocess.run(
        command, env={**os.environ, "PHOTO": photo}, capture_output=True, encoding="utf-8", check=True
    )
    (line,) = [line for line in output.stdout.splitlines() if line.startswith("RESULT")]
    found = json.loads(line.partition(" ")[2])
    rate = found["requests"] / found["microseconds"] * 1e6
    return Measured(rate, found["p50"] / 1000, found["p99"] / 1000, found["errors"])


def memory(process: subprocess.Popen[str]) -> float:
    """MiB of the process that are in memory (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="of images (%(default)s)")
    parser.add_argument("--photo", help="what every request sends (a drawn one of 64x64)")
    parser.add_argument("--connections", type=int, default=50, help="clients at once (%(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="(%(default)s)")
    args = parser.parse_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as temporary:
        photo, script = Path(args.photo or f"{temporary}/photo.jpg").absolute(), Path(temporary) / "post.lua"
        if not args.photo:
            draw_photo(photo, 1, (64, 64))
        script.write_text(SCRIPT, encoding="utf-8")
        with start_server(args.model_dir) as many, start_server(args.model_dir, "--max_batch", "1") as single:
            ways = {f"{args.connections} clients": (*many, args.connections), "1 client": (*single, 1)}
            for _, url, connections in ways.values():
                measure(url, connections, 2, script, str(photo))  # warm up: caches, threads, memory
            found: dict[str, list[Measured]] = {name: [] for name in ways}
            resident = {name: [memory(process)] for name, (process, *_) in ways.items()}
            for i in range(args.rounds):
                for name, (process, url, connections) in ways.items():
                    found[name].append(measure(url, connections, args.seconds, script, str(photo)))
                    if i + 1 in (max(1, args.rounds // 2), args.rounds):
                        resident[name].append(memory(process))
    for name, values in found.items():
        per_second, p50, p99 = (statistics.median(v[i] for v in values) for i in range(3))
        errors, sizes = sum(value.errors for value in values), ", ".join(f"{size:.0f}" for size in resident[name])
        speed = f"{per_second:7.0f} requests/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms"
        print(f"{name:12s}{speed}  {errors} errors  {sizes} MiB")
    ratios = [a.per_second / b.per_second for a, b in zip(*found.values(), strict=True)]
    print(f"together: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
