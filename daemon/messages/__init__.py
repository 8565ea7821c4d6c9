"""Stored mail: what was said (messages and their bodies) apart from where it lies (placements).

`headers` reads the few header fields a list shows and `addresses` the lists of addresses among them, `incoming` is what
the sync hands over, `messages_store` writes batches, `placements_store` moves flags, disappearances and recognised
messages.
"""
