/**
 * The guest side of Hanzo Compute's ABI, version 1. A reactor is written like this:
 *
 *     import { answer, requested } from "@hanzo-compute/guest/assembly";
 *     export { alloc } from "@hanzo-compute/guest/assembly";
 *
 *     export function handle(ptr: usize, len: i32): u64 {
 *       const request = requested(ptr, len);
 *       return answer(request);
 *     }
 *
 * Each call of a host function needs its capability, and only those that are called are imported.
 */

import * as host from "./host";

export { Json, quote } from "./json";
export { Message, Request, respond, split } from "./http";

/** The version of the ABI that this describes. */
export const ABI: i32 = 1;

/** Errors of host calls: all are below zero. */
export namespace Err {
  /** No such key, secret or host. */
  export const NotFound: i32 = -1;
  /** The capability does not extend to this. */
  export const Denied: i32 = -2;
  /** An argument cannot be understood. */
  export const Invalid: i32 = -3;
  /** The entry is not of the expected version. */
  export const Conflict: i32 = -4;
  /** Too large, or too many calls. */
  export const OverLimit: i32 = -5;
  /** The other side did not answer; trying again may help. */
  export const Unavailable: i32 = -6;
  /** It took too long. */
  export const TimedOut: i32 = -7;
}

/** Levels of `log`. */
export namespace Level {
  export const Debug: i32 = 0;
  export const Info: i32 = 1;
  export const Warning: i32 = 2;
  export const Error: i32 = 3;
}

/** What `kv.put` and `kv.remove` expect of an entry, besides the number of a version. */
export namespace Expect {
  /** Whatever is there, or nothing. */
  export const Any: i64 = -1;
  /** No entry. */
  export const Absent: i64 = 0;
}

/** What a host call gave: bytes, or an error below zero and no bytes. */
export class Result {
  constructor(
    public error: i32,
    public bytes: Uint8Array,
    /** Of `kv.get`: the entry's version, 0 if there is none. */
    public version: i64 = 0,
  ) {}

  get ok(): bool {
    return this.error == 0;
  }

  /** The bytes as text. */
  get text(): string {
    return text(this.bytes);
  }
}

/** What an error means, in words. */
export function reason(error: i64): string {
  if (error == Err.NotFound) return "not found";
  if (error == Err.Denied) return "denied";
  if (error == Err.Invalid) return "invalid";
  if (error == Err.Conflict) return "conflict";
  if (error == Err.OverLimit) return "over a limit";
  if (error == Err.Unavailable) return "unavailable";
  if (error == Err.TimedOut) return "timed out";
  return error < 0 ? "unknown error" : "no error";
}

/** Text as UTF-8. */
export function utf8(value: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(value));
}

/** UTF-8 as text. */
export function text(bytes: Uint8Array): string {
  return String.UTF8.decodeUnsafe(bytes.dataStart, bytes.byteLength);
}

// --- the ABI of a reactor ------------------------------------------------------------------

/** Where the host puts the request: export this. What it gives stays for the whole call. */
export function alloc(size: i32): usize {
  return heap.alloc(<usize>max(size, 1));
}

/** The request that `handle` was called with. */
export function requested(ptr: usize, len: i32): Uint8Array {
  const bytes = new Uint8Array(len);
  memory.copy(bytes.dataStart, ptr, <usize>len);
  return bytes;
}

/** What `handle` returns. */
export function answer(response: Uint8Array): u64 {
  return ((<u64>response.dataStart) << 32) | (<u64>response.byteLength);
}

// --- host calls ----------------------------------------------------------------------------

/** Takes the `length` bytes that the call before has left with the host. */
function taken(length: i64): Result {
  if (length < 0) return new Result(<i32>length, new Uint8Array(0));
  if (length > 0x3fffffff) return new Result(Err.OverLimit, new Uint8Array(0));
  const bytes = new Uint8Array(<i32>length);
  const got = length ? host.take(bytes.dataStart, <i32>length) : 0;
  if (got == <i32>length) return new Result(0, bytes);
  return new Result(got < 0 ? got : Err.Unavailable, new Uint8Array(0));
}

/** Writes a line to the job's log. Capability: log. */
export function log(level: i32, line: string): i32 {
  const bytes = utf8(line);
  return host.log(level, bytes.dataStart, bytes.byteLength);
}

/** Nanoseconds since 1970, UTC. Capability: clock. */
export function now(): i64 {
  return host.now();
}

/** Fills `bytes` at random; 0 or an error. Capability: random. */
export function random(bytes: Uint8Array): i32 {
  return host.random(bytes.dataStart, bytes.byteLength);
}

/** A secret by its name. Capability: secret, for this name. */
export function secret(name: string): Result {
  const key = utf8(name);
  return taken(host.secret(key.dataStart, key.byteLength));
}

/** Keys and values that outlive the call. Capability: kv. */
export namespace kv {
  /** The value under a key, and its version. */
  export function get(key: string): Result {
    const name = utf8(key);
    const version = memory.data(8, 8);
    store<i64>(version, 0);
    const length = host.kv_get(name.dataStart, name.byteLength, version);
    const result = taken(length);
    result.version = load<i64>(version);
    return result;
  }

  /** Sets the value if the entry is as expected: see `Expect`. 0, `Err.Conflict` if not, or another error. */
  export function put(key: string, value: Uint8Array, expect: i64 = Expect.Any): i32 {
    const name = utf8(key);
    return host.kv_put(name.dataStart, name.byteLength, value.dataStart, value.byteLength, expect);
  }

  /** Removes the entry if it is as expected. */
  export function remove(key: string, expect: i64 = Expect.Any): i32 {
    const name = utf8(key);
    return host.kv_delete(name.dataStart, name.byteLength, expect);
  }
}

/**
 * One HTTP request; `head` is JSON as `Request` writes it. The result is a head line and the body: `split` it.
 * Capability: http, for the URL's origin.
 */
export function http(head: string, body: Uint8Array): Result {
  const line = utf8(head);
  return taken(host.http(line.dataStart, line.byteLength, body.dataStart, body.byteLength));
}

/** The job's input blob, read in pieces. Capability: input. */
export namespace input {
  /** Its size, or an error. */
  export function size(): i64 {
    return host.input_size();
  }

  /** Reads from `offset` on as much as `bytes` holds; how many, 0 at the end. */
  export function read(offset: i64, bytes: Uint8Array): i64 {
    return host.input_read(offset, bytes.dataStart, bytes.byteLength);
  }
}

/** Appends a chunk to a named output; its size now, or an error. Capability: output. */
export function output(name: string, chunk: Uint8Array): i64 {
  const key = utf8(name);
  return host.output(key.dataStart, key.byteLength, chunk.dataStart, chunk.byteLength);
}
