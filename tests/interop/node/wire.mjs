// The codec of the paygate protocol, version 1: every message and record that a client meets, decoded and encoded strictly.
// Section and requirement numbers (PG-...) are those of spec/protocol.md.

import { crc32 } from 'node:zlib';

export const HEADER_SIZE = 20;
const MAGIC = 0x5047;
const PROTOCOL_VERSION = 1;
const FLAG_AUTHENTICATED = 0x0001; // PG-FRM-1
const TIME_MS_MAX = 253402300799999n; // PG-ENC-11
const AMOUNT_MINOR_MAX = 999999999999999n; // PG-ENC-12
const UINT64_MAX = 0xffffffffffffffffn;

// ---- Codes: the registries of the specification, name to number -------------------------------------------------------

export const Role = { CLIENT: 1, GATEWAY: 2, BANK: 3 };
export const KeysStatus = { AVAILABLE: 1, UNAVAILABLE: 2, UNKNOWN_BANK: 3 };
export const TokenStatus = { VALID: 1, INVALID: 2, PAID: 3, EXPIRED: 4, LOCKED: 5, IN_FLIGHT: 6 };
export const PaymentStatus = { PAID: 1, DECLINED: 2, PENDING: 3, REFUSED: 4, UNKNOWN: 5 };
export const TransferOutcome = { POSTED: 1, DECLINED: 2, FENCED: 3, MISMATCH: 4, UNAVAILABLE: 5 };
export const KemId = { X25519: 0x0020, MLKEM768_X25519: 0x647a };
export const KdfId = { HKDF_SHA256: 0x0001 };
export const AeadId = { AES_128_GCM: 0x0001, AES_256_GCM: 0x0002 };
export const Reason = {
  NONE: 0,
  LATE: 1, KEY_RETIRED: 2, TERMS: 3, TOKEN_ALREADY_PAID: 4, MERCHANT_UNKNOWN: 5, CURRENCY: 6, CREDENTIALS: 7, FUNDS: 8,
  FENCED: 9,
  DRAINING: 64, SESSION: 65, BANK_UNREACHABLE: 66, STORE_UNAVAILABLE: 67, PAYMENT_MISMATCH: 68, TOKEN_PAID: 69,
  TOKEN_IN_FLIGHT: 70, TOKEN_WITHDRAWN: 71, PASSCODE: 72, TOKEN_LOCKED: 73,
};
export const ErrorCode = {
  BAD_MAGIC: 1, UNSUPPORTED_VERSION: 2, UNKNOWN_KIND: 3, UNKNOWN_FLAG: 4, BODY_TOO_SMALL: 5, BODY_TOO_LARGE: 6,
  NOT_AUTHENTICATED: 7, UNEXPECTED_MAC: 8, BAD_CHECKSUM: 9, BAD_MAC: 10, TRUNCATED_FIELD: 11, TRAILING_BYTES: 12,
  BAD_VALUE: 13, UNEXPECTED_MESSAGE: 14, DUPLICATE_CORRELATION: 15, UNKNOWN_CORRELATION: 16, UNKNOWN_PARTY: 17,
  NO_COMMON_VERSION: 18, HELLO_TIMEOUT: 32, FRAME_TIMEOUT: 33, IDLE_TIMEOUT: 34, TRUNCATED_FRAME: 35,
  TOO_MANY_REQUESTS: 48, TOO_MANY_CONNECTIONS: 49, SHUTTING_DOWN: 50, INTERNAL: 63,
};

const ERRORS_THAT_DO_NOT_CLOSE = ['TOO_MANY_REQUESTS', 'SHUTTING_DOWN']; // PG-ERR-6

/** What a receiver must refuse: an error code of section 9, and the field that is at fault. */
export class ProtocolError extends Error {
  constructor(code, path = '') {
    super(path ? `${code} (${path})` : code);
    this.code = code;
    this.path = path;
  }
}

