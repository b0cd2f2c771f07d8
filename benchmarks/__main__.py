"""`python -m benchmarks`: embstore beside other caches, and beside the least that each task can cost.

All take turns in one run, the encoder takes no time, and what each gives is compared with what it was given. A
competitor that is not installed is left out by name; the extra `bench` has all. The cases million and growth are run
where they are named. A case that is run takes the place of what the JSON has of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine, picture, report, tables
from benchmarks.cases import APART, CASES
from benchmarks.goals import evaluate
from benchmarks.settings import DOCUMENTS, Settings

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
QUICK = Settings(documents=500, rounds=3)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    cases = report.read(options.json) if options.json else {}
    if options.markdown or options.readme or options.redraw:
        return _show(options, cases)
    settings = Settings(options.documents, options.rounds)
    run: report.Cases = {}
    for name in options.cases or [name for name in CASES if name not in APART]:
        run[name] = _run(name, settings)
        print("\n".join(report.case_lines(name, run[name])), flush=True)
        if options.json:  # at once: a run that is interrupted leaves what was measured
            report.write(options.json, {**cases, **run})
    if options.picture:
        _draw({**cases, **run}, options.picture)
    outcomes = [outcome for outcome in evaluate(run) if outcome.goal.case in run]
    print("\n".join(report.goal_lines(outcomes)))
    return 1 if options.strict and any(outcome.verdict == "missed" for outcome in outcomes) else 0


def _show(options: argparse.Namespace, cases: report.Cases) -> int:
    """Show what was measured before, without running anything."""
    if options.markdown:
        print(tables.markdown(cases))
    if options.readme:
        tables.write_into(README, cases)
    if options.redraw:
        picture.draw(cases, options.picture)
    return 0


def _run(name: str, settings: Settings) -> dict[str, object]:
    """Run a case in a folder of its own, and note on what and with what."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        result = CASES[name](settings, Path(folder)).as_json()
    taken = round(time.perf_counter() - began)
    asked = {"documents": settings.documents, "rounds": settings.rounds, "seconds": taken}
    return {**result, "run": {**machine.describe(), **asked}}


def _draw(cases: report.Cases, file: Path) -> None:
    try:
        picture.draw(cases, file)
    except ImportError as error:
        print(f'skipped: the picture ({error}); pip install "embstore[bench]"')


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; by default all but the last two"
    )
    parser.add_argument("--documents", type=int, help=f"all sizes in proportion to this; default {DOCUMENTS}")
    parser.add_argument("--rounds", type=int, help="default 7")
    parser.add_argument("--quick", action="store_true", help="few documents and rounds, and no files: does it all run?")
    parser.add_argument("--json", type=Path, help="default benchmarks/results/benchmarks.json")
    parser.add_argument("--picture", type=Path, help="default benchmarks/results/benchmarks.png")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a goal is missed")
    parser.add_argument("--markdown", action="store_true", help="run nothing; print the README's tables of the JSON")
    parser.add_argument("--readme", action="store_true", help="run nothing; write those tables into the README")
    parser.add_argument("--redraw", action="store_true", help="run nothing; draw the picture of the JSON")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    whole = not options.quick and options.documents is None  # figures of other sizes are not kept unasked
    options.json = options.json or (RESULTS / "benchmarks.json" if whole else None)
    options.picture = options.picture or (RESULTS / "benchmarks.png" if whole else None)
    defaults = QUICK if options.quick else Settings()
    options.documents = options.documents or defaults.documents
    options.rounds = options.rounds or defaults.rounds
    return options


if __name__ == "__main__":
    sys.exit(main())
