// Checks this client against the specification's vectors. PAYGATE_SPEC is the spec folder, by default ../../../spec.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as wire from './wire.mjs';
import { Link } from './client.mjs';
import {
  Untrusted, chooseSuiteKey, credentialsPlaintext, matchAnswer, merkleRoot, passwordKey, sealEnvelope, sha256,
  verifyKeyList, verifyReceipt,
} from './crypto.mjs';

const SPEC = resolve(process.env.PAYGATE_SPEC ?? resolve(import.meta.dirname, '../../../spec'));
const read = (name) => JSON.parse(readFileSync(resolve(SPEC, 'vectors', name)));
const hex = (text) => Buffer.from(text, 'hex');

/** A decoded value as the vectors write it: bytes in hexadecimal, u64 as text, a code with its name. */
function asVector(value, expected) {
  if (Array.isArray(value)) return value.map((item, index) => asVector(item, expected?.[index]));
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (typeof value === 'bigint') return String(value);
  if (expected?.code !== undefined && typeof value === 'string') return { code: expected.code, name: value };
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, asVector(each, expected?.[name])]));
}

/** Reads frames by the codec alone, as a receiver that admits every kind. */
function readFrames(bytes, chunkSize = bytes.length) {
  const frames = [];
  const reader = new wire.FrameReader(() => {}, (frame) => frames.push(frame));
  for (let offset = 0; offset < bytes.length; offset += chunkSize) reader.push(bytes.subarray(offset, offset + chunkSize));
  assert.equal(reader.withinFrame, false);
  return frames;
}

/** A gateway without a socket: what it says goes into the link, what the client says is kept. */
class FakeSocket extends Duplex {
  sent = Buffer.alloc(0);
  _read() {}
  _write(chunk, _encoding, done) {
    this.sent = Buffer.concat([this.sent, chunk]);
    done();
  }
}

/** The Error with which this client refuses a frame, when it waits for HelloAck or on an open link. */
async function refusal(frame, waitsForHelloAck) {
  const socket = new FakeSocket();
  const hello = new Link(socket).hello();
  if (waitsForHelloAck) {
    hello.catch(() => {}); // lost with the link
  } else {
    socket.push(wire.encodeFrame('HelloAck', 1n, { role: 'GATEWAY', party_id: 'GW1', version: 1, frame_size_max: 65571 }));
    await hello;
  }
  const before = socket.sent.length;
  socket.push(frame);
  await once(socket, 'finish');
  return readFrames(socket.sent.subarray(before))[0];
}

const frames = read('frames.json');
// a client knows no link key, so the bank link's frames are not for it to check
const clientLink = (vector) => vector.link === 'client';

test('frames: valid', async (t) => {
  for (const vector of frames.valid.filter(clientLink)) {
    await t.test(vector.name, () => {
      for (const chunkSize of [undefined, 1]) {
        const [{ kindName, correlationId, message }] = readFrames(hex(vector.frame), chunkSize);
        assert.equal(kindName, vector.kind.name);
        assert.equal(String(correlationId), vector.correlation_id);
        assert.deepEqual(asVector(message, vector.fields), vector.fields);
        assert.equal(wire.encodeFrame(kindName, correlationId, message).toString('hex'), vector.frame);
      }
    });
  }
});

test('frames: invalid, by the codec', async (t) => {
  // which role is expected is known to an end, not to the codec (PG-LNK-2, PG-LNK-5)
  const needsState = (vector) => /^hello(_ack)?\/client\/role\/(client|gateway|bank)$/.test(vector.name);
  for (const vector of frames.invalid.filter(clientLink).filter((each) => !needsState(each))) {
    await t.test(vector.name, () => {
      assert.throws(() => readFrames(hex(vector.frame)), (error) => {
        assert.ok(vector.errors.some(({ name, code }) => name === error.code && wire.ErrorCode[name] === code), error.message);
        assert.equal(error.path, vector.path);
        return true;
      });
    });
  }
});

