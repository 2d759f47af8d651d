"""What the plant is made of. Every number has its source and how far it can be trusted beside it.

[V] read in a primary source, [S] a third party's summary, [R] recalled, [I] inferred or ours to choose. Thermal ones
are to be replaced by a step response of the GPU at hand: `headrace plant fit`.
"""

from dataclasses import dataclass

AIR_J_PER_M3_K = 1.2 * 1005.0  # density x specific heat of air at 20 C
CFM = 0.000471947  # m3/s


@dataclass(frozen=True, slots=True)
class GpuKind:
    """Watts of one GPU by what it does at full speed, its heat path, and where its own protection steps in."""

    name: str
    idle_w: float  # no process has a context on it
    context_w: float  # a model is loaded and computes nothing
    prefill_w: float
    decode_w: float
    encode_w: float
    die_j_per_k: float  # heat capacity of die and lid
    sink_j_per_k: float
    die_sink_k_per_w: float
    sink_air_k_per_w: float  # at full airflow
    soft_limit_c: float
    hard_limit_c: float
    hard_speed: float = 0.5  # [I] of the slowdown at the hard limit
    speed_least: float = 0.35  # [I] a tenth of the dynamic power is left there
    # [I] fitted to one fact: at half the power prefill takes 1.30 x as long (splitwise-sim's pcap rows, themselves
    # modelled [V]; the Splitwise text has almost no loss for decode [S]).
    speed_exponent: float = 3.56
    decode_free_speed: float = 0.75  # [I] decode waits for memory: above it nothing is lost, below in proportion


@dataclass(frozen=True, slots=True)
class ServerKind:
    """What stands around the GPUs of a server."""

    name: str
    gpus: int
    max_w: float  # of its power supply's rating
    rest_w: float  # processors, memory, network, when the GPUs idle
    rest_share: float  # of the GPUs' power, for feeding them
    fan_w: float  # at full airflow; goes with the cube of it
    airflow_m3s: float  # at full fan speed
    airflow_least: float = 0.3  # [I] share of it at no load; the rest rises in proportion to the GPUs' power


# Idle 2604.07345, 2605.23918 [S]; with context 2605.23918 [S]; prefill and decode splitwise-sim constant.yaml [V];
# encode is compute-bound as prefill is [I]. Total resistance (70 - 28) / 700 K/W, its parts and the capacities [I]:
# they give the 60 s in which two V100s were seen to settle [V]. 83 and 87 C are among what web pages say [I].
H100 = GpuKind("h100", 72.5, 121.7, 700.0, 380.0, 700.0, 120.0, 700.0, 0.018, 0.040, 83.0, 87.0)
# The same sources; resistances scaled so that 400 W make the same 42 K [I].
A100 = GpuKind("a100", 53.7, 80.0, 400.0, 250.0, 400.0, 90.0, 600.0, 0.0315, 0.070, 83.0, 87.0)

# 10.2 kW, 1105 CFM at 80 % PWM: NVIDIA's user guide [V]. Eight at 696 W made 8.4 kW (2604.07345) [S]: rest, feeding and
# fans are parted so that they add up to that; fans take 9 to 15 % of a server (Azure GreenSKU, CPU servers) [V].
DGX_H100 = ServerKind("dgx-h100", 8, 10_200.0, 1_000.0, 0.15, 1_000.0, 1_105 * CFM)
# 6.5 kW splitwise-sim [V]; 840 CFM [R]; the rest in the same proportion [I].
DGX_A100 = ServerKind("dgx-a100", 8, 6_500.0, 800.0, 0.15, 800.0, 840 * CFM)

GPUS = {kind.name: kind for kind in (H100, A100)}
SERVERS = {"h100": DGX_H100, "a100": DGX_A100}

ROW_W = 232e3  # of a row: splitwise-sim's cluster budget, 22 H100 servers at their rating [V]; as a row [I]
UPS_LOST = 0.75  # of the power left when one of four UPS is lost (4N/3) [R]
AHU_LOST = 0.90  # of the air left when an air handler is lost [R]


@dataclass(frozen=True, slots=True)
class InletLaw:
    """Air at a server's inlet from the weather and the datacentre's load: flat, then two slopes (TAPAS) [R]."""

    floor_c: float = 18.0  # [R]
    knots_c: tuple[float, float] = (15.0, 25.0)  # of the outside [R]
    slopes: tuple[float, float] = (0.6, 0.3)  # K per K between the knots, and above; only "flatter" is known [I]
    load_k: float = 2.0  # at full load of the datacentre [R]


@dataclass(frozen=True, slots=True)
class Spread:
    """How unlike one another devices of a kind are: standard deviations, drawn once."""

    row_k: float = 0.8  # of a row's inlet [I]: "offsets of a few C" [R]
    server_k: float = 1.0  # of a server's, beside its row's [I]
    resistance: float = 0.06  # of a GPU's heat path, relative: up to 10 C within a server under equal load [R]
    power: float = 0.02  # of a GPU's power at the same work, relative [I]


@dataclass(frozen=True, slots=True)
class SensorKind:
    """What a GPU's own sensors say. nvidia-smi watches a quarter of the time (2312.02741 [V]); noise [I]."""

    temp_step_c: float = 1.0  # whole degrees, downwards
    temp_sd_c: float = 0.4
    power_sd: float = 0.03  # relative
