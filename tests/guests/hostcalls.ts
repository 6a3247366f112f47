/** The same as hostcalls.c, by the AssemblyScript SDK: the same checks, and the same lines. */
import { answer, Err, Expect, input, kv, Level, log, now, output, random, Result, secret, utf8 } from "../../sdk/assemblyscript/assembly";
export { alloc } from "../../sdk/assemblyscript/assembly";

let lines = "";

function check(good: bool, what: string): void {
  lines += (good ? "ok " : "FAIL ") + what + "\n";
}

function is(result: Result, value: string): bool {
  return result.ok && result.text == value;
}

function same(left: Uint8Array, right: Uint8Array): bool {
  return left.length == right.length && memory.compare(left.dataStart, right.dataStart, left.length) == 0;
}

function simple(): void {
  const some = new Uint8Array(4096);
  const more = new Uint8Array(4096);
  check(log(Level.Info, "a line: üñï") == 0, "log");
  check(log(Level.Debug, "") == 0, "log of nothing");
  check(log(9, "x") == Err.Invalid, "log of no level");
  const start = now();
  check(start > 0 && now() >= start, "now");
  check(random(some) == 0 && random(more) == 0, "random");
  check(!same(some, more), "random differs");
  check(is(secret("token"), "opensesame"), "secret");
  const error = secret("absent").error;
  check(error == Err.NotFound || error == Err.Denied, "secret that was not granted");
}

function keys(): void {
  const key = "hzc-test";
  let found = kv.get(key);
  check(found.error == Err.NotFound && found.version == 0, "kv_get of what is not there");
  check(kv.remove(key, 1) == Err.Conflict, "kv_delete of a version that is not there");
  check(kv.put(key, utf8("one"), Expect.Absent) == 0, "kv_put where nothing is");
  check(kv.put(key, utf8("two"), Expect.Absent) == Err.Conflict, "kv_put where something is");
  found = kv.get(key);
  const first = found.version;
  check(is(found, "one") && first > 0, "kv_get of what was put");
  check(kv.put(key, utf8("two"), first) == 0, "kv_put over its version");
  check(kv.put(key, utf8("three"), first) == Err.Conflict, "kv_put over an old version");
  found = kv.get(key);
  check(is(found, "two") && found.version > first, "kv_get of what was put over it");
  check(is(kv.get(key), "two"), "kv_get without version");
  check(kv.remove(key, first) == Err.Conflict, "kv_delete of an old version");
  check(kv.put(key, utf8("")) == 0 && is(kv.get(key), "") && kv.get(key).version > 0, "an empty value");
  const large = new Uint8Array(100000);
  for (let i = 0; i < large.length; i++) large[i] = <u8>(i * 31);
  check(kv.put(key, large) == 0, "kv_put of 100,000 bytes");
  found = kv.get(key);
  check(found.ok && same(found.bytes, large), "kv_get of 100,000 bytes");
  check(kv.remove(key, found.version) == 0, "kv_delete of its version");
  found = kv.get(key);
  check(found.error == Err.NotFound && found.version == 0, "kv_get of what was deleted");
  const gone = kv.remove(key);
  check(gone == Err.NotFound || gone == 0, "kv_delete of nothing");
}

function blobs(): void {
  const part = new Uint8Array(4096);
  const few = new Uint8Array(10);
  const size = input.size();
  check(size == 100000, "input_size");
  let good = true;
  let at: i64 = 0;
  for (let got = input.read(0, part); got > 0; got = input.read(at, part)) {
    for (let i: i64 = 0; i < got; i++) good = good && <i64>part[<i32>i] == ((at + i) * 7) % 251;
    at += got;
  }
  check(good && at == size, "input_read from start to end");
  check(input.read(99999, few) == 1 && <i32>few[0] == (99999 * 7) % 251, "input_read at the end");
  check(input.read(100000, few) == 0 && input.read(1 << 30, few) == 0, "input_read behind the end");
  check(input.read(-1, few) == Err.Invalid, "input_read before the start");
  check(output("part", utf8("some ")) == 5, "output");
  check(output("part", utf8("more")) == 9, "output goes on");
  check(output("part", utf8("")) == 9, "output of nothing");
}

export function handle(ptr: usize, len: i32): u64 {
  simple();
  keys();
  blobs();
  return answer(utf8(lines));
}
