/* A payment's states and messages, with crashes, loss, repetition and reordering (spec 6.6, 7.3, 7.4).
 *
 * One token, and two payments of it, each with its own payment ID: two shoppers at once, or one who pays again after
 * he was refused. The network is a set: what was sent stands in a bit, so any order of delivery is one of the runs; a
 * delivery may leave the bit (the message comes again), and a loss clears it. A crash forgets what is not durable.
 * Losses, repetitions and crashes have budgets. While they last anything may happen; once they are used up the links
 * are healed. Every step makes progress, so each run ends, and "every doubt ends with a definite answer" is what the
 * end of each run must show. All runs are looked at, and a run that could not end would be found as one.
 *
 * Each rule can be taken out, to see that the model notices (see `make model`):
 *   NO_FENCE     the bank answers a resolve of a payment that it never saw without recording the fence (PG-RES-1)
 *   NO_UNIQUE    the bank does not look whether another payment of the token was posted (PG-TRF-3)
 *   BANK_FIRST   the bank answers before its decision is durable (PG-TRF-2)
 *   SEND_FIRST   the gateway sends the transfer before the token is durably in flight (PG-PAY-3)
 *   TELL_FIRST   the gateway tells an outcome before it is durable (PG-PAY-9)
 *   RELEASE      the gateway frees a token whose bank is silent, without asking for a fence (PG-TOK-6)
 *   NO_RESUME    the gateway does not resolve, after its restart, what was in flight (PG-RES-4)
 *   BY_LINK      the gateway takes a result for whichever payment is in flight, not by its payment ID (PG-TRF-9)
 * HOSTILE is no rule taken out: somebody has the gateway's key and sends the bank what he likes (T14). The gateway's
 * own promises can't be kept then, and only the bank's are checked.
 */

#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef REPEATS
#define REPEATS 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

/* A token at the gateway. */
#define UNPAID 0
#define IN_FLIGHT 1
#define PAID 2

/* A payment: what the bank has decided, what the gateway knows, what a client was told. */
#define ABSENT 0
#define BEGUN 1 /* at the gateway only */
#define POSTED 2
#define DECLINED 3
#define FENCED 4

#define NOBODY 2 /* no payment is in flight */

/* -- durable ------------------------------------------------------------------------------------------ */

bit saved[2];     /* at the client, before it sends (PG-PAY-1) */
byte told[2];     /* at the client: the outcome, proven by a receipt */
byte token = UNPAID;
byte in_flight = NOBODY;
byte known[2];    /* at the gateway */
byte decided[2];  /* at the bank */
byte debits[2];   /* at the bank: how often money moved */

/* -- forgotten in a crash ----------------------------------------------------------------------------- */

bit is_sent[2];      /* the client has sent its credentials, or will not */
bit waits[2];        /* the gateway owes this client an answer */
bit to_transfer[2];  /* the gateway has committed and not yet sent */
bit to_resolve[2];   /* the gateway is to ask the bank */
bit opening[2];      /* the bank's decoder has the envelope */
byte to_answer[2];   /* the bank has committed and not yet answered */

/* -- on their way ------------------------------------------------------------------------------------- */

bit credentials[2];
bit query[2];     /* StatusQuery */
bit transfer[2];
bit resolve[2];
bit posted[2];    /* TransferResult or ResolveResult, one bit for each outcome */
bit declined[2];
bit fenced[2];
byte ack[2];      /* PaymentAck or StatusAck with an outcome; an outcome never becomes another */

byte losses = LOSSES;
byte repeats = REPEATS;
byte crashes = CRASHES;

#define IS_FINAL(o) ((o) >= POSTED)
#define HAS_RESULT(p) (posted[p] || declined[p] || fenced[p])

inline receive(message)
{
    if
    :: message = 0
    :: repeats > 0 -> repeats--
    fi
}

inline answer(p, o)
{
    if
    :: o == POSTED -> posted[p] = 1
    :: o == DECLINED -> declined[p] = 1
    :: o == FENCED -> fenced[p] = 1
    fi
}

inline tell(p)
{
    if
    :: waits[p] && IS_FINAL(known[p]) -> ack[p] = known[p]; waits[p] = 0
    :: else
    fi
}

inline settle(p, o)
{
    known[p] = o;
    in_flight = NOBODY;
    to_resolve[p] = 0;
    to_transfer[p] = 0;
    token = (o == POSTED -> PAID : UNPAID)
}

