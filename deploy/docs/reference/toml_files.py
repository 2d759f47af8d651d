"""TOML files: the keys of scenarios, classes, rows, keys and profiles, from the classes that read them."""

from pathlib import Path

from headrace.core.slo import SloClass
from headrace.profiles.engine import EngineProfile
from headrace.workload import autoscale, fleet, multimodal, queueing, repeats, scenario, users
from headrace.workload import open as arrivals
from reference.fields import told
from reference.words import cell, code, table
from services.governor import rows

_SCENARIO = [
    ("The file itself", scenario._File),
    ("`[workload]`, kind `generated`", arrivals.Generated),
    ("... generator `multimodal`", multimodal.Multimodal),
    ("... generator `text`", multimodal.TextOnly),
    ("`[workload]`, kind `trace`", arrivals.Traced),
    ("`[workload]`, kind `users`", users.Users),
    ("`[[workload.streams]]`, kind `streams`", arrivals.Stream),
    ("`[[workload.bursts]]`", arrivals.Burst),
    ("`[workload.clip]`", arrivals.Clip),
    ("`[workload.repeats]`", repeats.Repeats),
    ("`[classes.NAME]`", scenario._Class),
    ("`[fleet]`", fleet.Fleet),
    ("`[[fleet.pools]]`", fleet.PoolSpec),
    ("`[[incidents]]`", fleet.Incident),
    ("`[autoscale]`", autoscale.Autoscale),
    ("`[autoscale.pools.NAME]`", autoscale.PoolLimits),
    ("`[queue]`", queueing.Queueing),
]
_READ_BY_HAND = {"source", "name"}  # not keys: what a reader fills in


def page(root: Path) -> str:
    scenarios = "\n".join(f"### {title}\n\n{_keys(cls)}" for title, cls in _SCENARIO)
    example = (rows.__doc__ or "").split("\n\n", 1)[1].strip()
    return f"""# TOML files

## Scenarios

What `headrace simulate`, `headrace load` and `headrace pools` read. [burst.toml](../../loadtest/scenarios/burst.toml)
explains itself line by line; a key that does not exist, or a value that cannot be, is refused by its name.

{scenarios}
`[mesh]` says in seconds what the simulated mesh takes for its own work: [simulator.md](../simulator.md).

## Classes

`HEADRACE_CLASSES_FILE`: a table `[classes.NAME]` for each class, and `default`, the name of one of them. A class that
is built in says only what is different.

{_keys(SloClass)}
## Rows

`HEADRACE_ROWS`:

```toml
{example}
```

## Engine profiles

`HEADRACE_PROFILE`: what the profile engine sleeps for. Costs stand in `[cost]`, the length of answers in `[output]`
(`mean_tokens`), an encoder's pace in `[encode]` (`token_s`).
[h100-qwen3-8b.toml](../../libs/headrace/profiles/engine/h100-qwen3-8b.toml) is one.

{_keys(EngineProfile)}
Where a worker may load several models (`HEADRACE_MODELS`), a table `[models."NAME"]` gives one a pace of its own: any
key and table of the file but `gpu` and `gpus`, in the place of the file's. A `[cost]` is replaced as a whole. What the
table does not say, and models without one, take the file's. Load times are those of that model.

```toml
source = "[I] a large model"
kv_bytes_per_token = 2048
load_cold_s = 100.0
load_warm_s = 3.0

[cost]
tokens = [0, 8192]
tokens_s = [40e-3, 800e-3]

[models."profile-tiny-small"]
load_warm_s = 1.0

[models."profile-tiny-small".cost]
tokens = [0, 8192]
tokens_s = [10e-3, 200e-3]
```

## API keys

Written by `headrace keys`: [security.md](../security.md).
"""


def _keys(cls: type) -> str:
    found = [
        field for field in told(cls) if field.name not in _READ_BY_HAND or cls in (fleet.PoolSpec, arrivals.Stream)
    ]
    return table(
        ("Key", "Type", "Default", "Meaning"),
        [(code(each.name), code(each.type), code(each.default), cell(each.meaning)) for each in found],
    )
