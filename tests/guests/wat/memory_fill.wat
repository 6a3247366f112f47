;; Fills 1 GiB with one instruction, which nothing can interrupt; traps if it does not get as much.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (if (i32.eq (memory.grow (i32.const 16383)) (i32.const -1)) (then unreachable))
    (memory.fill (i32.const 0) (i32.const 255) (i32.const 0x40000000))))
