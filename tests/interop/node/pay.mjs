#!/usr/bin/env node
// Pays one payment token, or asks what became of a payment.

import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { LinkLost, NotSent, RequestFailed, Session, TokenRefused, queryStatus } from './client.mjs';
import { Untrusted, parseBankRoot } from './crypto.mjs';
import { ProtocolError, normaliseTyped } from './wire.mjs';

const USAGE = `usage: node pay.mjs --gateway HOST:PORT --bank-root FILE --transaction ID --passcode-file FILE
                    --user ID --password-file FILE [--pending FILE] [--json]
       node pay.mjs status --gateway HOST:PORT --bank-root FILE --passcode-file FILE
                    [--payment ID] [--pending FILE] [--json]`;
const EXIT = { PAID: 0, DECLINED: 1, USAGE: 2, UNKNOWN: 4, NO_CONNECTION: 5, TOKEN_REFUSED: 6, UNTRUSTED: 9 };

class UsageError extends Error {}

// ---- Arguments and files ----------------------------------------------------------------------------------------------

const REQUIRED = {
  pay: ['gateway', 'bank-root', 'transaction', 'passcode-file', 'user', 'password-file'],
  status: ['gateway', 'bank-root', 'passcode-file'],
};
const OPTIONAL = { pay: ['pending'], status: ['payment', 'pending'] };

function readArguments(argv) {
  const command = argv[0] === 'status' ? 'status' : 'pay';
  const options = { json: { type: 'boolean' }, help: { type: 'boolean' } };
  for (const name of [...REQUIRED[command], ...OPTIONAL[command]]) options[name] = { type: 'string' };
  let values;
  try {
    ({ values } = parseArgs({ args: argv.slice(command === 'status' ? 1 : 0), options }));
  } catch (error) {
    throw new UsageError(error.message.split('. ')[0]);
  }
  if (values.help) return { command: 'help' };
  const missing = REQUIRED[command].find((name) => values[name] === undefined);
  if (missing) throw new UsageError(`--${missing} is missing`);
  return { command, pending: 'paygate-pending.jsonl', ...values };
}

/** The one line of text in a file. */
function readLine(option, path) {
  let line;
  try {
    line = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path));
  } catch (error) {
    throw new UsageError(`--${option}: can't read ${path}: ${error.code ?? error.message}`);
  }
  return line.replace(/\r?\n$/, '');
}

/** A value as it goes on the wire; the message of a failure names the option and not the value. */
function typed(option, name, value) {
  try {
    return normaliseTyped(name, value);
  } catch (error) {
    if (error instanceof ProtocolError) throw new UsageError(`--${option}: not a ${name.replace('_', ' ')} by section 3.4`);
    throw error;
  }
}

function readGateway(value) {
  const match = /^\[?([^\]]+)\]?:([0-9]{1,5})$/.exec(value);
  const port = Number(match?.[2]);
  if (!(port >= 1 && port <= 65535)) throw new UsageError('--gateway: not HOST:PORT');
  return { host: match[1], port };
}

function readBankRoot(path) {
  const bankRoot = parseBankRoot(readLine('bank-root', path));
  if (!bankRoot) throw new UsageError(`--bank-root: ${path} is not a bank ID, a blank and 64 hexadecimal digits`);
  return bankRoot;
}

// ---- What is written down ---------------------------------------------------------------------------------------------

/**
 * The pending file: lines of JSON, only ever appended to, each durable before `append` returns. It holds no secret.
 * {"payment": ...} before a payment is sent, {"settled": ...} when a receipt has settled it (PG-CLI-4),
 * {"key_list": ...} for each new highest serial (PG-KEY-5).
 */
class PendingFile {
  constructor(path) {
    this.path = path;
    try {
      this.file = openSync(path, 'a+', 0o600);
      if (!fstatSync(this.file).isFile()) throw new Error('not a file');
      const text = readFileSync(this.file, 'utf8');
      const whole = text.slice(0, text.lastIndexOf('\n') + 1); // a line that a crash cut off was never acted upon
      if (whole.length < text.length) ftruncateSync(this.file, Buffer.byteLength(whole));
      this.entries = whole.split('\n').filter(Boolean).map((line) => JSON.parse(line));
      if (!this.entries.every((entry) => entry !== null && typeof entry === 'object')) throw new Error('not entries');
      const directory = openSync(dirname(path), 'r'); // the file's own name must last, too
      fsyncSync(directory);
      closeSync(directory);
    } catch (error) {
      throw new UsageError(`--pending: can't use ${path}: ${error.code ?? 'it is not a pending file'}`);
    }
  }

