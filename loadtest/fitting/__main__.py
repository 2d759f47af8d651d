"""`python -m loadtest.fitting --data DIR`: every packaged profile of headrace.profiles, written anew; deterministic.

DIR holds aiconfigurator/, mlenergy_v3_configs.csv.gz and the tables that the report compares with. Needs pyarrow.
"""

import argparse
from pathlib import Path

from headrace.profiles import gpu, model, packaged
from loadtest.fitting import calibrate, encoders, llms, report
from loadtest.fitting.shapes import LLMS, QWEN3_32B, TOWERS, llm_named
from loadtest.fitting.tables import Tables
from loadtest.fitting.toml_text import llm_text

MEASURED = ("a100", "h100")  # GPUs with kernel tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.fitting", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public tables")
    parser.add_argument("--out", type=Path, default=Path("libs/headrace/profiles"), help="where the profiles go")
    parser.add_argument("--report", type=Path, help="also write the table of errors and cross-checks here (Markdown)")
    asked = parser.parse_args()
    tables = {name: Tables(asked.data / "aiconfigurator", name) for name in MEASURED}
    engine = calibrate.engine(asked.data, tables["h100"], gpu("h100").memory_bytes_per_s)
    profiles = _llms(tables, engine)
    for profile in profiles:
        _write(asked.out / profile.gpu / f"{profile.llm.stem}.toml", llm_text(profile))
    _encoders(asked.out, tables, {profile.llm.stem: profile for profile in profiles if profile.gpu == "a100"})
    if asked.report:
        _write(asked.report, report.markdown(asked.data, engine, profiles))


def _llms(tables: dict[str, Tables], engine: calibrate.Engine) -> list[llms.LlmProfile]:
    found = [llms.fitted(llm, gpu(name), tables[name], engine) for name in MEASURED for llm in LLMS]
    base = {profile.llm.stem: profile for profile in found if profile.gpu == "a100"}
    found += [llms.scaled(llm, gpu("a10"), base[llm.stem], gpu("a100")) for llm in LLMS]
    # For comparison with measured runs: one instance each.
    found.append(llms.scaled(llm_named("llama-3.1-8b"), gpu("rtx-4090"), base["llama-3.1-8b"], gpu("a100"), (1,)))
    qwen = llms.fitted(QWEN3_32B, gpu("h100"), tables["h100"], engine)
    found += [qwen, llms.scaled(QWEN3_32B, gpu("rtx-pro-6000"), qwen, gpu("h100"), (1,))]
    return [profile for profile in found if profile.parts]


def _encoders(out: Path, tables: dict[str, Tables], a100_llms: dict[str, llms.LlmProfile]) -> None:
    a100 = gpu("a100")
    cpu = encoders.preprocess(a100_llms)
    cards = [model(name) for name in packaged("models")]
    for tower in TOWERS:
        users = [card for card in cards if card.encoder == tower.stem]
        calibration = encoders.scales(tower, users, a100, a100_llms, cpu)
        faster = 1 / encoders.slower(tower, tables["h100"], tables["a100"])
        by_rate = a100.tensor_flops_per_s / gpu("a10").tensor_flops_per_s
        for name, factor, how in (
            ("a100", 1.0, ""),
            ("h100", faster, f"; an H100's products take {faster:.2f} of an A100's (aiconfigurator's GEMM tables [M])"),
            ("a10", by_rate, f"; {by_rate:.2f} times longer on an A10, by the data sheets' tensor rates"),
        ):
            text = encoders.encoder_text(tower, gpu(name), a100, factor, how, cpu, calibration)
            _write(out / name / f"{tower.stem}.toml", text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
