"""Campaigns: a real daemon under attack, replayable by a seed, and what must hold checked at the end.

    python -P -m ops.soak [campaign] [--seed N] [--minutes N] [--accounts N] [--points N] [--quick] [--json FILE]

    bulkheads dead, deaf, flooding and lying hosts by the hundred: the others' new mail comes as quickly as without them
              (pushes measures that by pushes_child, bulkheads_states watches what accounts say, bulkheads_expected is
              what is true)
    faults    mail comes and goes while connections, databases and daemons die; at the end store equals server
              (plan says what happens when, actions does it, proxy is the network that fails, verify compares)
    http      malformed requests on raw sockets, while good clients must be served (http_cases, http_framing and
              http_targets make them, http_run sends them, http_answers judges what comes back, http_daemon is what
              they are sent to)
    kills     SIGKILL at random points of first synchronisations and in a storm of mail (kill_points says when,
              database_faults does it, storm is the mail, peek what must hold meanwhile, settle what must in the end,
              kills_run what is under way)
    parsers   generated inputs for everything that reads strangers' bytes (parsers_corpora and parsers_inputs make
              them, parsers_mail and parsers_web read them, parsers_measure measures, parsers_streams are servers)
    sharing   several users share accounts, a few at once, held against a model, also while the daemon and its database
              are killed (sharing_model is what must happen, sharing_seen what everybody must be shown, sharing_client
              asks and looks over HTTP, sharing_play chooses and compares, sharing_store lets time pass)
    schema    Schemathesis looks for answers that the API's document does not promise, for an owner, for those they
              share with, and for a stranger who knows all ids (schema_world is what there is to be asked for,
              schema_asks runs it, schema_answers reads what was answered)
    throttling
              many accounts of a provider that lets few in at a time: they are paced, and all get in
    stops     ended in order, at once, and with the database away, with many accounts (stops_stage is who plays,
              stops_watch what is looked at)

`campaign` is what each is given and gives back, `daemon_process` the daemon they attack, `life` how it begins and must
end, `samples` what it holds over time.
"""
