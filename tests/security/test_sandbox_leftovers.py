"""A slot of the pool is cleared, whatever its last memory was like: partly by zeros, partly by the kernel."""

from __future__ import annotations

import itertools

import pytest

from hanzo_compute.adapters.sandbox import binding
from hanzo_compute.adapters.sandbox.binding import Limits, Pool, Trapped
from hanzo_compute.adapters.sandbox.engine import Engine
from hanzo_compute.adapters.sandbox.settings import Profile
from tests.support.wasm import wat

PAGE = 65536
KEPT = binding.KEPT // PAGE
"""Pages that are cleared by zeros."""
DIRT = 0xA5
READ, FILL = b"r", b"ff"
"""Requests: `handle` tells them by their length."""
MOST = (4 * KEPT) * PAGE

SHAPES: dict[str, tuple[int, int, list[int]]] = {
    # Pages at first, pages that grow, and where data segments lie.
    "one page": (1, 0, []),
    "all that is kept": (KEPT, 0, []),
    "one more": (KEPT + 1, 0, []),
    "grown over the edge": (KEPT - 1, 2, []),
    "grown from nothing": (1, 3 * KEPT, []),
    "data at the begin": (2, 1, [1024]),
    "data over the edge": (KEPT + 4, KEPT, [3 * PAGE - 8, KEPT * PAGE - 8]),
    "data at the end": (2 * KEPT, 2, [2 * KEPT * PAGE - 16]),
}
DATA = b"of its own image"


def guest(pages: int, grown: int, at: list[int]) -> bytes:
    """Grows, fills all its memory if it is asked to, and answers with all of it."""
    data = " ".join(f'(data (i32.const {each}) "{DATA.decode()}")' for each in at)
    return wat(f"""(module (memory (export "memory") {pages} {pages + grown}) {data}
      (func (export "alloc") (param i32) (result i32) (i32.const 0))
      (func (export "handle") (param i32 i32) (result i64)
        (drop (memory.grow (i32.const {grown})))
        (if (i32.eq (local.get 1) (i32.const {len(FILL)})) (then
          (memory.fill (i32.const 0) (i32.const {DIRT}) (i32.shl (memory.size) (i32.const 16)))))
        (i64.extend_i32_u (i32.shl (memory.size) (i32.const 16)))))""")


def fresh(pages: int, grown: int, at: list[int]) -> bytes:
    """What READ must find."""
    found = bytearray((pages + grown) * PAGE)
    for each in at:
        found[each : each + len(DATA)] = DATA
    found[: len(READ)] = READ
    return bytes(found)


@pytest.mark.parametrize("profile", list(Profile))
def test_no_slot_shows_a_byte_of_the_memory_before(profile: Profile) -> None:
    """Each shape fills all slots, and then each finds them as new."""
    import wasmtime

    engine = Engine(profile)
    backend, slots = engine.backend, Pool().memories
    modules = {name: wasmtime.Module(engine.engine, guest(*shape)) for name, shape in SHAPES.items()}

    def in_all_slots(name: str, *requests: bytes) -> list[bytes]:
        """The last answer of each instance: of as many at a time as there can be."""
        stores = [backend.open(engine.engine, Limits(MOST, 10)) for _ in range(slots)]
        found = []
        for store in stores:
            backend.arm(store, 1, binding.FUEL_UNLIMITED if engine.metered else None)
            instance = backend.instantiate(store, modules[name], [])
            memory = backend.export(store, instance, "memory")
            found.append([backend.exchange(store, instance, memory, request, MOST) for request in requests][-1])
        for store in stores:
            backend.close(store)
        return found

    for before, after in itertools.product(SHAPES, repeat=2):
        pages, grown, _ = SHAPES[before]
        dirty = READ + bytes([DIRT]) * ((pages + grown) * PAGE - len(READ))
        assert in_all_slots(before, FILL, READ) == [dirty] * slots  # so it would be seen
        wanted = fresh(*SHAPES[after])
        assert all(found == wanted for found in in_all_slots(after, READ)), f"{after} after {before}"


