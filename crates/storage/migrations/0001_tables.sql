-- The vendor's tables with the vendor's types (contract.md section 4), where they are not there yet.
-- Keys and indexes are no part of it: they are made after the rows, see src/fill/keys.rs.

CREATE SEQUENCE IF NOT EXISTS customers_id_seq AS integer;
CREATE TABLE IF NOT EXISTS customers (
    id integer NOT NULL DEFAULT nextval('customers_id_seq'),
    name varchar(80) NOT NULL,
    surname varchar(80) NOT NULL,
    birthday date NOT NULL,
    email varchar(256) NOT NULL
);

CREATE SEQUENCE IF NOT EXISTS movies_id_seq AS integer;
CREATE TABLE IF NOT EXISTS movies (
    id integer NOT NULL DEFAULT nextval('movies_id_seq'),
    name varchar NOT NULL,
    year integer NOT NULL,
    duration bigint NOT NULL
);

CREATE SEQUENCE IF NOT EXISTS sessions_id_seq;
CREATE TABLE IF NOT EXISTS sessions (
    id bigint NOT NULL DEFAULT nextval('sessions_id_seq'),
    start_time timestamp without time zone NOT NULL,
    customer_id integer NOT NULL,
    movie_id integer NOT NULL
);
