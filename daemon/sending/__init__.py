"""What an account may send, and how much of it: the limits that its provider and its owner set.

providers     what providers allow one mailbox in 24 hours, by host; data with the source of every number
limits        the effective limit: the least of those that hold; pure
"""
