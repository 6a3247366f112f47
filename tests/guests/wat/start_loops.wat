;; Never gets to _start: its start function, which runs when it is instantiated, does not end.
(module
  (memory (export "memory") 1)
  (func $spin (loop $again (br $again)))
  (start $spin)
  (func (export "_start")))