// ---- Field types (3.2): each reads from a Reader and writes into an array of buffers ----------------------------------

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.offset = 0;
  }

  take(size, path) {
    if (this.offset + size > this.bytes.length) throw new ProtocolError('TRUNCATED_FIELD', path); // PG-ENC-4
    return this.bytes.subarray(this.offset, (this.offset += size));
  }
}

/** Refuses a value outside its range (PG-ENC-3). */
function check(condition, path) {
  if (!condition) throw new ProtocolError('BAD_VALUE', path);
}

const readUint = (bytes) => (bytes.length === 8 ? bytes.readBigUInt64BE() : bytes.readUIntBE(0, bytes.length)); // PG-ENC-1

function writeUint(size, value) {
  const bytes = Buffer.alloc(size);
  if (size === 8) bytes.writeBigUInt64BE(value);
  else bytes.writeUIntBE(value, 0, size);
  return bytes;
}

/** An integer in JavaScript: a number up to 4 bytes, a BigInt with 8. */
const uint = (size, minimum, maximum) => ({
  read(reader, path) {
    const value = readUint(reader.take(size, path));
    check(value >= minimum && value <= maximum, path);
    return value;
  },
  write: (value, out) => out.push(writeUint(size, value)),
});

/** A code in JavaScript: its name. */
const code = (size, codes) => ({
  read(reader, path) {
    const number = readUint(reader.take(size, path));
    const name = Object.keys(codes).find((each) => codes[each] === number);
    check(name !== undefined, path);
    return name;
  },
  write: (name, out) => out.push(writeUint(size, codes[name])),
});

const bool = {
  read(reader, path) {
    const [byte] = reader.take(1, path);
    check(byte <= 1, path);
    return byte === 1;
  },
  write: (value, out) => out.push(writeUint(1, value ? 1 : 0)),
};

const isZero = (bytes) => bytes.every((byte) => byte === 0);

const bytes = (size, { zeroAllowed = true } = {}) => ({
  read(reader, path) {
    const value = reader.take(size, path);
    check(zeroAllowed || !isZero(value), path);
    return value;
  },
  write(value, out, path) {
    check(value.length === size, path);
    out.push(value);
  },
});

/** A length (PG-ENC-2) and its bytes; the maximum is checked before the bytes are taken (PG-ENC-7). */
function readSized(reader, path, prefixSize, minimum, maximum) {
  const size = readUint(reader.take(prefixSize, path));
  check(size <= maximum, path);
  const value = reader.take(size, path);
  check(size >= minimum, path);
  return value;
}

const blob = (minimum, maximum) => ({
  read: (reader, path) => readSized(reader, path, 2, minimum, maximum),
  write: (value, out) => out.push(writeUint(2, value.length), value),
});

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const text = (minimum, maximum, allowed) => ({
  read(reader, path) {
    const encoded = readSized(reader, path, 1, minimum, maximum);
    let value;
    try {
      value = utf8.decode(encoded);
    } catch {
      throw new ProtocolError('BAD_VALUE', path);
    }
    check(value === '' || allowed(value), path); // what may be empty may be so whatever its characters (3.4)
    return value;
  },
  write(value, out, path) {
    const encoded = Buffer.from(value);
    check(encoded.length <= maximum, path);
    out.push(writeUint(1, encoded.length), encoded);
  },
});

const list = (minimum, maximum, item) => ({
  read(reader, path) {
    const [count] = reader.take(1, path);
    check(count >= minimum && count <= maximum, path);
    return Array.from({ length: count }, () => item.read(reader, path));
  },
  write(values, out, path) {
    out.push(writeUint(1, values.length));
    for (const value of values) item.write(value, out, path);
  },
});

