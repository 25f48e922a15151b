-- Answers of keyed writes, so that a repeat finds its first answer. Purged by age.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key text PRIMARY KEY,
    request_hash bytea NOT NULL,
    status smallint NOT NULL CHECK (status IN (201, 204)),
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idempotency_keys_age ON idempotency_keys (created_at);

-- One row for each table that has its rows. `ready_at` is set once keys, indexes, sequences and
-- statistics are done as well.
CREATE TABLE IF NOT EXISTS bingo_fill (
    table_name text PRIMARY KEY,
    origin text NOT NULL CHECK (origin IN ('filled', 'adopted')),
    rows bigint NOT NULL,
    seed bigint,
    filled_at timestamptz NOT NULL DEFAULT now(),
    ready_at timestamptz
);
