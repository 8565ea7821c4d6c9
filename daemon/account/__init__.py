"""The actor of one account, and everything that is true of an account as a whole.

`states` is the transition table, `status` derives what the API calls `sync_status`, `actor` owns the state and the
mailbox, `sync` is the child that holds the IMAP session, `accounts_store` is the SQL, `service` is what the API asks.
"""
