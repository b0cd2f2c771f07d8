"""Benchmarks: seeded, warmed up, competitors in turn in one run, medians, percentiles and ratios."""