/** A record: its fields in wire order (PG-ENC-7), then its rules in their order (PG-ENC-5). */
const record = (fields, rules = []) => ({
  fields,
  read(reader, path = '') {
    const inside = (name) => (path ? `${path}.${name}` : name);
    const values = {};
    for (const [name, type] of Object.entries(fields)) values[name] = type.read(reader, inside(name));
    for (const [name, holds] of rules) check(holds(values), inside(name));
    return values;
  },
  write(values, out, path = '') {
    for (const [name, type] of Object.entries(fields)) type.write(values[name], out, path ? `${path}.${name}` : name);
  },
});

// ---- The kinds of text (3.4) ------------------------------------------------------------------------------------------

const matches = (pattern) => (value) => pattern.test(value);
const isIdentifier = matches(/^[A-Za-z0-9][A-Za-z0-9._-]*$/); // PG-ENC-8
const isPasscode = matches(/^[!-{}~]+$/); // PG-ENC-9
const isText = (value) => value === value.normalize('NFC') && !/[\p{C}\p{Zl}\p{Zp}]/u.test(value); // PG-ENC-10
const isPrintableAscii = matches(/^[ -~]*$/); // PG-ERR-2
const isCurrency = matches(/^[A-Z]{3}$/);
const isUtr = matches(/^[A-Z]{4}P[0-9]{17}$/);

const identifier = (minimum = 1) => text(minimum, 32, isIdentifier);
const passcode = text(1, 32, isPasscode);
const utr = text(0, 22, isUtr);
const timeMs = uint(8, 0n, TIME_MS_MAX);
const notZero16 = bytes(16, { zeroAllowed: false });

/** What a customer types, with the types that it has on the wire. */
const TYPED = { transaction_id: identifier(), passcode, user_id: text(1, 64, isText), password: text(1, 255, isText) };

/** Brings what was typed into normal form C (PG-PWD-1) and refuses what no receiver would take (PG-ENC-6). */
export function normaliseTyped(name, value) {
  const normal = value.normalize('NFC');
  encode(TYPED[name], normal);
  return normal;
}

// ---- Records (8) ------------------------------------------------------------------------------------------------------

export const Terms = record({
  bank_id: identifier(),
  gateway_id: identifier(),
  merchant_id: identifier(),
  transaction_id: identifier(),
  payment_id: notZero16,
  session_id: notZero16,
  amount_minor: uint(8, 1n, AMOUNT_MINOR_MAX),
  currency: text(3, 3, isCurrency),
  authorised_at_ms: timeMs,
});

export const PasswordKeyParameters = record(
  { memory_kib: uint(4, 8, 262144), iteration_count: uint(4, 1, 16), lane_count: uint(1, 1, 8) },
  [['memory_kib', (it) => it.memory_kib >= 8 * it.lane_count]],
);

export const SuiteKey = record({
  key_id: bytes(8),
  kem_id: code(2, KemId),
  kdf_id: code(2, KdfId),
  aead_id: code(2, AeadId),
  public_key: blob(32, 2048),
});

export const ReceiptKey = record({ receipt_key_id: bytes(8), public_key: bytes(32) });

export const KeyList = record(
  {
    bank_id: identifier(),
    serial: uint(8, 1n, UINT64_MAX),
    valid_from_ms: timeMs,
    valid_until_ms: timeMs,
    password_key: PasswordKeyParameters,
    suite_keys: list(1, 8, SuiteKey),
    receipt_keys: list(1, 8, ReceiptKey),
  },
  [['valid_until_ms', (it) => it.valid_until_ms > it.valid_from_ms]],
);

export const SignedKeyList = record({ key_list: blob(1, 24576), signature: bytes(64) });

export const CredentialsPlaintext = record(
  {
    format_version: uint(1, 1, 1),
    user_id_size: uint(1, 1, 64),
    user_id: bytes(64),
    password_key: bytes(32),
    nonce: bytes(16),
    padding: bytes(142),
  },
  [
    ['user_id', (it) => isZero(it.user_id.subarray(it.user_id_size))],
    ['padding', (it) => isZero(it.padding)],
  ],
);

