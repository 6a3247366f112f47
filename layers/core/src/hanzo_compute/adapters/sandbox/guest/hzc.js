// The platform, as a function in JavaScript reaches it: import * as hzc from "./hzc.js"
//
// Every call goes through descriptor 1000, which the sandbox answers. What the function was not granted throws.

import * as os from "qjs:os";

/** As `expect`: whatever is there. */
export const ANY = -1;
/** As `expect`: nothing must be there. */
export const ABSENT = 0;

const FD = 1000;
const NAMES = ["ok", "not found", "denied", "invalid", "conflict", "limit", "unavailable", "timed out"];

/** The platform has refused a call; `status` is its number, `reason` its name. */
export class HostError extends Error {
  constructor(name, status) {
    super(`${name}: ${NAMES[-status] ?? status}`);
    this.status = status;
    this.reason = NAMES[-status] ?? String(status);
  }
}

/** UTF-8: QuickJS has no TextEncoder. */
export function encode(text) {
  const escaped = unescape(encodeURIComponent(text));
  return Uint8Array.from(escaped, (c) => c.charCodeAt(0));
}

/** Text of UTF-8 bytes. */
export function decode(bytes) {
  let escaped = "";
  for (const byte of bytes) escaped += String.fromCharCode(byte);
  return decodeURIComponent(escape(escaped));
}

function bytesOf(value) {
  return typeof value === "string" ? encode(value) : new Uint8Array(value);
}

function integer(value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, BigInt(value), true);
  return bytes;
}

function call(name, ...args) {
  const parts = [encode(name), new Uint8Array(1)];
  for (const arg of args) {
    const size = new Uint8Array(4);
    new DataView(size.buffer).setUint32(0, arg.length, true);
    parts.push(size, arg);
  }
  const request = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    request.set(part, at);
    at += part.length;
  }
  if (os.write(FD, request.buffer, 0, request.length) !== request.length) throw new HostError(name, -3);
  const head = new ArrayBuffer(8);
  os.read(FD, head, 0, 8);
  const status = Number(new DataView(head).getBigInt64(0, true));
  if (status < 0) throw new HostError(name, status);
  const pieces = [];
  const piece = new ArrayBuffer(65536);
  for (let size; (size = os.read(FD, piece, 0, 65536)) > 0; ) pieces.push(new Uint8Array(piece.slice(0, size)));
  const found = new Uint8Array(pieces.reduce((sum, part) => sum + part.length, 0));
  at = 0;
  for (const part of pieces) {
    found.set(part, at);
    at += part.length;
  }
  return found;
}

/** `{value, version}` of an entry (value: Uint8Array), or null. */
export function get(key) {
  try {
    const found = call("kv_get", bytesOf(key));
    return { value: found.slice(8), version: Number(new DataView(found.buffer).getBigInt64(0, true)) };
  } catch (error) {
    if (error.status === -1) return null;
    throw error;
  }
}

/** Write an entry, if it is as expected: ANY, ABSENT or its version. */
export function put(key, value, expect = ANY) {
  call("kv_put", bytesOf(key), bytesOf(value), integer(expect));
}

/** Remove an entry, if it is as expected. */
export function remove(key, expect = ANY) {
  call("kv_delete", bytesOf(key), integer(expect));
}

/** A secret that the function was granted, as bytes. */
export function secret(name) {
  return call("secret", bytesOf(name));
}

/** Call another host: `{status, headers, body}`. */
export function http(method, url, { headers = {}, body = "", redirect = "manual" } = {}) {
  const found = call("http", encode(JSON.stringify({ method, url, headers, redirect })), bytesOf(body));
  const end = found.indexOf(10);
  return { ...JSON.parse(decode(found.slice(0, end))), body: found.slice(end + 1) };
}

/** A line of the function's log; level debug, info, warning or error. */
export function log(text, level = "info") {
  call("log", integer(["debug", "info", "warning", "error"].indexOf(level)), bytesOf(text));
}

/** Append to a named output. */
export function output(name, data) {
  call("output", bytesOf(name), bytesOf(data));
}
