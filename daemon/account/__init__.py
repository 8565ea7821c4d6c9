"""The actor of one account, and everything that is true of an account as a whole.

    states, status, commands      the transition table; what the API calls `sync_status`; what an actor is told
    tree ──► actor, sync          the supervision tree: who owns the state, who holds the IMAP session
    judging                       how ends of the sync child are judged
    pacing ──► turns, host_pace   what all accounts together may do at once; how often a host may be asked
    proofs                        what only says that quiet accounts still are, stored for all together
    rounds, behind                how often one account's news are acted on; who is behind leaves room for others
    accounts_store                the SQL of the actor and its node
    service, views, access_store  what the API asks, in values, and its SQL, scoped by the caller
    owning_store                  the SQL of connecting and disconnecting
    caller_rates                  how often callers may do what others feel, too
    verifying                     asking both servers of a mailbox whether they accept its credentials
    changing, changes_store       changing an account, and its SQL
    campaigns, campaigns_store    which campaigns are active, and its SQL
    reputation_store              what accounts have sent and may send
    listing, list_store           the list of each user, kept as shown and brought up to date by what changed

The API and the actor meet in the database only: what is asked is written there, and the actor reads it.
"""