test('frames: invalid, by a link of the client', async (t) => {
  for (const vector of frames.invalid.filter((each) => clientLink(each) && each.receiver === 'client')) {
    await t.test(vector.name, async () => {
      const { kindName, correlationId, message } = await refusal(hex(vector.frame), vector.kind.name === 'HelloAck');
      assert.equal(kindName, 'Error');
      assert.equal(correlationId, 0n); // PG-ERR-4
      assert.ok(vector.errors.some(({ name }) => name === message.code), message.code);
      assert.equal(message.closes, vector.closes);
    });
  }
});

const records = read('records.json');

test('records: valid', async (t) => {
  for (const vector of records.valid) {
    await t.test(vector.name, () => {
      const values = wire.decode(wire[vector.record], hex(vector.encoding));
      assert.deepEqual(asVector(values, vector.fields), vector.fields);
      assert.equal(wire.encode(wire[vector.record], values).toString('hex'), vector.encoding);
    });
  }
});

test('records: invalid', async (t) => {
  for (const vector of records.invalid) {
    await t.test(vector.name, () => {
      assert.throws(() => wire.decode(wire[vector.record], hex(vector.encoding)), (error) => {
        assert.ok(vector.errors.some(({ name }) => name === error.code), `${error.code} ${error.path}`);
        assert.equal(error.path, vector.path);
        return true;
      });
    });
  }
});

/** An X25519 private key from its 32 bytes (RFC 8410). */
const x25519PrivateKey = (raw) =>
  createPrivateKey({ key: Buffer.concat([hex('302e020100300506032b656e04220420'), raw]), format: 'der', type: 'pkcs8' });

test('session', async (t) => {
  const { secrets, sessions } = read('session.json');
  for (const session of sessions) {
    await t.test(session.name, async () => {
      const steps = session.steps.filter(clientLink);
      for (const { frame, kind, fields, correlation_id } of steps) {
        const [{ message }] = readFrames(hex(frame));
        assert.deepEqual(asVector(message, fields), fields);
        assert.equal(wire.encodeFrame(kind.name, BigInt(correlation_id), message).toString('hex'), frame);
      }
      const messages = Object.fromEntries(steps.map(({ kind, frame }) => [kind.name, readFrames(hex(frame))[0].message]));
      const { BankKeys, TokenAck, TokenQuery, EncryptedCredentials, PaymentAck, StatusAck } = messages;
      const bankRoot = { bankId: TokenAck.bank_id, publicKey: hex(secrets.root_public_key) };
      const keyList = verifyKeyList(BankKeys.signed_key_list, bankRoot, 0n, Number(steps[0].at_ms));
      const suiteKey = chooseSuiteKey(keyList);
      assert.deepEqual(suiteKey.key_id, EncryptedCredentials.key_id);
      const { bank_id, gateway_id, merchant_id, amount_minor, currency } = TokenAck;
      const { payment_id, session_id, authorised_at_ms } = EncryptedCredentials;
      const terms = { bank_id, gateway_id, merchant_id, transaction_id: TokenQuery.transaction_id, payment_id, session_id,
        amount_minor, currency, authorised_at_ms };
      const key = await passwordKey(bank_id, secrets.user_id, session.secrets.password_typed, keyList.password_key);
      assert.equal(key.toString('hex'), session.secrets.password_key);
      const plaintext = credentialsPlaintext(secrets.user_id, key, hex(session.secrets.nonce));
      const envelope = sealEnvelope(suiteKey, terms, plaintext, x25519PrivateKey(hex(session.secrets.ephemeral_private_key)));
      assert.deepEqual(envelope, EncryptedCredentials.envelope);
      for (const answer of [PaymentAck, StatusAck].filter(Boolean))
        matchAnswer(answer, verifyReceipt(answer.receipt, keyList, terms, sha256(envelope)));
    });
  }
});

