"""Benchmarks: each measures something beside a yardstick run in the same call, and names its goal.

    python -P -m ops.bench [names...] [--quick] [--json FILE]

    first_sync    a mailbox of 20,000 messages into PostgreSQL, beside a raw drain and mbsync
    fleet         idle_memory, start and push of many accounts, beside bare sessions (fleet_child is the program)
    api           GET /mail/accounts, beside a bare route (api_child is the program)
    resident      the daemon with no account
    actors        an idle supervised actor, beside a bare task (idle_actors brings it into the others' form)

`result` is what a measurement says, `report` how it is printed and written; `place` starts the servers, `accounts`
puts accounts into the database as connecting them would.  What is measured for memory or start-up runs in a fresh
process (`child`), for memory freed by one measurement would serve the next.
"""