inline crash_gateway()
{
    crashes--;
    waits[0] = 0; waits[1] = 0;
    to_transfer[0] = 0; to_transfer[1] = 0;
    to_resolve[0] = 0; to_resolve[1] = 0;
#ifndef NO_RESUME
    if
    :: in_flight != NOBODY -> to_resolve[in_flight] = 1
    :: else
    fi
#endif
}

inline crash_bank()
{
    crashes--;
    opening[0] = 0; opening[1] = 0;
    to_answer[0] = ABSENT; to_answer[1] = ABSENT
}

/* What must hold at every moment. */
inline check()
{
    assert(debits[0] + debits[1] <= 1);                        /* I2, R9: a token is debited once */
    assert(debits[0] == (decided[0] == POSTED));
    assert(debits[1] == (decided[1] == POSTED));
    assert(told[0] == ABSENT || told[0] == decided[0]);        /* I3: what was told stands */
    assert(told[1] == ABSENT || told[1] == decided[1]);
#ifndef HOSTILE
    assert(token != PAID || debits[0] + debits[1] == 1);       /* PAID only if POSTED */
    assert(!(known[0] == POSTED && known[1] == POSTED));
    assert(told[0] != POSTED || token == PAID);                /* R8: whoever was told finds the token paid */
    assert(told[1] != POSTED || token == PAID)
#endif
}

/* What must hold when nothing is left to happen. */
inline check_end()
{
#ifdef HOSTILE
    skip
#else
    assert(token != IN_FLIGHT && in_flight == NOBODY);         /* I9: no doubt is left */
    assert((token == PAID) == (debits[0] + debits[1] == 1));   /* I4: PAID if and only if debited */
    assert(known[0] == decided[0] && known[1] == decided[1]);  /* both sides say the same */
    assert(told[0] == known[0] && told[1] == known[1])         /* and the client has heard it */
#endif
}

#define CLIENT(p) \
    :: atomic { !saved[p] -> saved[p] = 1 } \
    :: atomic { saved[p] && !is_sent[p] -> is_sent[p] = 1; credentials[p] = 1 } \
    :: atomic { saved[p] && !is_sent[p] && crashes > 0 -> crashes--; is_sent[p] = 1 } \
    /* It asks until it has an answer; only the asking that comes when there is one makes a difference. */ \
    :: atomic { \
        is_sent[p] && told[p] == ABSENT && !ack[p] && !query[p] && !waits[p] && IS_FINAL(known[p]) -> \
        query[p] = 1 \
    } \
    :: atomic { ack[p] && told[p] == ABSENT -> told[p] = ack[p]; receive(ack[p]); check() } \
    :: atomic { ack[p] && told[p] == ack[p] -> ack[p] = 0 } \
    :: atomic { losses > 0 && credentials[p] -> losses--; credentials[p] = 0 } \
    :: atomic { losses > 0 && query[p] -> losses--; query[p] = 0 } \
    :: atomic { losses > 0 && ack[p] -> losses--; ack[p] = 0 }

/* The commit, and then what may leave. */
#ifdef SEND_FIRST
#define BEGIN(p) transfer[p] = 1; if :: crashes > 0 -> crash_gateway() :: BEGIN_COMMIT(p) fi
#else
#define BEGIN(p) BEGIN_COMMIT(p); to_transfer[p] = 1
#endif
#define BEGIN_COMMIT(p) token = IN_FLIGHT; in_flight = p; known[p] = BEGUN; waits[p] = 1; to_resolve[p] = 1

#ifdef TELL_FIRST
#define SETTLE(p, o) ack[p] = o; if :: crashes > 0 -> crash_gateway() :: settle(p, o); waits[p] = 0 fi
#else
#define SETTLE(p, o) settle(p, o); tell(p)
#endif

#ifdef RELEASE
#define ASK(p) settle(p, FENCED); tell(p)
#else
#define ASK(p) resolve[p] = 1
#endif

#ifdef BY_LINK
#define TAKES(p, q) (in_flight == p)
#else
#define TAKES(p, q) (in_flight == p && p == q)
#endif

#define RESULT(p, q, message, o) \
    :: atomic { message[q] && TAKES(p, q) -> receive(message[q]); SETTLE(p, o); check() }

