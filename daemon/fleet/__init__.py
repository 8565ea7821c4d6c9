"""Which accounts this node runs: claim, start, stop, share with the other nodes.

`share` decides (pure), `claims_store` is the SQL of nodes and claims, `membership` keeps this node's heartbeat, `fleet`
reconciles what the database says with what runs here.
"""
