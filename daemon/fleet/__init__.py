"""Which accounts this node runs: claim, start, stop, share with the other nodes.

    node              who this process is, over its restarts
    share             how many of all accounts are ours (pure)
    claims_store      the SQL of nodes and claims
    fleet             reconciles what the database says with what runs here
    gauges            what a node is like at a scrape

Nodes meet in the database only.
"""
