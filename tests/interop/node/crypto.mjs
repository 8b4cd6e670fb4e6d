// The cryptography of the paygate protocol, section 8, as a client needs it: password key, envelope, key list and receipt.

import {
  createCipheriv, createHash, createHmac, createPublicKey, diffieHellman, generateKeyPairSync, randomBytes,
  verify,
} from 'node:crypto';
import { argon2id } from 'hash-wasm';
import { CredentialsPlaintext, KemId, KdfId, AeadId, KeyList, ProtocolError, Receipt, ReceiptStatement, SignedKeyList, Terms,
  decode, encode } from './wire.mjs';

/** Something that the bank should have signed is not as it must be; `fault` is what does not hold, in one word. */
export class Untrusted extends Error {
  constructor(fault, message) {
    super(message);
    this.fault = fault;
  }
}

export const sha256 = (...parts) => createHash('sha256').update(Buffer.concat(parts)).digest();
const hmac = (key, ...parts) => createHmac('sha256', key).update(Buffer.concat(parts)).digest();
const u16 = (value) => Buffer.from([value >> 8, value & 0xff]);

const label = (text) => Buffer.from(`paygate/v1/${text}\0`); // PG-CRY-1
const LABELS = {
  envelope: label('envelope'),
  passwordSalt: label('password-salt'),
  keyList: label('key-list'),
  receipt: label('receipt'),
  receiptRoot: label('receipt-root'),
};

const publicKey = (curve, raw) =>
  createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: curve, x: raw.toString('base64url') } });

/** Whether an Ed25519 signature holds; a public key that is no point of the curve verifies nothing. */
function signatureHolds(rawPublicKey, message, signature) {
  try {
    return verify(null, message, publicKey('Ed25519', rawPublicKey), signature);
  } catch {
    return false;
  }
}

/** Decodes what the bank signed; what does not decode is not trusted. */
function decodeSigned(type, encoding, what) {
  try {
    return decode(type, encoding);
  } catch (error) {
    if (error instanceof ProtocolError) throw new Untrusted('malformed', `${what} does not decode: ${error.message}`);
    throw error;
  }
}

function demand(condition, fault, message) {
  if (!condition) throw new Untrusted(fault, message);
}

// ---- Key list (8.4) ---------------------------------------------------------------------------------------------------

/** A pinned root key: one line with the bank's ID, a blank and 32 bytes in hexadecimal. */
export function parseBankRoot(line) {
  const match = /^([A-Za-z0-9][A-Za-z0-9._-]{0,31}) ([0-9A-Fa-f]{64})$/.exec(line);
  return match && { bankId: match[1], publicKey: Buffer.from(match[2], 'hex') };
}

/** The key list in `signed_key_list` of BankKeys, if it may be used now; throws Untrusted otherwise. */
export function verifyKeyList(signedKeyList, bankRoot, highestSerial, nowMs = Date.now()) {
  const keyList = verifyKeptKeyList(signedKeyList, bankRoot);
  const now = BigInt(nowMs);
  demand(keyList.valid_from_ms <= now && now < keyList.valid_until_ms, 'validity', 'the key list is not valid now'); // PG-KEY-5
  demand(keyList.serial >= highestSerial, 'serial', 'the key list is older than one that was seen before'); // PG-KEY-5
  return keyList;
}

/** A key list that was accepted in its time: it still serves for receipts (PG-RCP-6); throws Untrusted if it is not the bank's. */
export function verifyKeptKeyList(signedKeyList, bankRoot) {
  const signed = decodeSigned(SignedKeyList, signedKeyList, 'the signed key list'); // PG-KEY-3
  const message = Buffer.concat([LABELS.keyList, signed.key_list]);
  const holds = signatureHolds(bankRoot.publicKey, message, signed.signature);
  demand(holds, 'signature', 'the key list is not signed by the bank'); // PG-KEY-4
  const keyList = decodeSigned(KeyList, signed.key_list, 'the key list'); // PG-KEY-3
  demand(keyList.bank_id === bankRoot.bankId, 'bank_id', 'the key list is of another bank'); // PG-KEY-4
  return keyList;
}