const isBankReason = (reason) => Reason[reason] >= 1 && Reason[reason] <= 63;
const isGatewayReason = (reason) => Reason[reason] >= 64;
const isFinal = (outcome) => ['POSTED', 'DECLINED', 'FENCED'].includes(outcome);

/** The bank's reason and UTR for its outcome: the same rules in a result and in a receipt. */
const outcomeRules = [
  ['reason', (it) => {
    if (it.outcome === 'DECLINED') return isBankReason(it.reason) && it.reason !== 'FENCED';
    return it.reason === (it.outcome === 'FENCED' ? 'FENCED' : 'NONE');
  }],
  ['utr', (it) => (it.utr !== '') === (it.outcome === 'POSTED')],
];

export const ReceiptStatement = record(
  {
    receipt_key_id: bytes(8),
    outcome: code(1, TransferOutcome),
    reason: code(1, Reason),
    terms: Terms,
    utr,
    bank_time_ms: timeMs,
    envelope_hash: bytes(32),
  },
  [['outcome', (it) => isFinal(it.outcome)], ...outcomeRules],
);

export const Receipt = record(
  {
    statement: ReceiptStatement,
    leaf_index: uint(4, 0, 0xffffffff),
    leaf_count: uint(4, 1, 0xffffffff),
    path: list(0, 16, bytes(32)),
    signature: bytes(64),
  },
  [['leaf_index', (it) => it.leaf_index < it.leaf_count]],
);

// ---- Messages (5, 6) --------------------------------------------------------------------------------------------------

const Echo = record({ echo_data: bytes(8) });

const paymentAnswer = (...moreRules) => record(
  { payment_id: notZero16, status: code(1, PaymentStatus), reason: code(1, Reason), utr, receipt: blob(0, 1024) },
  [
    ...moreRules,
    ['reason', (it) => {
      if (it.status === 'DECLINED') return isBankReason(it.reason);
      return it.status === 'REFUSED' ? isGatewayReason(it.reason) : it.reason === 'NONE';
    }],
    ['utr', (it) => it.utr !== '' || it.status !== 'PAID'],
    ['utr', (it) => it.utr === '' || it.status === 'PAID' || it.reason === 'TOKEN_PAID'],
    ['receipt', (it) => (it.receipt.length > 0) === ['PAID', 'DECLINED'].includes(it.status)],
  ],
);

const TransferAnswer = record(
  { payment_id: notZero16, outcome: code(1, TransferOutcome), reason: code(1, Reason), utr, receipt: blob(0, 1024) },
  [...outcomeRules, ['receipt', (it) => (it.receipt.length > 0) === isFinal(it.outcome)]],
);

const saysNothing = (it) => ['INVALID', 'LOCKED'].includes(it.status);

const TokenAck = record(
  {
    status: code(1, TokenStatus),
    session_id: bytes(16),
    session_left_ms: uint(4, 0, 30000),
    merchant_id: identifier(0),
    merchant_name: text(0, 64, isText),
    amount_minor: uint(8, 0n, AMOUNT_MINOR_MAX),
    currency: text(0, 3, isCurrency),
    gateway_id: identifier(),
    bank_id: identifier(),
    utr,
  },
  [
    ['session_id', (it) => !isZero(it.session_id) === (it.status === 'VALID')],
    ['session_left_ms', (it) => (it.session_left_ms > 0) === (it.status === 'VALID')],
    ['merchant_id', (it) => (it.merchant_id === '') === saysNothing(it)],
    ['amount_minor', (it) => (it.amount_minor === 0n) === saysNothing(it)],
    ['currency', (it) => (it.currency === '') === saysNothing(it)],
    ['merchant_name', (it) => it.merchant_name === '' || !saysNothing(it)],
    ['utr', (it) => (it.utr !== '') === (it.status === 'PAID')],
  ],
);

