"""`python -m benchmarks.postgres`: embstore on PostgreSQL beside plain psycopg, pgvector and LangChain over PostgreSQL.

All take turns in one run, on a server of this run's own with fsync on (from the extra `dev`), or on the one that
EMBSTORE_TEST_POSTGRES names. What each gives is compared with what it was given. A case that is run takes the place of
what the JSON has of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import machine, report
from benchmarks.goals import Goal, evaluate
from benchmarks.postgres import tables
from benchmarks.postgres.cases import CASES
from benchmarks.postgres.server import Server, running
from benchmarks.settings import Settings

RESULTS = Path(__file__).parents[1] / "results" / "postgres.json"
PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
PACKAGES = ("numpy", "psycopg", "psycopg-binary", "pgvector", "SQLAlchemy", "langchain-classic", "langchain-community")
QUICK = Settings(documents=100, rounds=1)
ROUNDS = 5

GOALS = tuple(Goal(case, "rows a second / bare psycopg, COPY", ">=", 0.8) for case in ("fill", "bulk"))


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    cases = report.read(options.json) if options.json else {}
    if options.page:
        tables.write_into(PAGE, cases, report.read(RESULTS.with_name("benchmarks.json")))
        return 0
    settings = QUICK if options.quick else Settings(rounds=options.rounds)
    run: report.Cases = {}
    with running() as server:
        for name in options.cases or CASES:
            run[name] = _run(name, settings, server)
            print("\n".join(report.case_lines(name, run[name])), flush=True)
            if options.json:  # at once: a run that is interrupted leaves what was measured
                report.write(options.json, {**cases, **run}, GOALS)
    print("\n".join(report.goal_lines([outcome for outcome in evaluate(run, GOALS) if outcome.goal.case in run])))
    return 0


def _run(name: str, settings: Settings, server: Server) -> dict[str, object]:
    began = time.perf_counter()
    result = CASES[name](settings, server).as_json()
    asked = {"documents": settings.documents, "rounds": settings.rounds, "seconds": round(time.perf_counter() - began)}
    return {**result, "run": {**machine.describe(PACKAGES), "server": server.describe(), **asked}}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; by default all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="few documents, one round, no file: does it all run?")
    parser.add_argument("--json", type=Path, help="default benchmarks/results/postgres.json")
    parser.add_argument(
        "--page", action="store_true", help="run nothing; write the tables of the JSON into docs/scale.md"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    options.json = options.json or (None if options.quick else RESULTS)
    return options


if __name__ == "__main__":
    sys.exit(main())
