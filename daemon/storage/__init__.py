"""PostgreSQL for the whole daemon: psycopg natively on Trio, one pool behind one gate, an embedded server, migrations.

    embedded ──conninfo──► migrate, once, before anything else
                  └──────► Database ─► Pool ─► TrioConnection ─► libpq
                             ▲  the gate: shut while the server is away, opened by its own probe
          domains' *_store modules, by `run` (repeatable work, fenced) or `transaction`

Domains write SQL in their `*_store` modules and get a connection from `Database`; nothing here knows a domain's tables
but `fence`, which reads `claims`.
"""
