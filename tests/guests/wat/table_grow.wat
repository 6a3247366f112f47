;; Lets a table grow, by a million entries at a time, until it does not.
(module
  (memory (export "memory") 1)
  (table $entries 1 funcref)
  (func (export "_start")
    (loop $more
      (br_if $more (i32.ne (table.grow $entries (ref.null func) (i32.const 1000000)) (i32.const -1))))))
