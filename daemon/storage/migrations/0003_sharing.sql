-- Sharing: what the first schema had no room for.

-- A fleet goes on meanwhile.  To lock its tables one by one, with work between, each time more strongly, would deadlock
-- with whoever has the next one already.  So all are locked before the first is touched; `claims` first, as each fenced
-- transaction does, which otherwise takes them in any order.
LOCK TABLE claims, accounts, folders, former_placements, invitations IN ACCESS EXCLUSIVE MODE;

-- An invitation whose time is over makes room for another to the same address.
ALTER TABLE invitations DROP CONSTRAINT invitations_status_check;
ALTER TABLE invitations ADD CONSTRAINT invitations_status_check
    CHECK (status IN ('pending', 'accepted', 'declined', 'revoked', 'expired'));

-- Who did what to which account, when, and from where; written in the transaction that does it.  Whoever did it is named
-- and not referred to: an entry outlives its user, and takes no lock on their row.
CREATE TABLE audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    at          timestamptz NOT NULL DEFAULT now(),
    user_id     text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 255),
    user_email  text NOT NULL CHECK (length(user_email) <= 254),
    client      text NOT NULL CHECK (length(client) <= 64),
    request     uuid UNIQUE,                -- of a request that may be carried out twice, by which it is known
    action      text NOT NULL CHECK (action ~ '^[a-z]+\.[a-z_]+$' AND length(action) <= 64),
    detail      jsonb NOT NULL DEFAULT '{}' CHECK (pg_column_size(detail) <= 8192)
);
CREATE INDEX audit_account ON audit (account_id, id DESC);
CREATE INDEX audit_at ON audit (at);

-- An owner who has accounts has a default one.  At most one was true already; that there is one is looked at when the
-- transaction ends, for to move it takes two steps.  An account that changes hands concerns two owners.
UPDATE accounts SET is_default = true WHERE id IN (
    SELECT DISTINCT ON (owner_id) id FROM accounts a WHERE desired <> 'removed'
    AND NOT EXISTS (SELECT FROM accounts d WHERE d.owner_id = a.owner_id AND d.is_default)
    ORDER BY owner_id, created_at, id
);
CREATE FUNCTION default_account_kept() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(ARRAY[OLD.owner_id, NEW.owner_id]) AS concerned (owner_id)  -- NULL where there is no such row
        WHERE EXISTS (SELECT FROM accounts a WHERE a.owner_id = concerned.owner_id AND desired <> 'removed')
        AND NOT EXISTS (SELECT FROM accounts a WHERE a.owner_id = concerned.owner_id AND is_default)
    )
    THEN
        RAISE EXCEPTION 'an owner with accounts has a default one' USING ERRCODE = 'check_violation',
            CONSTRAINT = 'accounts_default_kept', TABLE = 'accounts';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER accounts_default_kept AFTER INSERT OR DELETE OR UPDATE OF is_default, desired, owner_id
    ON accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION default_account_kept();

-- An account may be moved to another mailbox: another host or login.  UIDs, mod-sequences and UIDVALIDITY of one say
-- nothing of those of another.  So mailboxes are numbered, and a folder's row (its cursor, its placements) is believed
-- only by sessions of the mailbox that it is of, whoever wrote it when.
ALTER TABLE accounts ADD COLUMN mailbox integer NOT NULL DEFAULT 1 CHECK (mailbox > 0);
ALTER TABLE folders ADD COLUMN mailbox integer NOT NULL DEFAULT 1 CHECK (mailbox > 0);
-- What lay in a former mailbox is kept for good, and recognised if it turns up in a later one.
ALTER TABLE former_placements ADD COLUMN kept boolean NOT NULL DEFAULT false;
CREATE INDEX former_placements_awaited ON former_placements (folder_id) WHERE NOT kept;

-- How often something was done, by whom, to whom: one row for each that is not at rest.  A rate is kept as the moment at
-- which it will be at rest again (GCRA).  Unlogged: after a crash of the server everybody begins anew.
CREATE UNLOGGED TABLE rates (
    name        text NOT NULL CHECK (length(name) <= 64),
    subject     bytea NOT NULL CHECK (length(subject) = 32),   -- SHA-256 of what is counted: an address, a host
    rest_at     timestamptz NOT NULL,
    PRIMARY KEY (name, subject)
);
CREATE INDEX rates_rest ON rates (rest_at);
