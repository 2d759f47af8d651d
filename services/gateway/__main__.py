"""A gateway process: `python -m services.gateway --id gateway-0`, settings from HEADRACE_*."""

import argparse
import os
from functools import partial

from headrace.engines.families import family
from headrace.mesh import telemetry
from headrace.mesh.binding import check_api
from headrace.mesh.blobs import DirectoryBlobs
from headrace.mesh.bus import Bus
from headrace.mesh.classes import read_classes
from headrace.mesh.config import Settings
from headrace.mesh.journal import Journal
from headrace.mesh.lifecycle import Lifecycle, run
from headrace.mesh.rates import Rates
from headrace.mesh.store import Store
from headrace.mesh.subjects import check_process_id
from headrace.mesh.tls import Tls
from services.gateway.admission import Terms
from services.gateway.auth import Keys
from services.gateway.console.managers import Managers
from services.gateway.fetch import fetcher
from services.gateway.front import Front, Parts
from services.gateway.limits import Limiter
from services.gateway.listen import serve
from services.gateway.models import Models
from services.gateway.tracing import Tracer


async def main(name: str, life: Lifecycle) -> None:
    settings = Settings.from_env(os.environ)
    telemetry.set_up(name, settings)
    keys, classes = Keys.read(settings.api_keys_file), read_classes(settings.classes_file)
    tls = Tls.of(settings)
    check_api(settings, tls, keyed=not keys.open)
    terms = Terms(Models([family(model) for model in settings.served]), classes, settings.early_rejection)
    bus = await Bus.open(settings, name)
    journal, blobs = await Journal.open(bus, settings), DirectoryBlobs(settings.data_dir)
    tracer = Tracer(telemetry.spans(), settings.trace_sample)
    # An open gateway limits nobody and does without Redis.
    limiter = Limiter(None if keys.open else Rates(await Store.open(settings)))
    fetch = fetcher(settings.media_urls == "on", settings.media_hosts)
    managers = Managers(settings.queue_manager_addr, settings.governor_addr, tls)
    parts = Parts(bus, journal, blobs, terms, keys, fetch, tracer, limiter, managers)
    await serve(Front.of(name, parts), settings, tls, life)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="services.gateway")
    parser.add_argument("--id", type=check_process_id, default="gateway-0")
    run(partial(main, parser.parse_args().id))
