// A paygate client's side of a link (section 5) and of a session (section 6).

import { connect } from 'node:net';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { FrameReader, KINDS, ProtocolError, encodeFrame } from './wire.mjs';
import {
  Untrusted, chooseSuiteKey, credentialsPlaintext, matchAnswer, passwordKey, sealEnvelope, sha256, verifyKeptKeyList,
  verifyKeyList, verifyReceipt,
} from './crypto.mjs';

const PARTY_ID = 'paygate-node'; // free (5.1)
const HELLO_MS = 5_000;
const FRAME_MS = 10_000;
const ANSWER_MS = 10_000; // PG-TIM-5
const STATUS_POLL_MS = 1_000; // PG-TIM-6
const QUESTION_REFUSED = ['PASSCODE', 'TOKEN_LOCKED', 'STORE_UNAVAILABLE'];
const CLOSING_MS = 2_000;
const RECONNECT_MS = { first: 250, most: 4_000 };

/** No connection, or the link broke: what waited for a reply may have been served or not (7.5). */
export class LinkLost extends Error {}

/** The gateway answered a request with an Error that does not close (PG-ERR-5). */
export class RequestFailed extends Error {
  constructor(code) {
    super(`the gateway does not serve the request now: ${code}`);
    this.code = code;
  }
}

/** The session ended before anything was sent: no money has moved (PG-CLI-1). */
export class NotSent extends Error {}

/** The token can't be paid; `token` is the TokenAck that says so. */
export class TokenRefused extends Error {
  constructor(token) {
    super(`the token can't be paid: ${token.status}`);
    this.token = token;
  }
}

// ---- Link (5) ---------------------------------------------------------------------------------------------------------

/** The calling end of a client link, as in the table of PG-LNK-12. */
export class Link {
  #socket;
  #state = 'WAIT_HELLO_ACK';
  #waiting = new Map(); // correlation ID -> {kindName, resolve, reject}
  #lastCorrelationId = 0n;
  #reader = new FrameReader((kindName) => this.#admit(kindName), (frame) => this.#receive(frame));
  #frameTimer;
  #lost;

  /** Connects and says hello; resolves with an open link, or rejects with LinkLost. */
  static async open({ host, port }) {
    const link = new Link(connect({ host, port, noDelay: true, allowHalfOpen: true }));
    await link.hello();
    return link;
  }

