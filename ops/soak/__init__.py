"""Campaigns: a real daemon under attack, replayable by a seed, and what must hold checked at the end.

    python -P -m ops.soak [campaign] [--seed N] [--minutes N] [--accounts N] [--points N] [--quick] [--json FILE]

    faults    mail comes and goes while connections, databases and daemons die; at the end store equals server
              (plan says what happens when, actions does it, proxy is the network that fails, verify compares)

`campaign` is what each is given and gives back, `daemon_process` the daemon they attack,
`samples` what it holds over time.
"""
