;; Asks for 1 GiB before it starts.
(module
  (memory (export "memory") 16384)
  (func (export "_start")))
