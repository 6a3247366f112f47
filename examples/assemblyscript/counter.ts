/**
 * Counts its calls: the request is the name of a counter, the response its new value.
 * Two calls at the same time count as two: a value is put only over the version that it was made from.
 */
import { answer, Err, kv, reason, requested, text, utf8 } from "@hanzo-compute/guest/assembly";
export { alloc } from "@hanzo-compute/guest/assembly";

const TRIES = 64;

export function handle(ptr: usize, len: i32): u64 {
  return answer(utf8(count(len ? text(requested(ptr, len)) : "counter")));
}

function count(name: string): string {
  let error: i32 = Err.Conflict;
  for (let i = 0; i < TRIES && error == Err.Conflict; i++) {
    const old = kv.get(name);
    if (!old.ok && old.error != Err.NotFound) return "counter: get: " + reason(old.error);
    const value = ((old.ok ? U64.parseInt(old.text) : 0) + 1).toString();
    error = kv.put(name, utf8(value), old.version);
    if (error == 0) return value;
  }
  return "counter: put: " + reason(error);
}