  constructor(socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => this.#read(chunk));
    socket.on('end', () => this.#ended());
    socket.on('error', (error) => this.#lose(`no connection: ${error.code ?? error.message}`));
    socket.on('close', () => this.#lose('the connection was closed'));
  }

  /** The first frame; nothing else may be sent before this resolves (PG-LNK-1), within 5 s of connecting (PG-TIM-1). */
  hello() {
    const hello = { role: 'CLIENT', party_id: PARTY_ID, versions: [1] };
    return this.request('Hello', hello, HELLO_MS, () => this.#refuse(new ProtocolError('HELLO_TIMEOUT')));
  }

  /** Sends a request and resolves with its reply; rejects with RequestFailed or LinkLost. */
  request(kindName, message, timeoutMs = ANSWER_MS, timeUp = () => this.#lose('no answer in time')) {
    if (this.#lost) return Promise.reject(this.#lost);
    const correlationId = ++this.#lastCorrelationId; // never 0, never one that waits (PG-LNK-7)
    const reply = new Promise((resolve, reject) => {
      const timer = setTimeout(timeUp, timeoutMs);
      const done = (settle) => (value) => {
        clearTimeout(timer);
        this.#waiting.delete(correlationId);
        settle(value);
      };
      this.#waiting.set(correlationId, { kindName, resolve: done(resolve), reject: done(reject) });
    });
    this.#socket.write(encodeFrame(kindName, correlationId, message));
    return reply;
  }

  close() {
    this.#lose('closed by this end');
  }

  #read(chunk) {
    if (this.#state === 'CLOSED') return; // nothing more is read (PG-LNK-12)
    try {
      this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#refuse(error);
    }
    if (!this.#reader.withinFrame || this.#lost) this.#stopFrameTimer();
    else this.#frameTimer ??= setTimeout(() => this.#refuse(new ProtocolError('FRAME_TIMEOUT')), FRAME_MS);
  }

  /** The timer runs from a frame's first byte to its last, however often bytes of it come (PG-TIM-2). */
  #stopFrameTimer() {
    clearTimeout(this.#frameTimer);
    this.#frameTimer = undefined;
  }

  /** Which kinds a client takes, from their header on; the rest is found when the body is decoded. */
  #admit(kindName) {
    const admitted = this.#state === 'OPEN'
      ? kindName !== 'HelloAck' && (kindName === 'Echo' || KINDS[kindName].reply === undefined)
      : ['HelloAck', 'Error'].includes(kindName);
    if (!admitted) throw new ProtocolError('UNEXPECTED_MESSAGE', 'kind'); // PG-LNK-10
  }

  #receive({ kindName, correlationId, message }) {
    this.#stopFrameTimer();
    if (this.#state === 'CLOSED') return;
    if (kindName === 'Echo') this.#socket.write(encodeFrame('EchoReply', correlationId, message)); // PG-LNK-16
    else if (kindName === 'Error') this.#receiveError(correlationId, message);
    else this.#receiveReply(kindName, correlationId, message);
  }

  #receiveError(correlationId, { code, closes, text }) {
    if (closes) {
      this.#lose(`the gateway closed the link: ${code}${text && ` (${text})`}`);
      return;
    }
    if (this.#state !== 'OPEN') throw new ProtocolError('UNEXPECTED_MESSAGE');
    this.#take(correlationId).reject(new RequestFailed(code)); // PG-ERR-5
  }

  #receiveReply(kindName, correlationId, message) {
    const request = this.#take(correlationId);
    if (KINDS[request.kindName].reply !== kindName) throw new ProtocolError('UNEXPECTED_MESSAGE'); // PG-LNK-9
    if (kindName === 'HelloAck') {
      if (message.role !== 'GATEWAY') throw new ProtocolError('BAD_VALUE', 'role'); // PG-LNK-5
      if (message.version !== 1) throw new ProtocolError('NO_COMMON_VERSION', 'version'); // PG-LNK-5
      this.#state = 'OPEN';
    }
    request.resolve(message);
  }

  /** The request that waits under this number (PG-LNK-8, PG-LNK-9). */
  #take(correlationId) {
    const request = this.#waiting.get(correlationId);
    if (!request) throw new ProtocolError('UNKNOWN_CORRELATION');
    return request;
  }

  #ended() {
    if (this.#reader.withinFrame) this.#refuse(new ProtocolError('TRUNCATED_FRAME'));
    else this.#lose('the gateway closed the connection');
  }

  /** Error with the code, and close (PG-LNK-12, PG-ERR-4). */
  #refuse(error) {
    if (this.#lost) return;
    const text = error.message.replaceAll('_', ' ').toLowerCase(); // never a received value (PG-ERR-2)
    this.#socket.write(encodeFrame('Error', 0n, { code: error.code, closes: true, text }));
    this.#lose(`this end closed the link: ${error.message}`);
  }

  /** What was queued is sent, then the connection is closed, whether the peer reads or not (PG-LNK-14). */
  #lose(message) {
    if (this.#lost) return;
    this.#lost = new LinkLost(message);
    this.#state = 'CLOSED';
    this.#stopFrameTimer();
    for (const { reject } of [...this.#waiting.values()]) reject(this.#lost);
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), CLOSING_MS).unref();
  }
}

// ---- Session (6) ------------------------------------------------------------------------------------------------------

/** Asks for the key list of the pinned bank and verifies it (PG-KEY-4, PG-KEY-5). */
async function fetchKeyList(link, bankRoot, highestSerial) {
  const { status, signed_key_list } = await link.request('BankKeysQuery', { bank_id: bankRoot.bankId });
  if (status === 'UNAVAILABLE') throw new NotSent("the gateway does not have the bank's keys now");
  if (status === 'UNKNOWN_BANK') throw new Untrusted('bank_id', 'the gateway does not pay through the pinned bank');
  return { keyList: verifyKeyList(signed_key_list, bankRoot, highestSerial), signedKeyList: signed_key_list };
}

/**
 * What an answer of the gateway is worth: `proven` with a receipt that verifies, otherwise only its word (PG-PAY-10,
 * PG-PAY-11). The receipt may verify under any of the key lists (PG-RCP-6). An answer that claims more than it proves has the status UNTRUSTED and leaves the payment in doubt.
 */
function judge(answer, keyLists, { terms, envelope_hash }) {
  const { status, reason, utr, receipt } = answer;
  try {
    if (!answer.payment_id.equals(terms.payment_id)) throw new Untrusted('answer', 'the answer is about another payment');
    if (!['PAID', 'DECLINED'].includes(status)) return { status, reason, utr, proven: false };
    const statement = verifyUnderAny(keyLists, receipt, terms, envelope_hash);
    matchAnswer(answer, statement);
    return { status, reason, utr, proven: true, outcome: statement.outcome, bank_time_ms: statement.bank_time_ms, receipt };
  } catch (error) {
    if (!(error instanceof Untrusted)) throw error;
    return { status: 'UNTRUSTED', reason: 'NONE', utr: '', proven: false, problem: error.message };
  }
}

function verifyUnderAny([keyList, ...others], receipt, terms, envelopeHash) {
  try {
    return verifyReceipt(receipt, keyList, terms, envelopeHash);
  } catch (error) {
    if (!(error instanceof Untrusted) || others.length === 0) throw error;
    return verifyUnderAny(others, receipt, terms, envelopeHash);
  }
}

/**
 * Asks once what became of a payment that was written down. The bank may answer with a key that came after the payment,
 * so its list is asked for too; one that can't be had or trusted adds no keys.
 */
export async function queryStatus({ gateway, bankRoot, highestSerial, payment, passcode }) {
  const link = await Link.open(gateway);
  try {
    const keyLists = [verifyKeptKeyList(payment.signed_key_list, bankRoot)];
    let serial = highestSerial;
    try {
      const { keyList } = await fetchKeyList(link, bankRoot, highestSerial);
      keyLists.push(keyList);
      serial = keyList.serial;
    } catch (error) {
      if (![Untrusted, NotSent, RequestFailed].some((type) => error instanceof type)) throw error;
    }
    const { payment_id, transaction_id } = payment.terms;
    const answer = await link.request('StatusQuery', { payment_id, transaction_id, passcode });
    return { ...judge(answer, keyLists, payment), serial };
  } finally {
    link.close();
  }
}

/** One session: from hello to an answer that ends it (6.8). */
export class Session {
  #gateway;
  #link;
  #passcode;
  #transactionId;
  #endsAt;

  /** Connects, asks for keys and token, and resolves when both are good. */
  static async open({ gateway, bankRoot, highestSerial, transactionId, passcode }) {
    const session = new Session();
    session.#gateway = gateway;
    session.#transactionId = transactionId;
    session.#passcode = passcode;
    session.#link = await Link.open(gateway);
    try {
      const asked = fetchKeyList(session.#link, bankRoot, highestSerial);
      asked.catch(() => {}); // looked at below, after the token
      session.token = await session.#link.request('TokenQuery', { transaction_id: transactionId, passcode });
      session.#endsAt = performance.now() + session.token.session_left_ms; // PG-SES-1
      if (session.token.status !== 'VALID') throw new TokenRefused(session.token);
      Object.assign(session, await session.#inTime(asked)); // keyList, signedKeyList
      if (session.token.bank_id !== bankRoot.bankId) // PG-PAY-1
        throw new Untrusted('bank_id', "the token's bank is not the pinned one");
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  /** What is waited for, unless the session's time is over first (PG-SES-1). */
  async #inTime(awaited) {
    let timer;
    const timeUp = new Promise((_resolve, reject) => {
      timer = setTimeout(() => reject(new NotSent("the session's time is over")), this.msLeft);
    });
    try {
      return await Promise.race([awaited, timeUp]);
    } finally {
      clearTimeout(timer);
    }
  }

  get msLeft() {
    return Math.max(0, this.#endsAt - performance.now());
  }

  close() {
    this.#link.close();
  }

  /**
   * Seals the credentials for these very terms; what is returned must be written down, durably, before `send` (PG-PAY-1).
   * User ID and password are in normal form C (PG-PWD-1); the customer has authorised what the token says.
   */
  async seal(userId, password) {
    const { bank_id, gateway_id, merchant_id, session_id, amount_minor, currency } = this.token;
    const terms = { // PG-TRM-2
      bank_id, gateway_id, merchant_id, transaction_id: this.#transactionId, payment_id: randomBytes(16), session_id,
      amount_minor, currency, authorised_at_ms: BigInt(Date.now()),
    };
    const key = await passwordKey(bank_id, userId, password, this.keyList.password_key);
    const suiteKey = chooseSuiteKey(this.keyList);
    const envelope = sealEnvelope(suiteKey, terms, credentialsPlaintext(userId, key));
    return { terms, key_id: suiteKey.key_id, envelope, envelope_hash: sha256(envelope), signed_key_list: this.signedKeyList };
  }

  /** Sends the payment and asks until an answer ends the session or its time is over (6.8). */
  async send(payment) {
    if (this.msLeft === 0) throw new NotSent("the session's time was over before the payment was sent"); // PG-SES-1
    const { session_id, payment_id, authorised_at_ms } = payment.terms;
    const { key_id, envelope } = payment;
    const credentials = { session_id, payment_id, authorised_at_ms, key_id, envelope };
    const query = { payment_id, transaction_id: this.#transactionId, passcode: this.#passcode };
    let ask = () => this.#link.request('EncryptedCredentials', credentials, this.msLeft);
    let isQuestion = false;
    let verdict = { status: 'IN_DOUBT', reason: 'NONE', utr: '', proven: false };
    while (this.msLeft > 0) {
      try {
        const answer = judge(await ask(), [this.keyList], payment);
        const isRefusedQuestion = isQuestion && QUESTION_REFUSED.includes(answer.reason); // PG-STA-2
        if (!isRefusedQuestion && (answer.proven || ['REFUSED', 'UNTRUSTED'].includes(answer.status))) return answer; // FINAL
        verdict = answer; // NOT_FINAL
      } catch (error) {
        if (error instanceof LinkLost) await this.#reconnect();
        else if (!(error instanceof RequestFailed)) throw error; // an Error leaves the payment in doubt (PG-CLI-3)
      }
      await sleep(Math.min(STATUS_POLL_MS, this.msLeft));
      isQuestion = true;
      ask = () => this.#link.request('StatusQuery', query, Math.min(ANSWER_MS, this.msLeft)); // no other payment ID (PG-CLI-2)
    }
    return verdict;
  }

  /** Connects again, with a wait that grows and is jittered (PG-CLI-2), for as long as the session lasts. */
  async #reconnect() {
    for (let wait = RECONNECT_MS.first; this.msLeft > 0; wait = Math.min(2 * wait, RECONNECT_MS.most)) {
      await sleep(Math.min(wait * (0.5 + Math.random() / 2), this.msLeft));
      try {
        this.#link = await Link.open(this.#gateway);
        return;
      } catch (error) {
        if (!(error instanceof LinkLost || error instanceof RequestFailed)) throw error;
      }
    }
  }
}