FILLS = "(memory.fill (i32.const 0) (i32.const 165) (i32.shl (memory.size) (i32.const 16)))"
MEMORY = f'(memory (export "memory") 1 {2 * KEPT})'
GROWS = f"(drop (memory.grow (i32.const {2 * KEPT - 1})))"
FAILS: dict[str, str] = {
    "a trap": f"{MEMORY} (func $f {GROWS} {FILLS} unreachable) (start $f)",
    "a stack that is full": f"{MEMORY} (func $g (call $g)) (func $f {GROWS} {FILLS} (call $g)) (start $f)",
    "data that does not fit": f'{MEMORY} (data (i32.const 9) "left") (data (i32.const 65535) "left")',
    "passive data that is too short": f"""{MEMORY} (data $d "left") (func $f {GROWS} {FILLS}
      (memory.init $d (i32.const 70000) (i32.const 0) (i32.const 9))) (start $f)""",
    "a memory that began with nothing": f"""(memory (export "memory") 0 2) (func $f
      (drop (memory.grow (i32.const 2))) {FILLS} unreachable) (start $f)""",
    "elements that do not fit": f"""{MEMORY} (table 2 funcref) (func $f {GROWS} {FILLS})
      (elem (i32.const 0) $f $f) (elem (i32.const 1) $f $f) (start $f)""",
}


@pytest.mark.parametrize("what", FAILS)
@pytest.mark.parametrize("profile", list(Profile))
def test_what_failed_while_it_began_leaves_nothing(profile: Profile, what: str) -> None:
    import wasmtime

    engine = Engine(profile)
    backend, slots = engine.backend, Pool().memories
    failing = wasmtime.Module(engine.engine, wat(f"(module {FAILS[what]})"))
    whole = wasmtime.Module(engine.engine, guest(1, 3 * KEPT, []))
    for _ in range(3 * slots):
        store = backend.open(engine.engine, Limits(MOST, 10))
        backend.arm(store, 1, binding.FUEL_UNLIMITED if engine.metered else None)
        with pytest.raises((Trapped, wasmtime.WasmtimeError)):
            backend.instantiate(store, failing, [])
        backend.close(store)
    stores = [backend.open(engine.engine, Limits(MOST, 10)) for _ in range(slots)]
    for store in stores:
        backend.arm(store, 1, binding.FUEL_UNLIMITED if engine.metered else None)
        instance = backend.instantiate(store, whole, [])
        found = backend.exchange(store, instance, backend.export(store, instance, "memory"), READ, MOST)
        assert found == fresh(1, 3 * KEPT, [])
    for store in stores:
        backend.close(store)


TABLE = """(module (memory (export "memory") 1) (table $t 2 3000 funcref) (func $f) (elem declare func $f)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "handle") (param i32 i32) (result i64) (local $at i32) (local $found i64)
    (drop (table.grow $t (ref.null func) (i32.const 2998)))
    (loop $next
      (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then
        (local.set $found (i64.add (local.get $found) (i64.const 1)))))
      (table.set $t (local.get $at) (ref.func $f))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 3000))))
    (i32.store (i32.const 0) (i32.wrap_i64 (local.get $found))) (i64.const 4)))"""


@pytest.mark.parametrize("profile", list(Profile))
def test_no_table_shows_an_element_of_the_table_before(profile: Profile) -> None:
    import wasmtime

    engine = Engine(profile)
    backend = engine.backend
    module = wasmtime.Module(engine.engine, wat(TABLE))
    for _ in range(3 * Pool().tables):
        store = backend.open(engine.engine, Limits(MOST, 5000))
        backend.arm(store, 1, binding.FUEL_UNLIMITED if engine.metered else None)
        instance = backend.instantiate(store, module, [])
        memory = backend.export(store, instance, "memory")
        assert backend.exchange(store, instance, memory, READ, MOST) == bytes(4)
        backend.close(store)


def test_the_pool_has_no_more_slots_than_were_looked_at() -> None:
    import wasmtime

    engine = Engine(Profile.FAST)
    backend = engine.backend
    module = wasmtime.Module(engine.engine, guest(*SHAPES["one page"]))
    stores = [backend.open(engine.engine, Limits(MOST, 10)) for _ in range(Pool().memories + 1)]
    for store in stores[:-1]:
        backend.instantiate(store, module, [])
    with pytest.raises(wasmtime.WasmtimeError, match=f"concurrent limit of {Pool().memories} for memory"):
        backend.instantiate(stores[-1], module, [])
    for store in stores:
        backend.close(store)
