"""The concepts' pictures: python deploy/docs/pictures.py writes docs/pictures/*.svg."""

from pathlib import Path

from drawing import Picture

OUT = Path(__file__).parents[2] / "docs/pictures"


def mesh() -> Picture:
    p = Picture(520, "The mesh: a gateway, a journal, a queue manager, three stages of workers, a governor")
    p.box(150, 8, 180, 40, "OpenAI client, SDK", colour="a")
    p.arrow((240, 48), (240, 92), colour="a")
    p.words(248, 75, "HTTP, gRPC", "d")
    p.box(120, 92, 240, 56, "gateway", "checks, counts tokens, streams")
    p.arrow((190, 148), (130, 200), colour="c")
    p.words(8, 178, "accepted: journaled", "d")
    p.box(8, 200, 164, 56, "NATS JetStream", "journal, results", colour="c")
    p.arrow((172, 228), (208, 228), colour="c")
    p.box(208, 200, 176, 56, "queue manager", "one queue that plans")
    for x, to in ((240, 72), (290, 240), (340, 396)):
        p.arrow((x, 256), (to, 326))
    p.words(248, 300, "work", "d e")
    for x, name, does in (
        (8, "encoder", "media to rows"),
        (176, "prefill", "first token"),
        (344, "decode", "the others"),
    ):
        p.box(x, 326, 128, 60, name, does, colour="b")
    p.arrow((136, 356), (176, 356), colour="v")
    p.arrow((304, 356), (344, 356), colour="v")
    p.words(156, 404, "embeddings", "d m")
    p.words(324, 404, "KV cache", "d m")
    p.arrow((450, 326), (450, 120), (360, 120), colour="b")
    p.words(444, 180, "tokens", "d e")
    p.arrow((72, 386), (72, 452), colour="c", both=True)
    p.arrow((240, 386), (240, 452), colour="c", both=True)
    p.words(156, 436, "telemetry, caps", "d m")
    p.arrow((428, 386), (428, 452))
    p.words(420, 436, "token log", "d e")
    p.box(8, 452, 296, 56, "governor", "keeps watts, air and temperatures", colour="c")
    p.box(344, 452, 128, 56, "Redis", "can be rebuilt")
    return p


LANES = {"gateway": 48, "queue": 144, "encoder": 240, "prefill": 336, "decode": 432}


def life() -> Picture:
    p = Picture(640, "One request's life, from the gateway through queue, encoder, prefill and decode to its end")
    for name, x in LANES.items():
        p.line((x, 40), (x, 592), waiting=True)
        p.box(x - 42, 8, 84, 32, name, colour="b" if name in ("encoder", "prefill", "decode") else "")
    p.box(4, 54, 160, 44, "", "checks, counts tokens,", "stores media, synced")
    _message(p, 126, "gateway", "queue", "journaled", "c")
    p.words(156, 122, "from here on it cannot be lost", "d h")
    _message(p, 164, "queue", "encoder", "media, at once", "a")
    _message(p, 200, "encoder", "queue", "ready", "k")
    p.box(84, 214, 204, 44, "", "joins a group; the groups stand", "in an instance's virtual queue")
    _message(p, 292, "queue", "prefill", "dispatch, with room at decode reserved", "a")
    _message(p, 330, "encoder", "prefill", "embeddings", "v")
    _message(p, 368, "prefill", "gateway", "first token", "b")
    _message(p, 406, "prefill", "decode", "KV cache", "v")
    _message(p, 444, "decode", "gateway", "tokens: one message an iteration", "b")
    _message(p, 482, "gateway", "queue", "", "k")
    p.words(96, 476, "cancel, attach", "d m h")
    _message(p, 520, "decode", "queue", "the end, with all tokens", "c")
    p.box(
        14, 536, 300, 44, "", "stores the end, deletes the journal's record,", "tells everybody to free what they hold"
    )
    p.words(240, 612, "A worker dies: the next attempt goes on at the token after the last", "d m h")
    p.words(240, 628, "one that was sent; nothing is sampled twice.", "d m h")
    return p