#define GATEWAY(p) \
    :: atomic { \
        credentials[p] && known[p] == ABSENT && token == UNPAID -> \
        receive(credentials[p]); BEGIN(p); check() \
    } \
    /* A repeat waits with the first, or hears the outcome again. */ \
    :: atomic { credentials[p] && known[p] != ABSENT -> receive(credentials[p]); waits[p] = 1; tell(p) } \
    :: atomic { query[p] && known[p] != ABSENT -> receive(query[p]); waits[p] = 1; tell(p) } \
    /* REFUSED is the gateway's word, and no outcome. */ \
    :: atomic { credentials[p] && known[p] == ABSENT && token != UNPAID -> credentials[p] = 0 } \
    :: atomic { to_transfer[p] -> to_transfer[p] = 0; transfer[p] = 1 } \
    /* The bank's time is over, which may be at any moment; asked again when question and answer are lost. */ \
    :: atomic { \
        in_flight == p && to_resolve[p] && !to_transfer[p] && !resolve[p] && !HAS_RESULT(p) && !to_answer[p] -> \
        ASK(p); check() \
    } \
    RESULT(p, p, posted, POSTED) \
    RESULT(p, p, declined, DECLINED) \
    RESULT(p, p, fenced, FENCED) \
    RESULT(p, 1 - p, posted, POSTED) \
    RESULT(p, 1 - p, declined, DECLINED) \
    RESULT(p, 1 - p, fenced, FENCED) \
    /* Of a payment that has ended it changes nothing. */ \
    :: atomic { in_flight != p && HAS_RESULT(p) -> posted[p] = 0; declined[p] = 0; fenced[p] = 0 }

#ifdef NO_UNIQUE
#define IS_FREE(p) true
#else
#define IS_FREE(p) (decided[1 - p] != POSTED)
#endif

#ifdef NO_FENCE
#define FENCE(p) to_answer[p] = FENCED
#else
#define FENCE(p) decided[p] = FENCED; to_answer[p] = FENCED
#endif

#ifdef BANK_FIRST
#define POST(p) posted[p] = 1; if :: crashes > 0 -> crash_bank() :: decided[p] = POSTED; debits[p]++ fi
#else
#define POST(p) decided[p] = POSTED; debits[p]++; to_answer[p] = POSTED
#endif

#define BANK(p) \
    :: atomic { transfer[p] && decided[p] == ABSENT && !opening[p] -> receive(transfer[p]); opening[p] = 1 } \
    :: atomic { transfer[p] && decided[p] != ABSENT && !to_answer[p] -> receive(transfer[p]); to_answer[p] = decided[p] } \
    :: atomic { \
        opening[p] -> opening[p] = 0; \
        if \
        :: decided[p] != ABSENT -> to_answer[p] = decided[p] \
        :: decided[p] == ABSENT && IS_FREE(p) -> POST(p) \
        :: decided[p] == ABSENT -> decided[p] = DECLINED; to_answer[p] = DECLINED \
        fi; \
        check() \
    } \
    /* PG-RES-2: a transfer that is under way ends first. */ \
    :: atomic { \
        resolve[p] && !opening[p] && !to_answer[p] -> receive(resolve[p]); \
        if \
        :: decided[p] == ABSENT -> FENCE(p) \
        :: else -> to_answer[p] = decided[p] \
        fi; \
        check() \
    } \
    :: atomic { to_answer[p] -> answer(p, to_answer[p]); to_answer[p] = ABSENT } \
    :: atomic { losses > 0 && transfer[p] -> losses--; transfer[p] = 0 } \
    :: atomic { losses > 0 && resolve[p] -> losses--; resolve[p] = 0 } \
    :: atomic { losses > 0 && posted[p] -> losses--; posted[p] = 0 } \
    :: atomic { losses > 0 && declined[p] -> losses--; declined[p] = 0 } \
    :: atomic { losses > 0 && fenced[p] -> losses--; fenced[p] = 0 }

#ifdef HOSTILE
#ifndef FORGED
#define FORGED 2
#endif
byte forged = FORGED;
#define THIEF(p) \
    :: atomic { forged > 0 && !transfer[p] -> forged--; transfer[p] = 1 } \
    :: atomic { forged > 0 && !resolve[p] -> forged--; resolve[p] = 1 }
#else
#define THIEF(p)
#endif

active proctype System()
{
    do
    CLIENT(0) CLIENT(1)
    GATEWAY(0) GATEWAY(1)
    BANK(0) BANK(1)
    THIEF(0) THIEF(1)
    :: atomic { crashes > 0 -> crash_gateway() }
    :: atomic { crashes > 0 -> crash_bank() }
    :: else -> check_end(); break
    od
}
