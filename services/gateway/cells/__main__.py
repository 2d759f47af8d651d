"""A door before many cells: `python -m services.gateway.cells --id door-0`, settings from HEADRACE_*.

HEADRACE_CELLS_FILE says where each cell's gateways are; HEADRACE_NATS_URL is the bus on which cells tell their status.
"""

import argparse
import os
from functools import partial

from headrace.mesh.binding import check_api
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.lifecycle import Lifecycle, run
from headrace.mesh.subjects import check_process_id
from headrace.mesh.tls import Tls
from services.gateway.cells.options import Options
from services.gateway.cells.serving import serve


async def main(name: str, life: Lifecycle) -> None:
    settings, options = Settings.from_env(os.environ), Options.from_env(os.environ)
    tls = Tls.of(settings)
    check_api(settings, tls, keyed=True)  # the cells' gateways look at the keys
    await serve(name, await Bus.open(settings, name), settings, options, tls, life)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="services.gateway.cells")
    parser.add_argument("--id", type=check_process_id, default="door-0")
    run(partial(main, parser.parse_args().id))
