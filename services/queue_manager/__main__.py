"""A queue manager process: `python -m services.queue_manager --id qm-0`, settings from HEADRACE_*."""

import argparse
import os
from functools import partial
from typing import cast

from headrace.core.queue.config import Roles
from headrace.mesh.config import Settings
from headrace.mesh.lifecycle import run
from headrace.mesh.subjects import check_process_id
from services.queue_manager.scaling_options import ScalingOptions
from services.queue_manager.wiring import Options, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="services.queue_manager")
    parser.add_argument("--id", type=check_process_id, default="qm-0")
    options = Options(
        parser.parse_args().id,
        Settings.from_env(os.environ),
        tape=os.environ.get("HEADRACE_TAPE", ""),
        order=os.environ.get("HEADRACE_ORDER", ""),
        planner=os.environ.get("HEADRACE_PLANNER", ""),
        without=tuple(os.environ.get("HEADRACE_WITHOUT", "").replace(",", " ").split()),
        roles=cast(Roles, os.environ.get("HEADRACE_ROLES") or "fixed"),
        predict=os.environ.get("HEADRACE_PREDICT") or "auto",
        governor_coupling=os.environ.get("HEADRACE_GOVERNOR_COUPLING") or "on",
        scaling=ScalingOptions.from_env(os.environ),
    )
    run(partial(main, options))
