"""PostgreSQL for the whole daemon: psycopg natively on Trio, one pool behind one gate, an embedded server, migrations.

    embedded ──conninfo──► migrate, once, before anything else
                  └──────► Database ─► Pool ─► TrioConnection ─► libpq
                             ▲  the gate: shut while the server is away, opened by its own probe
          domains' *_store modules, by `run` (repeatable work, fenced) or `transaction`

    database, gate, pool          the way in: the gate, and the connections behind it
    transaction, fence, faults    time limits; proof of ownership; which errors mean that the server is away
    together, requests            small work of many accounts in one transaction; requests, who wait for a bounded time
    upkeep                        the root's child that brings the schema up to date and watches the gate
    connection, waiting           psycopg's driver on Trio, and how it waits for a socket
    conninfo, migrate, identity   connection strings completed; numbered SQL files; a restore into another server
    embedded, cluster, places     the server as a child; its data directory; where its sockets and files may lie
    binaries, leftover, server_log   whose binaries it runs; what a killed daemon left behind; its lines in our log

Domains write SQL in their `*_store` modules and get a connection from `Database`; nothing here knows a domain's tables
but `fence`, which reads `claims`, and `identity`, which lets `events` go on behind what a restore brought.
"""
