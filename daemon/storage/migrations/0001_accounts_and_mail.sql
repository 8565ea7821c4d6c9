-- The schema that everything stands on.  Rules that hold throughout:
--   * wrong states are impossible here, not merely avoided in the code: constraints and partial unique indexes;
--   * times are timestamptz and come from the database's clock (now()), so that nodes need not agree on theirs;
--   * an identifier that the API shows is a UUID or a prefixed text; inner ones are bigint;
--   * nothing newer than PostgreSQL 15.

-- Who uses the engine, as their verified session tokens say.
CREATE TABLE users (
    id          text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    email       text NOT NULL CHECK (length(email) <= 254),
    email_normal text NOT NULL CHECK (length(email_normal) <= 1000),
    name        text NOT NULL CHECK (length(name) <= 254),
    plan        text NOT NULL CHECK (length(plan) BETWEEN 1 AND 63),
    created_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX users_email_normal ON users (email_normal);

-- One connected mailbox.  `desired` is what the owner asked, `state` what runs; one loop reconciles the two.
CREATE TABLE accounts (
    id              uuid PRIMARY KEY,
    owner_id        text NOT NULL REFERENCES users (id),
    email           text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    email_normal    text NOT NULL CHECK (length(email_normal) BETWEEN 3 AND 1000),
    name            text NOT NULL CHECK (length(name) <= 254),
    imap_host       text NOT NULL CHECK (length(imap_host) BETWEEN 1 AND 253),
    imap_port       integer NOT NULL CHECK (imap_port BETWEEN 1 AND 65535),
    imap_security   text NOT NULL CHECK (imap_security IN ('tls', 'starttls')),
    smtp_host       text NOT NULL CHECK (length(smtp_host) BETWEEN 1 AND 253),
    smtp_port       integer NOT NULL CHECK (smtp_port BETWEEN 1 AND 65535),
    smtp_security   text NOT NULL CHECK (smtp_security IN ('tls', 'starttls')),
    username        text NOT NULL CHECK (length(username) BETWEEN 1 AND 320),
    -- Sealed by the vault: a data key of this account, wrapped by the key ring, and what it seals.  Gone with the account.
    data_key        bytea,
    password_sealed bytea,
    credentials_version integer NOT NULL DEFAULT 1 CHECK (credentials_version > 0),
    refused_version integer,                -- the version of the credentials that a server refused for good
    is_default      boolean NOT NULL DEFAULT false,
    daily_limit     integer CHECK (daily_limit >= 0),
    desired         text NOT NULL DEFAULT 'running' CHECK (desired IN ('running', 'paused', 'removed')),
    -- Actual state, written by the account's actor under its claim.
    state           text NOT NULL DEFAULT 'new'
                    CHECK (state IN ('new', 'connecting', 'syncing', 'watching', 'retrying', 'parked', 'stopped')),
    state_code      text CHECK (length(state_code) <= 64),
    state_reason    text CHECK (length(state_reason) <= 500),
    state_since     timestamptz NOT NULL DEFAULT now(),
    trouble_since   timestamptz,            -- since when it has not been up to date because of a fault
    retry_at        timestamptz,            -- when the next attempt is due
    first_synced_at timestamptz,            -- when the first sync was complete
    last_synced_at  timestamptz,            -- when it was last known to be up to date
    last_contact_at timestamptz,            -- when its IMAP server was last heard: the proof of life
    proof_until     timestamptz,            -- until when that proof is fresh
    new_messages    bigint NOT NULL DEFAULT 0 CHECK (new_messages >= 0),  -- arrived since the first sync
    -- POST /mail/sync: the last request and the run that served it.
    sync_requested_at timestamptz,
    sync_served_at  timestamptz,
    sync_new_messages integer NOT NULL DEFAULT 0 CHECK (sync_new_messages >= 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    connected_at    timestamptz NOT NULL DEFAULT now(),
    removed_at      timestamptz,
    CHECK ((desired = 'removed') = (removed_at IS NOT NULL)),
    CHECK (desired = 'removed' OR (data_key IS NOT NULL AND password_sealed IS NOT NULL)),
    CHECK (NOT (desired = 'removed' AND is_default)),
    CHECK ((state IN ('retrying', 'parked')) <= (state_reason IS NOT NULL))
);
-- One live account per owner and address, one default account per owner, one live account per mailbox.
CREATE UNIQUE INDEX accounts_one_per_address ON accounts (owner_id, email_normal) WHERE desired <> 'removed';
CREATE UNIQUE INDEX accounts_one_default ON accounts (owner_id) WHERE is_default;
CREATE UNIQUE INDEX accounts_one_per_mailbox ON accounts (lower(imap_host), username) WHERE desired <> 'removed';
CREATE INDEX accounts_owner ON accounts (owner_id, created_at);

-- Who may see an account; the owner has a row too.  Every query that an API handler makes joins this table.
CREATE TABLE account_access (
    account_id  uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    user_id     text NOT NULL REFERENCES users (id),
    role        text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, user_id)
);
CREATE UNIQUE INDEX account_access_one_owner ON account_access (account_id) WHERE role = 'owner';
CREATE INDEX account_access_user ON account_access (user_id);

-- The nodes and what they run.  A claim holds while its owner's row is fresh; nothing else updates claims but claim,
-- release and takeover, so that the fence (FOR SHARE on a claim) never meets another write.
CREATE TABLE nodes (
    id          uuid PRIMARY KEY,
    name        text NOT NULL CHECK (length(name) <= 255),
    version     text NOT NULL CHECK (length(version) <= 64),
    capacity    integer NOT NULL CHECK (capacity > 0),
    started_at  timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
CREATE TABLE claims (
    account_id  uuid PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    owner       uuid,                       -- a node, which may be gone: then the claim is anybody's
    epoch       bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    claimed_at  timestamptz
);
CREATE INDEX claims_owner ON claims (owner);

-- Requests to the node that runs an account: written in the transaction they tell of, removed when it took them.
CREATE TABLE commands (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('changed', 'sync')),
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX commands_account ON commands (account_id);

-- An IMAP folder and its cursor.  Invariant: the store holds everything that the server said up to this cursor, that is
-- every message with backfill_below <= UID < uidnext, as it was at highestmodseq or later.
CREATE TABLE folders (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 1000),
    delimiter       text CHECK (length(delimiter) <= 4),
    special_use     text CHECK (length(special_use) <= 64),
    method          text NOT NULL DEFAULT 'uid_diff' CHECK (method IN ('qresync', 'condstore', 'uid_diff')),
    demoted         text CHECK (demoted IN ('condstore', 'uid_diff')),  -- the server contradicted itself: no rung above
    demoted_reason  text CHECK (length(demoted_reason) <= 500),
    uidvalidity     bigint CHECK (uidvalidity BETWEEN 1 AND 4294967295),
    uidnext         bigint CHECK (uidnext BETWEEN 1 AND 4294967296),
    highestmodseq   bigint CHECK (highestmodseq > 0),
    backfill_below  bigint CHECK (backfill_below BETWEEN 1 AND 4294967296),  -- 1: nothing is left to fetch below
    resyncs         integer NOT NULL DEFAULT 0 CHECK (resyncs >= 0),         -- UIDVALIDITY changes in a row
    messages_total  bigint NOT NULL DEFAULT 0 CHECK (messages_total >= 0),   -- progress of the first sync
    messages_done   bigint NOT NULL DEFAULT 0 CHECK (messages_done >= 0),
    bytes_done      bigint NOT NULL DEFAULT 0 CHECK (bytes_done >= 0),
    synced_at       timestamptz,            -- when it was last compared and equal
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, name),
    CHECK ((uidvalidity IS NULL) = (uidnext IS NULL) AND (uidvalidity IS NULL) = (backfill_below IS NULL)),
    CHECK (backfill_below <= uidnext)
);

