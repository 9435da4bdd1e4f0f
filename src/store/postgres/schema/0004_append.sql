-- Keeping events in a transaction that is this one statement, so that nothing has to be said before or after it. It says itself what
-- other transactions say of themselves: where the tables are, that its commit is on the disk, and how long it waits for another one.
--
-- Inserts those whose key is not known. Gives the ids of those, unless it is all. Its first parameter is the schema, where nobody said it
-- before; then come the columns of what is offered; the fourteenth is the event that one collides with, the fifteenth whether one is homeless, the last why a
-- homeless one is quarantined. Keys of erased events are looked up one by one, however few they were when this was planned.
--
-- `keep_events` is the same for the program before this one, which says the rest in statements of its own.
CREATE FUNCTION append_events(schema text, uuid[], uuid[], text[], text[], text[], text[], text[], text[], timestamptz[], text[], boolean[],
                              boolean[], uuid[], boolean[], text[], text[], bytea[], text) RETURNS uuid[]
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids uuid[];
BEGIN
    IF schema IS NOT NULL THEN
        PERFORM set_config('search_path', quote_ident(schema), true), set_config('synchronous_commit', 'on', true),
                set_config('lock_timeout', '5s', true);
    END IF;
    WITH offered AS MATERIALIZED (
        SELECT nextval('events_seq_seq') AS seq, offer.* FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
        AS offer (id, key, source, provider, type, provider_type, event_id, task_id, received_at, verification, kept, ping, collision_of,
                  homeless, target, headers, body)
    ), made AS (
        INSERT INTO events (seq, id, key, source, provider, type, provider_type, event_id, task_id, received_at, verification, kept, ping,
                            collision_of, target, headers, body)
        SELECT seq, id, key, source, provider, type, provider_type, event_id, task_id, received_at, verification, kept, ping, collision_of,
               target, headers, body FROM offered
        WHERE NOT EXISTS (SELECT 1 FROM erased_keys WHERE erased_keys.key = offered.key OFFSET 0) ORDER BY key, seq
        ON CONFLICT (key) DO NOTHING RETURNING seq, id
    ), queued AS (
        INSERT INTO intake (event) SELECT seq FROM made
    ), held AS (
        INSERT INTO open_events (subject, event, state, reason)
        SELECT -made.seq, made.seq, 'quarantined', $19 FROM made JOIN offered ON offered.seq = made.seq WHERE homeless
    )
    SELECT CASE WHEN count(*) < cardinality($2) THEN coalesce(array_agg(id), '{}') END INTO ids FROM made;
    RETURN ids;
END
$$;
