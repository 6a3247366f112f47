/** The host's functions as they are imported; `index.ts` has friendlier forms of them. */

// @ts-ignore: decorator
@external("hzc", "log")
export declare function log(level: i32, ptr: usize, len: i32): i32;

// @ts-ignore: decorator
@external("hzc", "now")
export declare function now(): i64;

// @ts-ignore: decorator
@external("hzc", "random")
export declare function random(ptr: usize, len: i32): i32;

// @ts-ignore: decorator
@external("hzc", "take")
export declare function take(ptr: usize, len: i32): i32;

// @ts-ignore: decorator
@external("hzc", "kv_get")
export declare function kv_get(key: usize, key_len: i32, version_out: usize): i64;

// @ts-ignore: decorator
@external("hzc", "kv_put")
export declare function kv_put(key: usize, key_len: i32, value: usize, value_len: i32, expect: i64): i32;

// @ts-ignore: decorator
@external("hzc", "kv_delete")
export declare function kv_delete(key: usize, key_len: i32, expect: i64): i32;

// @ts-ignore: decorator
@external("hzc", "secret")
export declare function secret(name: usize, name_len: i32): i64;

// @ts-ignore: decorator
@external("hzc", "http")
export declare function http(head: usize, head_len: i32, body: usize, body_len: i32): i64;

// @ts-ignore: decorator
@external("hzc", "input_size")
export declare function input_size(): i64;

// @ts-ignore: decorator
@external("hzc", "input_read")
export declare function input_read(offset: i64, ptr: usize, len: i32): i64;

// @ts-ignore: decorator
@external("hzc", "output")
export declare function output(name: usize, name_len: i32, ptr: usize, len: i32): i64;