  append(entry) {
    try {
      writeSync(this.file, `${JSON.stringify(entry)}\n`);
      fsyncSync(this.file);
    } catch (error) {
      throw new UsageError(`--pending: can't write ${this.path}: ${error.code}`);
    }
    this.entries.push(entry);
  }

  highestSerial(bankId) {
    const noted = this.entries.findLast((entry) => entry.key_list?.bank_id === bankId); // they only grow
    return BigInt(noted?.key_list.serial ?? 0);
  }

  noteSerial(bankId, serial) {
    if (serial > this.highestSerial(bankId)) this.append({ key_list: { bank_id: bankId, serial: String(serial) } });
  }

  /** The key list is kept with the payment: a receipt under it may come when a newer one has its key no more (PG-RCP-6). */
  notePayment({ terms, envelope_hash, signed_key_list }) {
    this.append({ payment: { terms: toJson(terms), ...toJson({ envelope_hash, signed_key_list }) } });
  }

  /** A receipt settles a payment; what it says is reported even if it can't be written down. */
  noteVerdict({ terms }, verdict) {
    if (!verdict.proven) return;
    try {
      this.append({ settled: { payment_id: terms.payment_id.toString('hex'), ...toJson(verdict) } });
    } catch (error) {
      console.error(`pay: ${error.message}`);
    }
  }

  /** The payment with this ID, or the last one. */
  findPayment(paymentId) {
    const found = this.entries.findLast(
      ({ payment }) => payment && (paymentId === undefined || payment.terms.payment_id === paymentId.toLowerCase()),
    );
    if (!found) throw new UsageError(`--pending: ${this.path} has no such payment`);
    const { terms, envelope_hash, signed_key_list } = found.payment;
    return {
      terms: {
        ...terms,
        payment_id: Buffer.from(terms.payment_id, 'hex'),
        session_id: Buffer.from(terms.session_id, 'hex'),
        amount_minor: BigInt(terms.amount_minor),
        authorised_at_ms: BigInt(terms.authorised_at_ms),
      },
      envelope_hash: Buffer.from(envelope_hash, 'hex'),
      signed_key_list: Buffer.from(signed_key_list, 'hex'),
    };
  }
}

/** Bytes as hexadecimal, big integers as decimal strings. */
function toJson(values) {
  const plain = (value) => (Buffer.isBuffer(value) ? value.toString('hex') : typeof value === 'bigint' ? String(value) : value);
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, plain(value)]));
}

// ---- What is said -----------------------------------------------------------------------------------------------------

/** Currencies whose minor unit by ISO 4217 is not a hundredth. */
const MINOR_DIGITS = {
  BIF: 0, CLP: 0, DJF: 0, GNF: 0, ISK: 0, JPY: 0, KMF: 0, KRW: 0, PYG: 0, RWF: 0, UGX: 0, UYI: 0, VND: 0, VUV: 0, XAF: 0,
  XOF: 0, XPF: 0, BHD: 3, IQD: 3, JOD: 3, KWD: 3, LYD: 3, OMR: 3, TND: 3, CLF: 4, UYW: 4,
};

function amountText({ amount_minor, currency }) {
  const digits = MINOR_DIGITS[currency] ?? 2;
  const text = String(amount_minor).padStart(digits + 1, '0');
  return `${digits ? `${text.slice(0, -digits)}.${text.slice(-digits)}` : text} ${currency}`;
}

/** Prints the result: one JSON object, or one line for people. */
function report(json, exit, line, details) {
  console.log(json ? JSON.stringify({ exit, message: line, ...details }, null, 1) : line);
  return exit;
}

