;; The request of the benchmark as an extism plugin: sums the 64-bit numbers of its input.
(module
  (import "extism:host/env" "input_length" (func $length (result i64)))
  (import "extism:host/env" "input_load_u64" (func $load (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (memory (export "memory") 1)
  (func (export "sum") (result i32) (local $at i64) (local $end i64) (local $total i64) (local $out i64)
    (local.set $end (call $length))
    (block $done (loop $next
      (br_if $done (i64.ge_u (local.get $at) (local.get $end)))
      (local.set $total (i64.add (local.get $total) (call $load (local.get $at))))
      (local.set $at (i64.add (local.get $at) (i64.const 8)))
      (br $next)))
    (local.set $out (call $alloc (i64.const 8)))
    (call $store (local.get $out) (local.get $total))
    (call $output (local.get $out) (i64.const 8))
    (i32.const 0)))