/** The suite that this client implements: the one that PG-ENV-2 demands. */
const SUITE = { kem_id: 'X25519', kdf_id: 'HKDF_SHA256', aead_id: 'AES_128_GCM', keySize: 16, publicKeySize: 32 };

/** The first usable key of our suite in the list (PG-ENV-3). */
export function chooseSuiteKey(keyList) {
  const usable = (key) =>
    ['kem_id', 'kdf_id', 'aead_id'].every((id) => key[id] === SUITE[id]) && key.public_key.length === SUITE.publicKeySize;
  const suiteKey = keyList.suite_keys.find(usable);
  demand(suiteKey, 'suite', 'the key list has no key of a suite that this client implements');
  return suiteKey;
}

// ---- Password key (8.3) -----------------------------------------------------------------------------------------------

/** What the bank gets instead of the password (PG-PWD-2). User ID and password are in normal form C (PG-PWD-1). */
export async function passwordKey(bankId, userId, password, parameters) {
  const key = await argon2id({
    password,
    salt: sha256(LABELS.passwordSalt, Buffer.from(bankId), Buffer.from([0]), Buffer.from(userId)).subarray(0, 16),
    memorySize: parameters.memory_kib,
    iterations: parameters.iteration_count,
    parallelism: parameters.lane_count,
    hashLength: 32,
    outputType: 'binary',
  });
  return Buffer.from(key);
}

// ---- Envelope (8.2) ---------------------------------------------------------------------------------------------------

const NOTHING = Buffer.alloc(0);

/** LabeledExtract and LabeledExpand of RFC 9180 section 4; no output here is longer than one HMAC. */
function labelledKdf(suiteId) {
  const prefix = Buffer.concat([Buffer.from('HPKE-v1'), suiteId]);
  return {
    extract: (salt, name, input) => hmac(salt, prefix, Buffer.from(name), input),
    expand: (key, name, info, size) =>
      hmac(key, u16(size), prefix, Buffer.from(name), info, Buffer.from([1])).subarray(0, size),
  };
}

const rawPublicKey = (key) => Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x, 'base64url');

/** The shared secret; a public key of low order is nobody's (RFC 9180 section 7.1.4). */
function x25519(privateKey, recipientKey) {
  try {
    return diffieHellman({ privateKey, publicKey: publicKey('X25519', recipientKey) });
  } catch {
    throw new Untrusted('suite', 'the key in the key list is no usable X25519 key');
  }
}