function reportVerdict(json, payment, verdict) {
  const { serial, ...rest } = verdict;
  const details = { ...toJson(rest), terms: toJson(payment.terms), envelope_hash: payment.envelope_hash.toString('hex') };
  const what = `${amountText(payment.terms)} to ${payment.terms.merchant_id}`;
  const doubt = `ask again with "status", payment ${details.terms.payment_id}`;
  if (verdict.proven && verdict.status === 'PAID') return report(json, EXIT.PAID, `paid ${what}, UTR ${verdict.utr}`, details);
  if (verdict.proven) return report(json, EXIT.DECLINED, `declined: ${verdict.reason}; no money moved`, details);
  if (verdict.status === 'UNTRUSTED')
    return report(json, EXIT.UNTRUSTED, `${verdict.problem}; money may have moved, ${doubt}`, details);
  if (verdict.status === 'REFUSED')
    return report(json, EXIT.UNKNOWN, `the gateway says, without proof: REFUSED ${verdict.reason}; ${doubt}`, details);
  return report(json, EXIT.UNKNOWN, `the outcome is open (${verdict.status}); money may have moved, ${doubt}`, details);
}

/** What went wrong, with what that says of the money (PG-CLI-1). */
function reportFailure(command, json, error) {
  const failures = [
    [UsageError, EXIT.USAGE], [TokenRefused, EXIT.TOKEN_REFUSED], [Untrusted, EXIT.UNTRUSTED],
    [LinkLost, EXIT.NO_CONNECTION], [RequestFailed, EXIT.NO_CONNECTION], [NotSent, EXIT.NO_CONNECTION],
  ];
  const exit = failures.find(([type]) => error instanceof type)?.[1];
  if (exit === EXIT.USAGE || exit === undefined) {
    console.error(exit ? `pay: ${error.message}` : error); // a fault of this program leaves the outcome unknown
    return exit ?? EXIT.UNKNOWN;
  }
  const money = command === 'status' ? 'the payment is as it was' : 'nothing was sent, no money has moved';
  return report(json, exit, `${error.message}; ${money}`, error.token && { token: toJson(error.token) });
}

// ---- Commands ---------------------------------------------------------------------------------------------------------

async function pay(options) {
  const gateway = readGateway(options.gateway);
  const bankRoot = readBankRoot(options['bank-root']);
  const transactionId = typed('transaction', 'transaction_id', options.transaction);
  const passcode = typed('passcode-file', 'passcode', readLine('passcode-file', options['passcode-file']));
  const userId = typed('user', 'user_id', options.user);
  const password = typed('password-file', 'password', readLine('password-file', options['password-file']));
  const pending = new PendingFile(options.pending);
  const highestSerial = pending.highestSerial(bankRoot.bankId);
  const session = await Session.open({ gateway, bankRoot, highestSerial, transactionId, passcode });
  try {
    pending.noteSerial(bankRoot.bankId, session.keyList.serial);
    const { merchant_name, merchant_id } = session.token;
    if (!options.json) console.log(`paying ${amountText(session.token)} to ${merchant_name || merchant_id}`);
    const payment = await session.seal(userId, password);
    pending.notePayment(payment); // PG-PAY-1: durable before a byte of it leaves
    const verdict = await session.send(payment);
    pending.noteVerdict(payment, verdict);
    return reportVerdict(options.json, payment, verdict);
  } finally {
    session.close();
  }
}

async function status(options) {
  const gateway = readGateway(options.gateway);
  const bankRoot = readBankRoot(options['bank-root']);
  const passcode = typed('passcode-file', 'passcode', readLine('passcode-file', options['passcode-file']));
  const pending = new PendingFile(options.pending);
  const payment = pending.findPayment(options.payment);
  const highestSerial = pending.highestSerial(bankRoot.bankId);
  const verdict = await queryStatus({ gateway, bankRoot, highestSerial, payment, passcode });
  pending.noteSerial(bankRoot.bankId, verdict.serial);
  pending.noteVerdict(payment, verdict);
  return reportVerdict(options.json, payment, verdict);
}

let options = {};
try {
  options = readArguments(process.argv.slice(2));
  if (options.command === 'help') console.log(USAGE);
  else process.exitCode = await (options.command === 'status' ? status : pay)(options);
} catch (error) {
  process.exitCode = reportFailure(options.command, options.json, error);
}