def _message(p: Picture, y: float, source: str, target: str, words: str, colour: str) -> None:
    start, end = LANES[source], LANES[target]
    p.arrow((start, y), (end, y), colour=colour)
    if words:
        p.words((start + end) / 2, y - 6, words, "d m h")


def queue() -> Picture:
    p = Picture(564, "The queue: requests form groups, groups stand in virtual queues, a plan orders them")
    p.words(8, 22, "requests whose inputs are ready", "t")
    for at, kind in enumerate("abacbaacvbacba"):
        p.block(8 + 34 * at, 34, 26, 20, f"f{kind}")
    p.words(8, 74, "a colour: one model, class, priority, target and size", "d")
    p.arrow((240, 84), (240, 112))
    p.words(8, 134, "groups", "t")
    for x, kind, count, name in (
        (8, "a", 4, "interactive, short"),
        (126, "b", 4, "interactive, long"),
        (244, "c", 3, "batch-1"),
        (362, "v", 1, "another model"),
    ):
        p.box(x, 146, 110, 56)
        for each in range(count):
            p.block(x + 8 + 24 * each, 154, 19, 18, f"f{kind}")
        p.words(x + 55, 192, name, "d m")
    p.arrow((240, 202), (240, 232))
    p.words(248, 222, "each where it costs least", "d")
    p.words(8, 252, "virtual queues: one for each instance", "t")
    for y, name, stands in ((264, "instance 0", "aac"), (330, "instance 1", "bv")):
        p.box(8, y, 464, 56)
        p.words(18, y + 33, name, "t")
        x = 112
        for at, kind in enumerate(stands):
            p.block(x, y + 12, 84, 32, f"f{kind}")
            p.words(x + 42, y + 32, ("next", "in 2.1 s", "in 9 s")[at], "m on")
            x += 92
        if "v" in stands:
            p.words(x + 6, y + 33, "loads the other model", "d")
    p.arrow((240, 420), (240, 388), colour="c")
    p.words(250, 409, "applied, if its instances are the same", "d")
    p.box(
        8,
        420,
        464,
        64,
        "plan",
        "every second, if somebody would be late:",
        "a search, and a mixed-integer program",
        colour="c",
    )
    for at, name in enumerate(("pull", "evict", "swap", "move", "balance")):
        p.box(8 + 94 * at, 504, 88, 30, name)
    p.words(240, 554, "what an instance does to keep the promises", "d m")
    return p


def handover() -> Picture:
    p = Picture(400, "A KV cache goes to the decode worker while prefill still computes it")
    p.words(8, 24, "prefill", "t")
    for at in range(3):
        p.box(8 + 84 * at, 34, 78, 34, "", f"chunk {at + 1}", colour="a")
    p.words(266, 56, "first token: to the client", "d")
    p.words(8, 100, "draft: a mapped file, layer by layer", "t")
    for at in range(8):
        p.block(146 + 13 * at, 110, 11, 34, "fv")
    p.block(252, 110, 11, 34, "fc")
    p.words(140, 131, "written front to back", "d e")
    p.words(272, 131, "sealed: size, checksum", "d")
    p.words(8, 176, "decode", "t")
    for at in range(4):
        p.arrow((158 + 30 * at, 146), (158 + 30 * at, 186), colour="v", waiting=True)
    p.box(146, 186, 117, 34, "", "pulls what is there", colour="v")
    p.arrow((258, 146), (300, 186), colour="c")
    p.box(270, 186, 62, 34, "", "verifies", colour="c")
    p.box(338, 186, 134, 34, "", "decodes", colour="b")
    p.words(140, 206, "offer", "d e")
    p.words(306, 238, "join", "d m")
    p.line((8, 256), (472, 256))
    p.arrow((440, 256), (472, 256))
    p.words(8, 272, "time", "d")
    p.box(8, 288, 228, 50, "one host", "the file is mapped: no copy")
    p.box(244, 288, 228, 50, "two hosts", "gRPC: fetched as it grows")
    p.words(240, 364, "An offer is a head start: lost or broken, the join pulls all of it.", "d m")
    p.words(240, 384, "Slots and blocks at decode were reserved before prefill began.", "d m")
    return p


