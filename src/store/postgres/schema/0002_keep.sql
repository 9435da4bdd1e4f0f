-- Keeping events as a function: a session plans what is in it once, whereas a statement that goes through a pooler can be prepared by no
-- name and is planned each time, which cost a fourth of the time that keeping a batch took.
--
-- Inserts those whose key is not known, and says which they are, by their ids. Its parameters are the columns of what is offered; the
-- thirteenth is the event that one collides with, the fourteenth whether one is homeless, the last why a homeless one is quarantined.
-- Keys of erased events are looked up one by one, however few they were when this was planned.
CREATE FUNCTION keep_events(uuid[], uuid[], text[], text[], text[], text[], text[], text[], timestamptz[], text[], boolean[], boolean[],
                            uuid[], boolean[], text[], text[], bytea[], text) RETURNS SETOF uuid
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    WITH offered AS MATERIALIZED (
        SELECT nextval('events_seq_seq') AS seq, offer.* FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
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
        SELECT -made.seq, made.seq, 'quarantined', $18 FROM made JOIN offered ON offered.seq = made.seq WHERE homeless
    )
    SELECT id FROM made;
END
$$;
