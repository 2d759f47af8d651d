"""A gateway process: `python -m services.gateway --id gateway-0`, settings from HEADRACE_*."""

import argparse
import os
from functools import partial

from headrace.mesh.config import Settings
from headrace.mesh.lifecycle import run
from headrace.mesh.subjects import check_process_id
from services.gateway.wiring import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="services.gateway")
    parser.add_argument("--id", type=check_process_id, default="gateway-0")
    run(partial(main, parser.parse_args().id, Settings.from_env(os.environ)))
