"""The WASM sandbox: runs a module within limits, in a worker process or in this one.

settings    wasmtime's configuration, in two profiles      engine      what it compiles and loads
binding     all that touches wasmtime below its API        public      the same without that
sandbox     one call: in, run, out
shim        our part of WASI, in WASM                      poll        ``poll_oneoff`` of clocks
running     a module, and the state of its call            imports     host functions in Python
hostcalls   what a guest may ask beyond WASI               components  preview 2 commands
steady      stdin and directories, the same everywhere     pool        workers for calls, on an event loop
call        what is asked and what is told                 frames      how a supervisor and a worker talk
worker      the worker process                             process     that as its supervisor sees it
harden      limits, privileges, system calls               compile     the compiler's process
area        memory that both share
cache       authenticated compiled modules on disk         artefacts   compiled modules for workers
interpreters  CPython and QuickJS as pinned modules
snapshot    a module of an interpreter that has started    guest       what runs in interpreters

Importing ``binding``, ``engine``, ``running``, ``sandbox``, ``snapshot`` or ``components`` loads wasmtime; the rest
does without.
"""