/** The fault that a check finds, or `accepted`. */
function resultOf(check) {
  try {
    check();
    return 'accepted';
  } catch (error) {
    if (error instanceof Untrusted) return error.fault;
    throw error;
  }
}

test('cryptography', async (t) => {
  const vectors = read('crypto.json');
  const keyList = wire.decode(wire.KeyList, hex(vectors.key_list.encoding));
  const termsOf = (fields) => ({
    ...fields,
    payment_id: hex(fields.payment_id),
    session_id: hex(fields.session_id),
    amount_minor: BigInt(fields.amount_minor),
    authorised_at_ms: BigInt(fields.authorised_at_ms),
  });

  for (const vector of vectors.passwords) {
    await t.test(`password/${vector.name}`, async () => {
      const userId = wire.normaliseTyped('user_id', hex(vector.user_id_typed_utf8).toString());
      const password = wire.normaliseTyped('password', hex(vector.password_typed_utf8).toString());
      assert.equal(Buffer.from(userId).toString('hex'), vector.user_id_utf8);
      assert.equal(Buffer.from(password).toString('hex'), vector.password_utf8);
      const key = await passwordKey(vector.bank_id, userId, password, vector.parameters);
      assert.equal(key.toString('hex'), vector.password_key);
    });
  }

  await t.test('envelope/x25519', () => {
    const { key_id, terms, plaintext_fields, plaintext, steps, envelope, envelope_hash } = vectors.x25519_envelope;
    const suiteKey = chooseSuiteKey(keyList);
    assert.equal(suiteKey.key_id.toString('hex'), key_id);
    const userId = hex(plaintext_fields.user_id).subarray(0, plaintext_fields.user_id_size).toString();
    const made = credentialsPlaintext(userId, hex(plaintext_fields.password_key), hex(plaintext_fields.nonce));
    assert.equal(made.toString('hex'), plaintext);
    const ephemeral = x25519PrivateKey(hex(steps.ephemeral_private_key));
    const sealed = sealEnvelope(suiteKey, termsOf(terms), made, ephemeral);
    assert.equal(sealed.toString('hex'), envelope);
    assert.equal(sha256(sealed).toString('hex'), envelope_hash);
  });
  await t.test('envelope/hybrid', { skip: 'this client implements the suite that PG-ENV-2 demands' }, () => {});

  await t.test('key_list/encoding', () => {
    assert.deepEqual(asVector(keyList, vectors.key_list.fields), vectors.key_list.fields);
    const { key_list, signature } = wire.decode(wire.SignedKeyList, hex(vectors.key_list.signed_key_list));
    assert.equal(key_list.toString('hex'), vectors.key_list.encoding);
    assert.equal(signature.toString('hex'), vectors.key_list.signature);
  });
  for (const vector of vectors.key_list.checks) {
    await t.test(`key_list/${vector.name}`, () => {
      const bankRoot = { bankId: vector.bank_id, publicKey: hex(vector.root_public_key) };
      const list = hex(vector.signed_key_list);
      const check = () => verifyKeyList(list, bankRoot, BigInt(vector.serial_min), Number(vector.now_ms));
      assert.equal(resultOf(check), vector.result);
    });
  }

  for (const { leaf_count, root, leaves } of vectors.receipts.trees) {
    for (const { leaf_index, leaf, path } of leaves) {
      await t.test(`tree/${leaf_index}_of_${leaf_count}`, () => {
        assert.equal(merkleRoot(hex(leaf), leaf_index, leaf_count, path.map(hex)).toString('hex'), root);
      });
    }
  }
  for (const vector of vectors.receipts.checks) {
    await t.test(`receipt/${vector.name}`, () => {
      const check = () => verifyReceipt(hex(vector.receipt), keyList, termsOf(vector.terms), hex(vector.envelope_hash));
      assert.equal(resultOf(check), vector.result);
    });
  }
});
