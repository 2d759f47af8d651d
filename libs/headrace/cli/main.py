"""`headrace <command>`: one file a command, imported only when it is the one asked for.

A command module has add_arguments(parser) and run(args) -> exit code.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "up": "start a mesh on this machine",
    "down": "stop the mesh that `up` started",
    "status": "what the mesh is doing: queues, workers, devices",
    "top": "what the console shows, on a terminal, as it changes",
    "queue": "the request groups in each worker's virtual queue, or why one request waits",
    "trace": "from a slow bucket to a trace, from a trace to its log lines",
    "governor": "power and heat: rows, caps and why; set a budget, declare an emergency",
    "keys": "API keys: make, list, rotate and revoke them; running gateways follow within a second",
    "certs": "certificates, passwords, permissions and API keys for a trial, in one directory",
    "chat": "ask a running mesh, with images if you like",
    "demo": "start a mesh, ask real questions, show where the time went, stop it",
    "demo-governor": "cut the power budget of a mesh under load and give it back: watch it, get a picture",
    "model": "export the encoders of a Hugging Face directory, or show what it holds",
    "load": "put a scenario's load on a running mesh and print the table",
    "calibrate": "measure the running mesh, so that the simulator can stand in for it",
    "simulate": "try policies on a scenario or a trace in simulated time",
    "characterize": "where a model's time goes, stage by stage, or what a trace is like",
    "plant": "fit the simulated plant's thermal constants to a GPU's own log",
    "pools": "which pools a traffic needs: profiles, sizes, separated or together, confirmed by simulation",
    "bench": "run a bench by its name",
    "reproduce": "a paper's comparison again, in the simulator, beside the paper's numbers",
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        return _usage(words)
    command = importlib.import_module(f"headrace.cli.{words[0].replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"headrace {words[0]}", description=COMMANDS[words[0]])
    command.add_arguments(parser)
    args, rest = parser.parse_known_args(words[1:])
    if rest and words[0] not in ("bench", "reproduce"):  # which parse their own
        parser.error(f"unknown option: {' '.join(rest)}")
    args.rest = rest
    try:
        return int(command.run(args))
    except KeyboardInterrupt:
        return 130


def _usage(words: list[str]) -> int:
    asked = not words or words[0] in ("-h", "--help", "help")
    out = sys.stdout if asked else sys.stderr
    if not asked:
        print(f"headrace: there is no command {words[0]!r}\n", file=out)
    print("usage: headrace <command> [options]      headrace <command> --help\n", file=out)
    for name, summary in COMMANDS.items():
        print(f"  {name:<13} {summary}", file=out)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
