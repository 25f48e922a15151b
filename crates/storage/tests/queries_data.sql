-- Rows for a database that `prepare` has made without any. Awkward on purpose: many ties in every sort key,
-- names of both cases and of other alphabets, and every character that JSON escapes. The node's
-- tests use it as well.
SELECT setval('customers_id_seq', 1, false), setval('movies_id_seq', 1, false),
       setval('sessions_id_seq', 1, false);
INSERT INTO customers (name, surname, birthday, email)
SELECT (ARRAY['Ada', 'ada', 'Åsa', 'Борис', 'O''Neil', 'Zoë'])[1 + i % 6],
       (ARRAY['Lee', 'lee', 'Иванов', 'Çelik', 'de la Cruz'])[1 + i % 5],
       date '1950-02-28' + (i % 40) * 365, format('c%s@example.com', i)
FROM generate_series(1, 600) i;
INSERT INTO movies (name, year, duration)
SELECT (ARRAY['One', 'one', E'Tab\there "quoted" \\ slash', E'Line\nfeed \u0001', 'Мост', ''])[1 + i % 6],
       1990 + i % 8, 3600 + i
FROM generate_series(1, 120) i;
INSERT INTO sessions (start_time, customer_id, movie_id)
SELECT timestamp '2015-10-06 11:16:31.395859' + i * interval '7919.000013 seconds',
       1 + (i * 7) % 600, 1 + (i * 13) % 120
FROM generate_series(1, 5000) i;
ANALYZE;
