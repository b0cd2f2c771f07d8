"""The README promises what the fault suite has shown, and gives its counts."""

from __future__ import annotations

import pytest

from tests.faults.readme import PROMISES, README, promises
from tests.faults.tally import read_results

# How much was done, and what a fault is to bring about; whatever else is counted must not have happened.
DONE = """
rounds calls cycles cases files places reads acts forks processes threads upserts keys rows batches swaps jumps
seconds executions copies copies_begun damaged_files repaired_files kept_rows lost_rows_named lost_rows
with_rows_lost_or_unreadable files_that_may_hold_removed_rows acknowledged_batches acknowledged_meanwhile
begun_anew killed_while_rolling_back slowest_open_ms interrupted interrupted_with_some_stored refused
refused_writes failed_calls successes unconfirmed_writes memory_growth_kib file_kib chosen_modes older_files
unfinished_transactions_refused new_files_refused control_batches_lost_to_a_rogue_open write_ahead_logs_refused
write_ahead_logs_used network_file_systems_refused rounds_that_lost_batches
"""
DONE_OF = {
    "a system call fails": {"errors"},
    # By the process that was killed; the next one rolls back what they hold.
    "killed while another's journal is rolled back": {"journals_left"},
    "killed while compacting": {"journals_left"},
    "killed while migrating": {"journals_left"},
    "killed while writing": {"journals_left"},
    "power lost while writing": {"journals_left"},
}

RESULTS = read_results()


def test_the_readme_gives_the_counts_of_the_last_whole_run() -> None:
    assert promises(RESULTS) in README.read_text(encoding="utf-8")


def test_each_fault_that_was_counted_stands_with_a_promise() -> None:
    assert sorted(fault for faults in PROMISES.values() for fault in faults) == sorted(RESULTS)


@pytest.mark.parametrize("fault", sorted(RESULTS))
def test_what_must_not_happen_did_not(fault: str) -> None:
    done = set(DONE.split()) | DONE_OF.get(fault, set())
    assert {name: n for name, n in RESULTS[fault].items() if n and name not in done} == {}


def test_without_fsync_each_power_cut_loses_batches() -> None:
    control = RESULTS["power lost, control without fsync"]
    assert control["rounds_that_lost_batches"] == control["rounds"]
