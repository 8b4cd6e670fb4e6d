"""How the gateway's tables came to be what they are; `token_tables.py` says what they mean."""

from typing import Final

from paygate.gateway.token_chain import chain_all

APPLICATION_ID: Final = 0x50474757  # "PGGW"
SCHEMA: Final = (
    """
    CREATE TABLE token (
        token_number INTEGER PRIMARY KEY,
        transaction_id TEXT NOT NULL UNIQUE,
        passcode TEXT NOT NULL,
        merchant_id TEXT NOT NULL,
        merchant_name TEXT NOT NULL,
        amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
        currency TEXT NOT NULL,
        expires_ms INTEGER,
        state TEXT NOT NULL CHECK (state IN ('unpaid', 'in-flight', 'paid', 'cancelled', 'expired')),
        payment_id BLOB,
        utr TEXT NOT NULL,
        wrong_passcode_count INTEGER NOT NULL,
        locked_until_ms INTEGER NOT NULL,
        CHECK (state <> 'in-flight' OR payment_id IS NOT NULL),
        CHECK ((state = 'paid') = (utr <> ''))
    ) STRICT;
    CREATE TABLE payment (
        payment_number INTEGER PRIMARY KEY,
        payment_id BLOB NOT NULL UNIQUE,
        transaction_id TEXT NOT NULL REFERENCES token (transaction_id),
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        begun_ms INTEGER NOT NULL,
        outcome INTEGER,
        reason INTEGER NOT NULL,
        utr TEXT NOT NULL,
        receipt BLOB NOT NULL,
        ended_ms INTEGER,
        CHECK ((outcome IS NULL) = (ended_ms IS NULL))
    ) STRICT;
    CREATE INDEX payment_in_flight ON payment (payment_number) WHERE outcome IS NULL;
    """,
    """
    -- What is in flight has a table of its own. SQLite makes a table of an IN list at every row that is checked.
    CREATE TABLE in_flight (
        payment_number INTEGER PRIMARY KEY,
        payment_id BLOB NOT NULL,
        transaction_id TEXT NOT NULL,
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        begun_ms INTEGER NOT NULL
    ) STRICT;
    INSERT INTO in_flight
        SELECT payment_number, payment_id, transaction_id, terms, envelope_hash, begun_ms
        FROM payment WHERE outcome IS NULL;
    DROP INDEX payment_in_flight;
    DELETE FROM payment WHERE outcome IS NULL;
    CREATE TABLE token_of_2 (
        token_number INTEGER PRIMARY KEY,
        transaction_id TEXT NOT NULL UNIQUE,
        passcode TEXT NOT NULL,
        merchant_id TEXT NOT NULL,
        merchant_name TEXT NOT NULL,
        amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
        currency TEXT NOT NULL,
        expires_ms INTEGER,
        state TEXT NOT NULL CHECK (state = 'unpaid' OR state = 'paid' OR state = 'cancelled' OR state = 'expired'),
        payment_id BLOB,
        utr TEXT NOT NULL,
        wrong_passcode_count INTEGER NOT NULL,
        locked_until_ms INTEGER NOT NULL,
        CHECK (state = 'paid' OR payment_id IS NULL),
        CHECK ((state = 'paid') = (utr <> ''))
    ) STRICT;
    INSERT INTO token_of_2
        SELECT token_number, transaction_id, passcode, merchant_id, merchant_name, amount_minor, currency, expires_ms,
            CASE state WHEN 'in-flight' THEN 'unpaid' ELSE state END,
            CASE state WHEN 'paid' THEN payment_id END,
            utr, wrong_passcode_count, locked_until_ms
        FROM token;
    DROP TABLE token;
    ALTER TABLE token_of_2 RENAME TO token;
    """,
    """
    -- Places for payments in flight, each used again once its payment is in the payment table.
    CREATE TABLE in_flight_of_3 (
        place INTEGER PRIMARY KEY,
        payment_number INTEGER NOT NULL,
        payment_id BLOB NOT NULL,
        transaction_id TEXT NOT NULL,
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        begun_ms INTEGER NOT NULL
    ) STRICT;
    INSERT INTO in_flight_of_3
        SELECT NULL, payment_number, payment_id, transaction_id, terms, envelope_hash, begun_ms FROM in_flight;
    DROP TABLE in_flight;
    ALTER TABLE in_flight_of_3 RENAME TO in_flight;
    """,
    """
    -- Which payment paid a token. What the terms say is not said again of a payment in flight.
    CREATE TABLE paid (
        token_number INTEGER PRIMARY KEY REFERENCES token,
        payment_number INTEGER NOT NULL REFERENCES payment
    ) STRICT;
    INSERT INTO paid SELECT token_number, payment_number FROM token JOIN payment USING (payment_id);
    CREATE TABLE token_of_4 (
        token_number INTEGER PRIMARY KEY,
        transaction_id TEXT NOT NULL UNIQUE,
        passcode TEXT NOT NULL,
        merchant_id TEXT NOT NULL,
        merchant_name TEXT NOT NULL,
        amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
        currency TEXT NOT NULL,
        expires_ms INTEGER,
        state TEXT NOT NULL CHECK (state = 'unpaid' OR state = 'paid' OR state = 'cancelled' OR state = 'expired'),
        utr TEXT NOT NULL,
        wrong_passcode_count INTEGER NOT NULL,
        locked_until_ms INTEGER NOT NULL,
        CHECK ((state = 'paid') = (utr <> ''))
    ) STRICT;
    INSERT INTO token_of_4
        SELECT token_number, transaction_id, passcode, merchant_id, merchant_name, amount_minor, currency, expires_ms,
            CASE WHEN token_number IN (SELECT token_number FROM paid) THEN 'unpaid' ELSE state END,
            CASE WHEN token_number IN (SELECT token_number FROM paid) THEN '' ELSE utr END,
            wrong_passcode_count, locked_until_ms
        FROM token;
    DROP TABLE token;
    ALTER TABLE token_of_4 RENAME TO token;
    CREATE TABLE in_flight_of_4 (
        place INTEGER PRIMARY KEY,
        payment_number INTEGER NOT NULL,
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        begun_ms INTEGER NOT NULL
    ) STRICT;
    INSERT INTO in_flight_of_4 SELECT place, payment_number, terms, envelope_hash, begun_ms FROM in_flight;
    DROP TABLE in_flight;
    ALTER TABLE in_flight_of_4 RENAME TO in_flight;
    """,
    """
    -- What never changes has a chain; what changes has rows of its own, with a hash each. `chain_all` fills them in.
    CREATE TABLE gateway (
        row_number INTEGER PRIMARY KEY CHECK (row_number = 1),
        token_count INTEGER NOT NULL,
        token_chain BLOB NOT NULL,
        payment_count INTEGER NOT NULL,
        payment_chain BLOB NOT NULL,
        schema_hash BLOB NOT NULL,
        row_hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE token_state (
        token_number INTEGER PRIMARY KEY REFERENCES token,
        state TEXT NOT NULL CHECK (state = 'unpaid' OR state = 'paid' OR state = 'cancelled' OR state = 'expired'),
        utr TEXT NOT NULL,
        wrong_passcode_count INTEGER NOT NULL,
        locked_until_ms INTEGER NOT NULL,
        row_hash BLOB NOT NULL,
        CHECK ((state = 'paid') = (utr <> ''))
    ) STRICT;
    INSERT INTO token_state
        SELECT token_number, state, utr, wrong_passcode_count, locked_until_ms, x'' FROM token
        WHERE state <> 'unpaid' OR wrong_passcode_count <> 0 OR locked_until_ms <> 0;
    CREATE TABLE token_of_5 (
        token_number INTEGER PRIMARY KEY,
        transaction_id TEXT NOT NULL UNIQUE,
        passcode TEXT NOT NULL,
        merchant_id TEXT NOT NULL,
        merchant_name TEXT NOT NULL,
        amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
        currency TEXT NOT NULL,
        expires_ms INTEGER,
        chain BLOB NOT NULL
    ) STRICT;
    INSERT INTO token_of_5
        SELECT token_number, transaction_id, passcode, merchant_id, merchant_name, amount_minor, currency, expires_ms,
            x'' FROM token;
    DROP TABLE token;
    ALTER TABLE token_of_5 RENAME TO token;
    -- A payment is numbered when it begins and chained when it ends.
    CREATE TABLE payment_of_5 (
        payment_number INTEGER PRIMARY KEY,
        payment_id BLOB NOT NULL UNIQUE,
        transaction_id TEXT NOT NULL REFERENCES token (transaction_id),
        terms BLOB NOT NULL,
        envelope_hash BLOB NOT NULL,
        begun_ms INTEGER NOT NULL,
        outcome INTEGER NOT NULL,
        reason INTEGER NOT NULL,
        utr TEXT NOT NULL,
        receipt BLOB NOT NULL,
        ended_ms INTEGER NOT NULL,
        chain_number INTEGER NOT NULL,
        chain BLOB NOT NULL
    ) STRICT;
    INSERT INTO payment_of_5
        SELECT payment_number, payment_id, transaction_id, terms, envelope_hash, begun_ms, outcome, reason, utr,
            receipt, ended_ms, row_number() OVER (ORDER BY payment_number), x'' FROM payment;
    DROP TABLE payment;
    ALTER TABLE payment_of_5 RENAME TO payment;
    ALTER TABLE in_flight ADD COLUMN ended_count INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE in_flight ADD COLUMN row_hash BLOB NOT NULL DEFAULT x'';
    """,
)
"""The n-th script leads to version n."""
MIGRATIONS: Final = {5: chain_all}
"""What a version needs besides its script, once that has run."""
MADE_AS: Final = {"application_id": APPLICATION_ID, "version": len(SCHEMA)}
"""By what `open_to_read` knows a store that this paygate can read."""