def governor() -> Picture:
    p = Picture(520, "The governor reads sensors, keeps limits, and gives caps in a fixed order")
    p.box(8, 8, 140, 56, "devices", "NVML, RAPL, plant", colour="b")
    p.box(170, 8, 140, 56, "operator", "budget, emergency", colour="a")
    p.box(332, 8, 140, 56, "models", "learnt from telemetry")
    p.arrow((78, 64), (170, 104), colour="b")
    p.arrow((240, 64), (240, 104), colour="a")
    p.arrow((402, 64), (310, 104))
    p.words(8, 90, "once a second", "d")
    p.box(
        100,
        104,
        280,
        60,
        "governor",
        "rows within watts, aisles within air,",
        "GPUs within their temperature",
        colour="c",
    )
    p.arrow((240, 164), (240, 196), colour="c")
    p.words(248, 185, "who gives way, in this order", "d")
    steps = (
        ("1  idle devices", "clocks down: nobody notices"),
        ("2  decode", "waits for memory: loses next to nothing"),
        ("3  prefill, encode", "slower first tokens"),
        ("4  admission", "fewer are let in"),
    )
    for at, (name, why) in enumerate(steps):
        y, w = 200 + 48 * at, 464 - 56 * at
        p.box(8, y, w, 40, colour="c")
        p.words(20, y + 25, name, "t")
        p.words(w - 4, y + 25, why, "d e")
    p.arrow((80, 392), (80, 428), colour="c")
    p.words(88, 415, "caps, with a lease", "d")
    p.arrow((400, 344), (400, 428), colour="c")
    p.words(408, 370, "speeds,", "d")
    p.words(408, 385, "risk", "d")
    p.box(8, 428, 224, 56, "workers", "power limit, clocks", colour="b")
    p.box(248, 428, 224, 56, "queue manager", "expected waits, at once")
    p.words(240, 504, "Without word, workers fall back to shares of the limit.", "d m")
    return p


def core() -> Picture:
    p = Picture(444, "The live services and the simulator drive the same core")
    p.box(120, 8, 240, 66, "scenario, trace, profile", "who asks what; what a GPU takes", "read by both", colour="a")
    p.arrow((150, 74), (90, 112), colour="a")
    p.arrow((330, 74), (390, 112), colour="a")
    p.box(8, 112, 168, 80, "live", "processes, NATS, Redis,", "real time", colour="b")
    p.box(304, 112, 168, 80, "simulator", "an agenda; a day", "on 128 GPUs in minutes", colour="v")
    p.box(70, 236, 340, 116, colour="c")
    p.words(240, 260, "core", "t m")
    p.words(240, 280, "queue, planner, orders, batches, routing,", "d m")
    p.words(240, 296, "autoscaler, governor, thermal control, cost", "d m")
    p.words(240, 322, "no clock, no I/O, no randomness of its own:", "d m")
    p.words(240, 338, "time is an argument", "d m")
    p.arrow((80, 192), (110, 236), colour="b")
    p.arrow((150, 236), (130, 192), colour="b")
    p.arrow((400, 192), (370, 236), colour="v")
    p.arrow((330, 236), (350, 192), colour="v")
    p.words(240, 210, "events in, effects out", "d m")
    p.box(70, 384, 340, 48, "tape", "live processes replayed: every effect equal")
    p.arrow((240, 352), (240, 384))
    return p


PICTURES = {each.__name__: each for each in (mesh, life, queue, handover, governor, core)}

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (OUT / f"{name}.svg").write_text(draw().svg())
