"""A governor process: `python -m services.governor --id governor-0`, settings from HEADRACE_*."""

import argparse
import os
import sys
from functools import partial

from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.lifecycle import EXIT_BAD_SETUP, run
from headrace.mesh.subjects import check_process_id
from services.governor.options import Options
from services.governor.wiring import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="services.governor")
    parser.add_argument("--id", type=check_process_id, default="governor-0")
    process = parser.parse_args().id
    try:
        settings, options = Settings.from_env(os.environ), Options.from_env(os.environ)
    except BadSetup as error:
        print(f"headrace: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_SETUP)
    run(partial(main, process, settings, options))
