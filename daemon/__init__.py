"""What one node does: keep its accounts connected, synced and within their limits.

    __main__                      the composition root: the only file that sees everything
    health                        what the operator is told of it
    preflight, state              tries what the settings name; the state directory and its secrets
    fleet                         which accounts this node runs
    account                       the actor of one account, where everything about it meets
    sharing                       who may do what with an account: roles, invitations, the audit
    imap, smtp                    the two protocols
    sending                       what an account may send, and what its provider allows
    messages, identity            stored mail; users and plans
    events                        one ordered log of what happened
    network, storage, vault, telemetry   the ground: connections, PostgreSQL, sealed credentials, metrics and logs
    settings, names, errors       read by all; settings_values are its types, settings_errors its sentences

Each imports only what stands below it; the arrows are enforced by import-linter.
"""

from .telemetry.lean import import_lean

import_lean()