/**
 * The kinds of 4.2 with the range of their bodies. The requests to the bank have no body here: a client refuses them from
 * their header. The kinds of the pipes are unknown on a socket (PG-FRM-8), the reserved ones too (PG-FRM-7).
 */
export const KINDS = {
  Hello: { kind: 0x01, minimum: 5, maximum: 43, reply: 'HelloAck',
    body: record({ role: code(1, Role), party_id: identifier(), versions: list(1, 8, uint(1, 1, 255)) }) },
  HelloAck: { kind: 0x81, minimum: 8, maximum: 39,
    body: record({ role: code(1, Role), party_id: identifier(), version: uint(1, 1, 255),
      frame_size_max: uint(4, 20, 65571) }) },
  Echo: { kind: 0x02, minimum: 8, maximum: 8, reply: 'EchoReply', body: Echo },
  EchoReply: { kind: 0x82, minimum: 8, maximum: 8, body: Echo },
  Error: { kind: 0xff, minimum: 4, maximum: 124,
    body: record({ code: code(2, ErrorCode), closes: bool, text: text(0, 120, isPrintableAscii) },
      [['closes', (it) => it.closes === !ERRORS_THAT_DO_NOT_CLOSE.includes(it.code)]]) },
  BankKeysQuery: { kind: 0x03, minimum: 2, maximum: 33, reply: 'BankKeys', body: record({ bank_id: identifier() }) },
  BankKeys: { kind: 0x83, minimum: 3, maximum: 24645,
    body: record({ status: code(1, KeysStatus), signed_key_list: blob(0, 24642) },
      [['signed_key_list', (it) => (it.signed_key_list.length > 0) === (it.status === 'AVAILABLE')]]) },
  TokenQuery: { kind: 0x10, minimum: 4, maximum: 66, reply: 'TokenAck',
    body: record({ transaction_id: identifier(), passcode }) },
  TokenAck: { kind: 0x90, minimum: 37, maximum: 220, body: TokenAck },
  EncryptedCredentials: { kind: 0x11, minimum: 51, maximum: 2098, reply: 'PaymentAck',
    body: record({ session_id: notZero16, payment_id: notZero16, authorised_at_ms: timeMs, key_id: bytes(8),
      envelope: blob(1, 2048) }) },
  PaymentAck: { kind: 0x91, minimum: 21, maximum: 1067,
    body: paymentAnswer(['status', (it) => it.status !== 'UNKNOWN']) },
  StatusQuery: { kind: 0x12, minimum: 20, maximum: 82, reply: 'StatusAck',
    body: record({ payment_id: notZero16, transaction_id: identifier(), passcode }) },
  StatusAck: { kind: 0x92, minimum: 21, maximum: 1067, body: paymentAnswer() },
  TransferRequest: { kind: 0x20, minimum: 75, maximum: 2246 },
  TransferResult: { kind: 0xa0, minimum: 21, maximum: 1067, body: TransferAnswer },
  ResolveRequest: { kind: 0x21, minimum: 92, maximum: 216 },
  ResolveResult: { kind: 0xa1, minimum: 21, maximum: 1067, body: TransferAnswer },
};
const KIND_NAMES = new Map(Object.entries(KINDS).map(([name, { kind }]) => [kind, name]));

// ---- Encoding and decoding --------------------------------------------------------------------------------------------

/** Decodes exactly one value of a type (PG-ENC-3 to PG-ENC-7); throws a ProtocolError for anything else. */
export function decode(type, encoding) {
  const reader = new Reader(encoding);
  const values = type.read(reader);
  if (reader.offset < encoding.length) throw new ProtocolError('TRAILING_BYTES'); // PG-ENC-4
  return values;
}

/** Encodes a value, and checks it as its receiver will (PG-ENC-6). */
export function encode(type, values) {
  const parts = [];
  type.write(values, parts);
  const encoding = Buffer.concat(parts);
  decode(type, encoding);
  return encoding;
}

