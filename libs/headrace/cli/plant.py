"""`headrace plant fit LOG`: thermal constants of a GPU from a log of its power and temperature."""

import argparse
import json
import sys
from pathlib import Path

from headrace.control.constants import GPUS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("fit",))
    parser.add_argument("log", type=Path, help="CSV with t_s, power_w, temp_c: idle, load, idle, at 1 to 10 Hz")
    parser.add_argument("--near", choices=tuple(GPUS), default="h100", help="whose constants to begin with")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    from headrace.control import fit

    try:
        found = fit.fit(fit.read(args.log), GPUS[args.near])
    except (fit.FitError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out = sys.stderr if args.json else sys.stdout
    print(f"{found.readings} readings, off by {found.rmse_k:.2f} K (root mean square)", file=out)
    for name, value in found.values.items():
        print(f"  {name:18} {value:10.4g}  +- {found.errors[name]:.2g}", file=out)
    print(f"  from die to air    {found.resistance:10.4g} K/W   inlet {found.inlet_c:.1f} C", file=out)
    if args.json:
        line = {"values": found.values, "errors": found.errors, "inlet_c": found.inlet_c, "rmse_k": found.rmse_k}
        print(json.dumps(line), flush=True)
    return 0
