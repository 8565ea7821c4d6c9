"""Benchmarks: each measures one thing beside a yardstick run in the same call, and names its goal.

A module here has `measure() -> list[dict]` with the keys name, value, unit, yardstick, ratio and goal, and runs by
itself with `python -m ops.bench.<module>`.
"""
