"""Answer over HTTP with the best weights of an experiment: a page for people, JSON for programs.

    python serve.py --model_dir experiments/base_model      # then open http://127.0.0.1:8000
    python serve.py --weights model.onnx --port 8080        # what export.py wrote, without torch

    curl -F file=@photo.jpg -F file=@other.jpg http://127.0.0.1:8000/predict
    curl --json '{"inputs": ["Anna lives in London."]}' http://127.0.0.1:8000/predict

http://127.0.0.1:8000/docs describes requests and answers. Requests that arrive together are computed as one batch. If
the experiment is trained meanwhile, each new best epoch answers as soon as it is saved. Ctrl-C and SIGTERM end the
server after the requests under way. It has no passwords: give another --host only in a network that you trust.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.commands import run_command
from predict import load_predictor
from utils import UserError

NEEDED = ("fastapi", "starlette", "uvicorn", "python_multipart")
INSTALL = "pip install -r requirements-serve.txt"
TOP = 10  # classes whose probabilities an answer lists


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", default="experiments/base_model", help="folder of the experiment (%(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="these instead: a checkpoint, or what export.py wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s; 0: any that is free)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (the fastest there is)")
    parser.add_argument("--max_batch", type=int, default=64, help="inputs computed together at most (%(default)s)")
    args = parser.parse_args()
    if args.max_batch < 1:
        parser.error(f"--max_batch: expected 1 or more, got {args.max_batch}")
    return args


def main() -> None:
    args = parse_args()
    try:
        from serving.app import App, is_loopback
        from serving.limits import Limits
        from serving.server import listen, run_server
        from serving.weights import Weights
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in NEEDED:
            raise
        raise UserError(f"{missing} is not installed. Install what serve.py needs with: {INSTALL}") from None
    place = Path(args.weights or args.model_dir)
    with listen(args.host, args.port) as listener:  # first: a port that is in use is known before anything is loaded
        weights = Weights(place, lambda: load_predictor(place, args.device, TOP))
        only_local = is_loopback(listener.getsockname()[0])
        run_server(App(weights, Limits(), args.max_batch, only_local), listener)


if __name__ == "__main__":
    run_command(main)