/** HPKE base mode, single shot, empty AAD (PG-ENV-1): `enc`, then ciphertext and tag. */
export function hpkeSeal(recipientKey, info, plaintext, ephemeral = generateKeyPairSync('x25519').privateKey) {
  const kemKdf = labelledKdf(Buffer.concat([Buffer.from('KEM'), u16(KemId[SUITE.kem_id])]));
  const enc = rawPublicKey(ephemeral);
  const shared = x25519(ephemeral, recipientKey);
  const eaePrk = kemKdf.extract(NOTHING, 'eae_prk', shared);
  const sharedSecret = kemKdf.expand(eaePrk, 'shared_secret', Buffer.concat([enc, recipientKey]), 32);

  const ids = [KemId[SUITE.kem_id], KdfId[SUITE.kdf_id], AeadId[SUITE.aead_id]];
  const kdf = labelledKdf(Buffer.concat([Buffer.from('HPKE'), ...ids.map(u16)]));
  const modeBase = Buffer.from([0]);
  const pskIdHash = kdf.extract(NOTHING, 'psk_id_hash', NOTHING);
  const context = Buffer.concat([modeBase, pskIdHash, kdf.extract(NOTHING, 'info_hash', info)]);
  const secret = kdf.extract(sharedSecret, 'secret', NOTHING);
  const key = kdf.expand(secret, 'key', context, SUITE.keySize);
  const nonce = kdf.expand(secret, 'base_nonce', context, 12);

  const cipher = createCipheriv('aes-128-gcm', key, nonce);
  return Buffer.concat([enc, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** The 256 bytes that an envelope holds (PG-ENV-4). */
export function credentialsPlaintext(userId, key, nonce = randomBytes(16)) {
  const encodedUserId = Buffer.from(userId);
  return encode(CredentialsPlaintext, {
    format_version: 1,
    user_id_size: encodedUserId.length,
    user_id: Buffer.concat([encodedUserId], 64),
    password_key: key,
    nonce,
    padding: Buffer.alloc(142),
  });
}

/** The envelope for these terms, sealed for the bank alone. */
export function sealEnvelope(suiteKey, terms, plaintext, ephemeral) {
  const info = Buffer.concat([LABELS.envelope, suiteKey.key_id, encode(Terms, terms)]); // PG-ENV-1
  return hpkeSeal(suiteKey.public_key, info, plaintext, ephemeral);
}

// ---- Receipt (8.5) ----------------------------------------------------------------------------------------------------

const node = (left, right) => sha256(Buffer.from([1]), left, right);

/** The root of the tree in which a leaf has this place and path (PG-RCP-2). */
export function merkleRoot(leaf, leafIndex, leafCount, path) {
  const rest = [...path];
  let root = leaf;
  for (let index = leafIndex, last = leafCount - 1; last > 0; index = Math.floor(index / 2), last = Math.floor(last / 2)) {
    const isRight = index % 2 === 1;
    if (index === last && !isRight) continue;
    demand(rest.length > 0, 'path', "the receipt's path is too short");
    const sibling = rest.shift();
    root = isRight ? node(sibling, root) : node(root, sibling);
  }
  demand(rest.length === 0, 'path', "the receipt's path has hashes left over");
  return root;
}

/** The statement of a receipt that the bank signed for these very terms and this envelope; throws Untrusted otherwise. */
export function verifyReceipt(receipt, keyList, terms, envelopeHash) {
  const { statement, leaf_index, leaf_count, path, signature } = decodeSigned(Receipt, receipt, 'the receipt');
  const receiptKey = keyList.receipt_keys.find((key) => key.receipt_key_id.equals(statement.receipt_key_id)); // PG-RCP-1
  const isKnown = receiptKey && sha256(receiptKey.public_key).subarray(0, 8).equals(statement.receipt_key_id);
  demand(isKnown, 'unknown_key', "the receipt's key is not in the key list");
  const leaf = sha256(Buffer.from([0]), LABELS.receipt, encode(ReceiptStatement, statement));
  const root = merkleRoot(leaf, leaf_index, leaf_count, path);
  const leafCount = Buffer.alloc(4);
  leafCount.writeUInt32BE(leaf_count);
  const message = Buffer.concat([LABELS.receiptRoot, statement.receipt_key_id, leafCount, root]);
  const signed = signatureHolds(receiptKey.public_key, message, signature);
  demand(signed, 'signature', 'the receipt is not signed by the bank'); // PG-RCP-3
  const ours = encode(Terms, statement.terms).equals(encode(Terms, terms));
  demand(ours, 'terms', 'the receipt is for other terms'); // PG-RCP-4
  demand(statement.envelope_hash.equals(envelopeHash), 'envelope_hash', 'the receipt is for another envelope'); // PG-RCP-4
  return statement;
}

const OUTCOMES_OF = { PAID: ['POSTED'], DECLINED: ['DECLINED', 'FENCED'] };

/** A PaymentAck or StatusAck may say PAID or DECLINED only as its receipt says it (PG-PAY-10, PG-RCP-5). */
export function matchAnswer(answer, statement) {
  const { outcome, reason, utr } = statement;
  const matches = OUTCOMES_OF[answer.status].includes(outcome) && reason === answer.reason && utr === answer.utr;
  demand(matches, 'answer', 'the receipt does not say what the answer says');
}