/** CRC-32 over the header before it and the body (PG-FRM-9). */
const checksum = (frame) => crc32(frame.subarray(HEADER_SIZE), crc32(frame.subarray(0, HEADER_SIZE - 4)));

/** A whole frame of a client link: version 1, no MAC (PG-MAC-3). */
export function encodeFrame(kindName, correlationId, message) {
  const { kind, body } = KINDS[kindName];
  const encoded = encode(body, message);
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt16BE(MAGIC, 0);
  header.writeUInt8(PROTOCOL_VERSION, 2);
  header.writeUInt8(kind, 3);
  header.writeUInt16BE(encoded.length, 6);
  header.writeBigUInt64BE(correlationId, 8);
  const frame = Buffer.concat([header, encoded]);
  frame.writeUInt32BE(checksum(frame), HEADER_SIZE - 4);
  return frame;
}

/** Checks a header of a client link in the order of PG-FRM-3 and tells its kind. */
function checkHeader(header) {
  if (header.readUInt16BE(0) !== MAGIC) throw new ProtocolError('BAD_MAGIC', 'magic');
  if (header.readUInt8(2) !== PROTOCOL_VERSION) throw new ProtocolError('UNSUPPORTED_VERSION', 'version');
  const kindName = KIND_NAMES.get(header.readUInt8(3));
  if (kindName === undefined) throw new ProtocolError('UNKNOWN_KIND', 'kind');
  const flags = header.readUInt16BE(4);
  if (flags & ~FLAG_AUTHENTICATED) throw new ProtocolError('UNKNOWN_FLAG', 'flags');
  const bodySize = header.readUInt16BE(6);
  if (bodySize < KINDS[kindName].minimum) throw new ProtocolError('BODY_TOO_SMALL', 'body_size'); // PG-FRM-4
  if (bodySize > KINDS[kindName].maximum) throw new ProtocolError('BODY_TOO_LARGE', 'body_size');
  if (flags & FLAG_AUTHENTICATED) throw new ProtocolError('UNEXPECTED_MAC', 'flags'); // PG-MAC-3
  return { kindName, bodySize };
}

/**
 * Takes the bytes of a client link however they are cut (PG-FRM-2). `admit(kindName)` may throw for a kind that is not
 * allowed now, as soon as its header is there (PG-FRM-3); `deliver({kindName, correlationId, message})` gets each frame.
 */
export class FrameReader {
  #admit;
  #deliver;
  #frame = Buffer.alloc(HEADER_SIZE);
  #filled = 0;
  #kindName;

  constructor(admit, deliver) {
    this.#admit = admit;
    this.#deliver = deliver;
  }

  /** Whether the stream stands in the middle of a frame. */
  get withinFrame() {
    return this.#filled > 0;
  }

  push(chunk) {
    for (let taken = 0; taken < chunk.length; ) {
      const copied = chunk.copy(this.#frame, this.#filled, taken);
      taken += copied;
      this.#filled += copied;
      if (this.#filled < this.#frame.length) return;
      if (this.#filled === HEADER_SIZE) this.#beginBody();
      else this.#endFrame();
    }
  }

  #beginBody() {
    const { kindName, bodySize } = checkHeader(this.#frame);
    this.#admit(kindName);
    this.#kindName = kindName;
    this.#frame = Buffer.concat([this.#frame], HEADER_SIZE + bodySize);
  }

  /** Checksum first, then the body (PG-FRM-5). */
  #endFrame() {
    const frame = this.#frame;
    this.#frame = Buffer.alloc(HEADER_SIZE);
    this.#filled = 0;
    if (frame.readUInt32BE(HEADER_SIZE - 4) !== checksum(frame)) throw new ProtocolError('BAD_CHECKSUM', 'checksum');
    const message = decode(KINDS[this.#kindName].body, frame.subarray(HEADER_SIZE));
    this.#deliver({ kindName: this.#kindName, correlationId: frame.readBigUInt64BE(8), message });
  }
}
