"""What the operator sees: metrics, logs, and systemd's notification protocol.

`metrics` declares every metric once, `logs` sets up the log, `systemd` speaks sd_notify and keeps the watchdog alive,
`loop` measures how late the event loop is, `lean` imports the log's library without what it would bring along.
"""
