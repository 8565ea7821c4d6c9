-- What changed since a list of accounts was last read.  A reader remembers the snapshot it read by, and next time asks
-- for what that snapshot did not see: a row whose `changed` is a transaction not visible in it.  A transaction that was
-- open at the first reading and commits later is not visible in that snapshot, so nothing is ever missed.

-- The transaction that last changed what a list shows of the account.
ALTER TABLE accounts ADD COLUMN changed xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX accounts_changed ON accounts (owner_id, changed);

CREATE FUNCTION account_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    RETURN NEW;
END
$$;

-- Everything that a list shows, or that its `sync_status` follows from; the rest (last contact, counters, requests) does
-- not count, so that those updates stay on their page and touch no index (HOT).  A proof that grows is such an update
-- too: a reader believes the shorter one until it is over, and then looks at the row again by itself.
CREATE TRIGGER accounts_changed BEFORE UPDATE ON accounts FOR EACH ROW WHEN (
    (OLD.owner_id, OLD.email, OLD.name, OLD.imap_host, OLD.imap_port, OLD.smtp_host, OLD.smtp_port, OLD.is_default,
     OLD.created_at, OLD.desired, OLD.state, OLD.first_synced_at IS NULL, OLD.trouble_since, OLD.proof_until IS NULL)
    IS DISTINCT FROM
    (NEW.owner_id, NEW.email, NEW.name, NEW.imap_host, NEW.imap_port, NEW.smtp_host, NEW.smtp_port, NEW.is_default,
     NEW.created_at, NEW.desired, NEW.state, NEW.first_synced_at IS NULL, NEW.trouble_since, NEW.proof_until IS NULL)
    OR NEW.proof_until < OLD.proof_until
) EXECUTE FUNCTION account_changed();

-- Which transactions changed what a user may see.  One row for each instead of one a user that is updated: two
-- transactions that touch the same users in another order then never wait for each other, so they cannot deadlock.  For
-- the same reason there is no foreign key, whose check would lock the user's row.
CREATE TABLE access_changes (
    user_id     text NOT NULL,
    changed     xid8 NOT NULL,
    PRIMARY KEY (user_id, changed)
);

-- Its search path is this session's for ever: a restore writes the rows with an empty one.
CREATE FUNCTION access_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    concerned text;
BEGIN
    FOR concerned IN
        SELECT DISTINCT id FROM unnest(ARRAY[
            CASE WHEN TG_OP <> 'INSERT' THEN OLD.user_id END, CASE WHEN TG_OP <> 'DELETE' THEN NEW.user_id END
        ]) AS id WHERE id IS NOT NULL
    LOOP
        INSERT INTO access_changes (user_id, changed) VALUES (concerned, pg_current_xact_id()) ON CONFLICT DO NOTHING;
        -- The others that can be seen ended before this transaction does, so the row above tells of them as well: a
        -- reader's snapshot that lacks one of them lacks this transaction too, and who does not see the row above yet
        -- still sees theirs.  Nor is one spared that a restore brought of a transaction this server has not reached.
        -- What another transaction is removing is left to it.
        DELETE FROM access_changes WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM access_changes
            WHERE user_id = concerned AND changed <> pg_current_xact_id() FOR UPDATE SKIP LOCKED
        ));
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER account_access_changed AFTER INSERT OR UPDATE OR DELETE ON account_access
    FOR EACH ROW EXECUTE FUNCTION access_changed();

-- Accounts shared with a user, apart from their own.
CREATE INDEX account_access_shared ON account_access (user_id) WHERE role <> 'owner';

-- The server whose transactions the rows here name.  Restored from a dump into another one, the log of events would hold
-- transactions that are ahead of those to come: so the migrator compares this row at each start, and on a new server sets
-- `events_ahead` beyond all that the log has, and the default of `events.xid` to as many beyond the transaction's own id.
CREATE TABLE server_identity (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    identifier  bigint NOT NULL,            -- system_identifier, which initdb draws
    events_ahead bigint NOT NULL DEFAULT 0 CHECK (events_ahead >= 0)
);
INSERT INTO server_identity (identifier) SELECT system_identifier FROM pg_control_system();