-- What was said: one row a message, wherever it lies.
CREATE TABLE messages (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    message_id      text,                   -- the Message-ID header, without its angle brackets
    in_reply_to     text,
    reference_ids   text[] NOT NULL DEFAULT '{}',
    subject         text NOT NULL DEFAULT '',
    sender          jsonb NOT NULL DEFAULT '[]',   -- [{"name", "email"}]: From
    recipients      jsonb NOT NULL DEFAULT '{}',   -- {"to": [...], "cc": [...], "bcc": [...], "reply_to": [...]}
    sent_at         timestamptz,            -- the Date header, where it is a date
    received_at     timestamptz,            -- INTERNALDATE, where the server gave a date
    size            bigint NOT NULL CHECK (size >= 0),
    has_attachments boolean NOT NULL DEFAULT false,
    body_state      text NOT NULL CHECK (body_state IN ('stored', 'too_large', 'unreadable')),
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX messages_account_received ON messages (account_id, received_at DESC, id);
CREATE INDEX messages_account_message_id ON messages (account_id, message_id);

-- Its bytes, in parts of bounded size so that no message is ever held whole in memory.  STORAGE EXTERNAL: uncompressed
-- is 2.7 times as fast to load as pglz, and mail is mostly base64, which compresses badly.
CREATE TABLE bodies (
    message_id  uuid NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    part        integer NOT NULL CHECK (part >= 0),
    data        bytea NOT NULL,
    PRIMARY KEY (message_id, part)
);
ALTER TABLE bodies ALTER COLUMN data SET STORAGE EXTERNAL;

-- Where it lies: folder, UID and flags.  Moves and labels are changes of placement.
CREATE TABLE placements (
    folder_id   bigint NOT NULL REFERENCES folders (id) ON DELETE CASCADE,
    uid         bigint NOT NULL CHECK (uid BETWEEN 1 AND 4294967295),
    message_id  uuid NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    flags       text[] NOT NULL DEFAULT '{}',
    modseq      bigint CHECK (modseq > 0),
    vanished_at timestamptz,                -- gone from the server; kept for a grace in which a move is recognised
    PRIMARY KEY (folder_id, uid)
);
CREATE INDEX placements_message ON placements (message_id);
CREATE INDEX placements_vanished ON placements (vanished_at) WHERE vanished_at IS NOT NULL;

-- After a UIDVALIDITY change every UID is void.  The old placements wait here, so that the messages under their new UIDs
-- are recognised (Message-ID, size, date) and keep our ids; what is not found again goes when the resync is complete.
CREATE TABLE former_placements (
    folder_id   bigint NOT NULL REFERENCES folders (id) ON DELETE CASCADE,
    message_id  uuid NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    uidvalidity bigint NOT NULL,
    PRIMARY KEY (folder_id, message_id)
);
CREATE INDEX former_placements_message ON former_placements (message_id);

-- A message that could not be read: skipped, recorded and visible; the folder goes on.
CREATE TABLE skipped_messages (
    folder_id   bigint NOT NULL REFERENCES folders (id) ON DELETE CASCADE,
    uidvalidity bigint NOT NULL,
    uid         bigint NOT NULL CHECK (uid BETWEEN 1 AND 4294967295),
    reason      text NOT NULL CHECK (length(reason) <= 500),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (folder_id, uid)
);

-- The outbox and the ledger in one: a send is one row for its whole life, its recipients are what a window counts.
CREATE TABLE sends (
    id              text PRIMARY KEY CHECK (id ~ '^msg_[0-9a-zA-Z]{8,64}$'),
    account_id      uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    user_id         text NOT NULL REFERENCES users (id),
    idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 128),
    request_hash    bytea NOT NULL CHECK (length(request_hash) = 32),
    state           text NOT NULL DEFAULT 'queued'
                    CHECK (state IN ('queued', 'sending', 'sent', 'deferred', 'failed', 'unknown')),
    sandbox         boolean NOT NULL DEFAULT false,
    header_message_id text NOT NULL,        -- the Message-ID by which an unknown send is settled by evidence
    message         bytea,
    reserved_at     timestamptz,            -- capacity is held from here until it settles
    accepted_at     timestamptz,            -- stamped at the server's acceptance: what a window counts
    next_attempt_at timestamptz,
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    settled_at      timestamptz,
    CHECK ((state IN ('sent', 'failed')) <= (settled_at IS NOT NULL)),
    CHECK (state <> 'sent' OR accepted_at IS NOT NULL)
);
CREATE UNIQUE INDEX sends_idempotent ON sends (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX sends_due ON sends (account_id, next_attempt_at) WHERE state IN ('queued', 'deferred');
CREATE INDEX sends_window ON sends (account_id, accepted_at);
CREATE TABLE send_recipients (
    send_id     text NOT NULL REFERENCES sends (id) ON DELETE CASCADE,
    address     text NOT NULL CHECK (length(address) BETWEEN 3 AND 254),
    kind        text NOT NULL CHECK (kind IN ('to', 'cc', 'bcc')),
    state       text NOT NULL DEFAULT 'queued'
                CHECK (state IN ('queued', 'accepted', 'refused', 'bounced', 'complained', 'delivered', 'suppressed')),
    reason      text CHECK (length(reason) <= 500),
    PRIMARY KEY (send_id, address)
);

-- Evidence of reputation: what a probe found, when, from which source, with its raw answer.
CREATE TABLE findings (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    probe       text NOT NULL CHECK (length(probe) BETWEEN 1 AND 64),
    subject     text NOT NULL CHECK (length(subject) <= 1000),
    verdict     text NOT NULL CHECK (verdict IN ('ok', 'fail', 'unknown')),
    source      text NOT NULL CHECK (length(source) <= 255),
    answer      jsonb NOT NULL DEFAULT '{}',
    found_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX findings_account ON findings (account_id, probe, found_at DESC);

CREATE TABLE invitations (
    id              text PRIMARY KEY CHECK (id ~ '^inv_[0-9a-zA-Z]{8,64}$'),
    account_id      uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    inviter_id      text NOT NULL REFERENCES users (id),
    invitee_email   text NOT NULL CHECK (length(invitee_email) BETWEEN 3 AND 254),
    invitee_normal  text NOT NULL CHECK (length(invitee_normal) BETWEEN 3 AND 1000),
    role            text NOT NULL CHECK (role IN ('admin', 'member')),
    status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'accepted', 'declined', 'revoked')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    settled_at      timestamptz,
    CHECK (expires_at > created_at),
    CHECK ((status = 'pending') = (settled_at IS NULL))
);
CREATE UNIQUE INDEX invitations_one_pending ON invitations (account_id, invitee_normal) WHERE status = 'pending';
CREATE INDEX invitations_invitee ON invitations (invitee_normal) WHERE status = 'pending';

CREATE TABLE api_keys (
    id          uuid PRIMARY KEY,
    user_id     text NOT NULL REFERENCES users (id),
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    key_hash    bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),   -- the key itself is shown once and never stored
    key_prefix  text NOT NULL CHECK (key_prefix ~ '^msk_[0-9a-f]{8}$'),
    scopes      text[] NOT NULL DEFAULT '{}',
    allowed_account_id uuid REFERENCES accounts (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz,
    last_used_at timestamptz
);
CREATE INDEX api_keys_user ON api_keys (user_id);

-- Which accounts have active campaigns, told by the campaign system; behind the 403 on disconnecting.
CREATE TABLE campaigns (
    user_id     text NOT NULL REFERENCES users (id),
    id          text NOT NULL CHECK (length(id) BETWEEN 1 AND 255),
    account_id  uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    status      text NOT NULL CHECK (status IN ('active', 'paused', 'completed')),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, id)
);
CREATE INDEX campaigns_account ON campaigns (account_id);

-- What happened, written in the transaction it tells of.  Readers order by (xid, id) and read only below the xmin of
-- their snapshot: a transaction that commits late is then never skipped.
CREATE TABLE events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    type        text NOT NULL CHECK (type ~ '^[a-z]+\.[a-z_]+$' AND length(type) <= 64),
    account_id  uuid REFERENCES accounts (id) ON DELETE CASCADE,
    data        jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_order ON events (xid, id);
CREATE INDEX events_account ON events (account_id, xid, id);
